"""Text in columns."""

import click
import pytest

from shoal.show import layout
from shoal.show.layout import Cell


def plain(lines: list[str]) -> list[str]:
    return [click.unstyle(line) for line in lines]


ROWS: list[list[str | Cell]] = [["1", Cell("done", "good"), "0.25"], ["12", "", "10.50"]]


def test_columns_are_aligned_and_lines_end_where_the_text_does() -> None:
    lines = layout.grid(["id", "state", "lr"], ROWS, right=("id", "lr"), indent=2)
    assert plain(lines) == [
        "  id  state     lr",
        "   1  done    0.25",
        "  12         10.50",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert plain(layout.grid(["id", "name"], [], right=())) == ["id  name"]


@pytest.mark.parametrize("limit", [5, 9, 13, 14, 40])
def test_a_row_is_cut_where_the_terminal_ends(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    whole = plain(layout.grid(["id", "state", "lr"], ROWS, right=("id", "lr")))
    monkeypatch.setattr(layout, "width", lambda: limit)
    for line, cut in zip(
        whole, plain(layout.grid(["id", "state", "lr"], ROWS, right=("id", "lr"))), strict=True
    ):
        assert len(cut) <= limit
        assert cut == line or line.startswith(cut.removesuffix("…"))


def test_facts_go_on_below(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["name", "toy"], ["because", "it failed\n  at line 3"]]
    assert layout.facts(rows) == [
        "  name     toy",
        "  because  it failed",
        "             at line 3",
    ]
    monkeypatch.setattr(layout, "width", lambda: 40)
    assert layout.facts([["folder", "a word and another one that is too long for it"]]) == [
        "  folder  a word and another one that is",
        "          too long for it",
    ]
    path = "/a/path/that/is/longer/than/any/terminal/would/be"
    assert layout.facts([["folder", path]]) == [f"  folder  {path}"]


def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout.show(Cell("done", "good").show())
    assert capsys.readouterr().out == "done\n"
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda *_: False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    layout.show(Cell("done", "good").show())
    assert capsys.readouterr().out == "\x1b[32mdone\x1b[0m\n"
