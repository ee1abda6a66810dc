"""docs/cli.md has every command with all its options, and no others."""

import re
from pathlib import Path

import click
import pytest

from shoal.cli import main

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SECTION = re.compile(r"^## `shoal (\w+)[^`]*`\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
SECTIONS = dict(SECTION.findall(TEXT))


def test_every_command_is_there_in_order() -> None:
    assert list(SECTIONS) == list(main.cli.commands)


@pytest.mark.parametrize("name", sorted(main.cli.commands))
def test_every_option_is_there(name: str) -> None:
    parameters = main.cli.commands[name].params
    options = {o for p in parameters if isinstance(p, click.Option) for o in p.opts}
    rows = re.findall(r"^\| (`-.*?) \|", SECTIONS[name], re.MULTILINE)
    told = {option for row in rows for option in re.findall(r"`(--?[\w-]+)", row)}
    assert told == options - {"--home"}


def test_what_all_commands_share() -> None:
    for text in ("--home", "SHOAL_HOME", "SHOAL_DEBUG", "--help", "130"):
        assert text in TEXT
