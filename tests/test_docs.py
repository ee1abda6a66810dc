"""Every public name is documented, once in the code and once in the docs."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

import shoal
from shoal.cli.main import cli
from shoal.views import Row

ROOT = Path(__file__).parents[1]
TEXT = "".join(page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PYTHON = (ROOT / "docs" / "python.md").read_text()


@pytest.mark.parametrize("name", dir(shoal))
def test_a_public_name_says_what_it_is(name: str) -> None:
    public = getattr(shoal, name)
    said = inspect.getdoc(public) or ""
    assert said.split("\n")[0].endswith((".", ":")), f"{name}: {said!r}"
    assert not said.startswith(f"{name}("), f"{name}: a dataclass's own, not ours"
    assert re.search(rf"\b{name}\b", TEXT), f"docs say nothing of shoal.{name}"


def test_the_stub_names_what_is_loaded() -> None:
    stub = (ROOT / "src" / "shoal" / "__init__.pyi").read_text()
    lines = re.findall(r"^from (\S+) import (\w+) as (\w+)$", stub, re.MULTILINE)
    assert {alias: module for module, _, alias in lines} == vars(shoal)["_HOMES"]
    assert all(name == alias for _, name, alias in lines)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"shoal has no 'runn'; it has .*Tuner.*run"):
        shoal.runn  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.parametrize("function", [shoal.run, shoal.resume])
def test_arguments_are_documented(function: object) -> None:
    names = inspect.signature(function).parameters  # type: ignore[arg-type]
    said = inspect.getdoc(function) or ""
    shown = re.search(rf"{function.__name__}\(([^)]*)\)`", PYTHON)  # type: ignore[attr-defined]
    assert shown is not None
    assert re.findall(r"\w+", shown[1]) == list(names)
    for name in names:
        assert re.search(rf"^    {name}: |\b{name}\b", said, re.MULTILINE), name


def test_what_a_result_has_is_documented() -> None:
    has = {name for name in vars(shoal.Result) if not name.startswith("_")} | {"id", "folder"}
    assert has
    for name in has:
        assert re.search(rf"`{name}(\([a-z, ]*\))?`", PYTHON), name
    for field in fields(Row):
        assert f"`{field.name}`" in PYTHON, field.name


def test_every_command_has_help() -> None:
    for name, command in cli.commands.items():
        assert command.help, name
        for param in command.params:
            assert getattr(param, "help", None) or param.param_type_name == "argument", param.name


RELIABILITY = (ROOT / "docs" / "reliability.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+(?:::\w+)?)`", RELIABILITY)))


@pytest.mark.parametrize("name", NAMED)
def test_a_promise_is_held_by_a_test_that_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert (ROOT / file).exists()
    if function:
        assert f"def {function}(" in (ROOT / file).read_text()


def test_promises_are_held_by_tests() -> None:
    assert len(NAMED) >= 40
