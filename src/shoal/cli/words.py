"""How the command line speaks: answers to stdout, everything else to stderr."""

import json
import shlex
from collections.abc import Iterable
from typing import Any

import click

from shoal.home import Folder, default_home
from shoal.show.layout import one_line, printable


def answer(what: Any) -> None:
    """Print `what` as JSON, which knows no NaN."""
    click.echo(json.dumps(what, indent=2, allow_nan=False))


def answer_all(items: Iterable[Any]) -> None:
    """Print `items` as `answer` prints a list, each as soon as it is there."""
    before = "[\n"
    for item in items:
        text = json.dumps(item, indent=2, allow_nan=False).replace("\n", "\n  ")
        click.echo(f"{before}  {text}", nl=False)
        before = ",\n"
    click.echo("[]" if before == "[\n" else "\n]")


def tell(text: str) -> None:
    """Say something that is not the answer: a pipe carries the answer alone."""
    click.echo(printable(text), err=True)


def complain(text: str) -> None:
    """Say what is wrong."""
    tell(f"error: {text}")


def title(name: str, id: str) -> str:
    """Which experiment it is."""
    return f"{one_line(name)} ({id})"


def call(folder: Folder) -> str:
    """What to call the experiment in `folder` in another command."""
    there = default_home() / folder.id
    return folder.id if there.exists() else shlex.quote(str(folder.path))
