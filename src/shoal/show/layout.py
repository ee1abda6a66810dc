"""Text in columns. By hand, since importing rich takes as long as all else that `status` does."""

import os
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import click

GAP = "  "
STYLES = {
    "dim": {"dim": True},
    "bold": {"bold": True},
    "good": {"fg": "green"},
    "bad": {"fg": "red"},
    "busy": {"fg": "cyan"},
    "unclear": {"fg": "yellow"},
}


def printable(text: str) -> str:
    """`text` with all that a terminal would obey, but for line breaks, written as an escape."""
    return "\n".join(map(one_line, text.split("\n")))


def one_line(text: str) -> str:
    """`text` with all that a terminal would obey written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Cell(NamedTuple):
    """A text, and how it looks on a terminal."""

    text: str
    style: str = ""

    def show(self) -> str:
        """The text as a terminal is told it."""
        return click.style(self.text, **STYLES[self.style]) if self.style else self.text  # type: ignore[arg-type]


def show(*lines: str) -> None:
    """Print `lines`, in colours where that is wanted."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    for line in lines:
        click.echo(line, color=False if plain else None)


def width() -> int | None:
    """How many columns there are on the terminal; None: it is none, and nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def grid(
    header: Sequence[str],
    rows: Iterable[Sequence[str | Cell]],
    right: Collection[str],
    indent: int = 0,
    widths: list[int] | None = None,
) -> list[str]:
    """The lines of a table: one a row, which is cut where the terminal ends.

    Args:
        header: what the columns are called.
        rows: their cells.
        right: the columns that are aligned to the right, as numbers are.
        indent: spaces before each line.
        widths: of the columns at least, where this is a part of a table; and then what they are.
    """
    cells = [[Cell(one_line(name), "dim") for name in header]]
    cells += [[*map(as_line, row)] for row in rows]
    widths = [0] * len(header) if widths is None else widths
    for column, least in enumerate(widths):
        widths[column] = max(least, *(len(row[column].text) for row in cells))
    limit = width()
    lines = []
    for row in cells:
        line, room = " " * indent, None if limit is None else limit - indent
        for name, cell, wide in zip(header, row, widths, strict=True):
            text = cell.text.rjust(wide) if name in right else cell.text.ljust(wide)
            if room is not None:
                text = cut(text, room)
                room -= len(text) + len(GAP)
            line += cell._replace(text=text).show() + GAP
            if room is not None and room <= 0:
                break
        lines.append(line.rstrip())
    return lines


def cut(text: str, room: int) -> str:
    """`text`, or so much of it as there is room for."""
    return text if len(text.rstrip()) <= room else text[: room - 1] + "…"


def facts(rows: Iterable[Sequence[str | Cell]], indent: int = 2) -> list[str]:
    """The lines of names and what they are; the last cell may be long, and goes on below."""
    cells = [[*map(as_cell, row)] for row in rows]
    columns = zip_longest(*(row[:-1] for row in cells), fillvalue=Cell(""))
    widths = [max(len(cell.text) for cell in column) for column in columns]
    lines = []
    for *first, last in cells:
        line = " " * indent
        for cell, wide in zip(first, widths, strict=False):
            line += cell._replace(text=cell.text.ljust(wide)).show() + GAP
        start = indent + sum(wide + len(GAP) for wide in widths[: len(first)])
        texts = [part for text in last.text.split("\n") for part in wrapped(text, start)]
        lines.append((line + last._replace(text=texts[0]).show()).rstrip())
        lines += [" " * start + last._replace(text=text).show() for text in texts[1:]]
    return lines


def wrapped(text: str, start: int) -> list[str]:
    """`text` in lines that fit between column `start` and the end of the terminal."""
    room = (width() or 0) - start
    if room < 20 or len(text) <= room:  # too narrow to be worth it, or no terminal at all
        return [text]
    head = text[: len(text) - len(text.lstrip())]
    lines = [head]
    for word in text.split():
        if len(lines[-1]) + len(word) < room or not lines[-1].strip():
            lines[-1] += word if not lines[-1].strip() else f" {word}"
        else:
            lines.append(head + word)
    return lines


def as_cell(cell: str | Cell) -> Cell:
    """`cell`, plain if nothing is said, and printable."""
    cell = Cell(cell) if isinstance(cell, str) else cell
    return cell._replace(text=printable(cell.text))


def as_line(cell: str | Cell) -> Cell:
    """`as_cell` in one line."""
    return as_cell(cell)._replace(text=one_line(as_cell(cell).text))
