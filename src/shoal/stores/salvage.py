"""What can still be read of a journal whose file is damaged."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.stores.base import Entry
from shoal.stores.sqlite import DAMAGE, SIDE_TABLES, SqliteStore, StoreError, decode, encode

LEAST_ROW = 60  # bytes: a row of the journal, with what the index has of it, takes no less
MOST_LOST = 64  # times the length of what is left
KEYS = ("id", "name", "created", "config", "version")


@dataclass
class Salvage:
    """What is left of a journal.

    Attributes:
        sound: whether the file is as it was written.
        meta: what the experiment is.
        entries: the records that are readable, by their place in the journal: 1, 2, 3, ...
        sides: the rows of the other tables, which nothing is decided by.
    """

    sound: bool
    meta: dict[str, str] = field(default_factory=dict)
    entries: dict[int, Entry] = field(default_factory=dict)
    sides: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    @property
    def gaps(self) -> int:
        """How many records before the last readable one are not."""
        return max(self.entries, default=0) - len(self.entries)


def salvage(path: Path) -> Salvage:
    """What can be read of the journal at `path`, which is left as it is.

    Raises:
        StoreError: it is no database any more.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".salvage-") as name:
        copy = Path(name) / path.name  # what is opened may be written to
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        size = copy.stat().st_size
        whole = _whole(copy)
        try:
            with closing(sqlite3.connect(copy, isolation_level=None)) as db:
                db.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return _read(db, size, whole=whole)
        except DAMAGE as error:
            raise StoreError(f"nothing can be read of {path}: {error}") from error


def rebuilt(path: Path, found: Salvage, entries: list[Entry]) -> None:
    """A new journal at `path`, of these records and whatever else was found.

    Raises:
        StoreError: it cannot be written there.
    """
    with closing(SqliteStore.create(path, found.meta)) as store:
        for at, record in entries:
            store.put(*encode(record, at))
        for table, rows in found.sides.items():
            for row in rows:
                places = ", ".join("?" * len(row))
                store.put(f"INSERT OR IGNORE INTO {table} VALUES ({places})", row)  # noqa: S608


def _whole(path: Path) -> bool:
    """Whether a file is as long as its header says; after this it is, one way or the other.

    SQLite opens none whose end is lost, and reads nothing beyond the end that it is told of. Whose
    header asks for very much more is damaged there.
    """
    with path.open("r+b") as file:
        header = file.read(32)
        page, told = int.from_bytes(header[16:18]), int.from_bytes(header[28:32])
        if not header.startswith(b"SQLite format 3") or page == 0:
            return False
        there = -(-path.stat().st_size // page)
        pages = told if there < told < MOST_LOST * there else there
        file.seek(28)
        file.write(pages.to_bytes(4))
        file.truncate(pages * page)
    return there == told


def _read(db: sqlite3.Connection, size: int, *, whole: bool) -> Salvage:
    found = Salvage(sound=False)
    with suppress(*DAMAGE):
        found.sound = whole and db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for key in KEYS:
        with suppress(*DAMAGE):
            for (value,) in db.execute("SELECT value FROM meta WHERE key = ?", (key,)):
                found.meta[key] = value
    for row in _rows(db, 1, size // LEAST_ROW + 2):
        try:
            found.entries[row[0]] = decode(row)
        except ValueError:  # it is there, and is not what was written
            found.sound = False
    for table in SIDE_TABLES:
        rows = found.sides[table] = []
        with suppress(*DAMAGE):
            rows += db.execute(f"SELECT * FROM {table}")  # noqa: S608
    return found


def _rows(db: sqlite3.Connection, first: int, end: int) -> Iterator[tuple[Any, ...]]:
    """The rows from `first` to before `end` that can be read: where some cannot, half by half."""
    try:
        rows = db.execute(
            "SELECT * FROM journal WHERE seq >= ? AND seq < ? ORDER BY seq", (first, end)
        ).fetchall()
    except (*DAMAGE, OverflowError):
        if end - first > 1:
            middle = (first + end) // 2
            yield from _rows(db, first, middle)
            yield from _rows(db, middle, end)
        return
    yield from rows
