"""A journal in one SQLite file, which any process may read while one writes.

    journal    what was decided and what happened, in order: the truth of an experiment
    measured   intermediate results
    started    when the process of each attempt began
    saved      when the states that workers hold were saved, and how long that took
    log        what was said to the user
    sessions   the controllers that drove the experiment, one after the other
    meta       what the experiment is: id, name, configuration, version of this layout

Hyperparameters and metrics are JSON; everything else has a column of its own, so that the file can
be asked with nothing but `sqlite3`.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from shoal.core.records import (
    LOST,
    Failed,
    Finished,
    Hparams,
    Measured,
    Record,
    Saved,
    Seen,
    Started,
    Trial,
)
from shoal.stores.base import Entry

VERSION = 1
SHARED = 1 << 15  # as many hyperparameters are remembered while a journal is read
LONGEST_PATH = 500  # bytes: SQLite takes 512, with what it adds to the names of its files

# What journals of shoal 0.1.0 have not.
ADDED = """
CREATE INDEX IF NOT EXISTS by_trial ON journal (trial);
CREATE TABLE IF NOT EXISTS started (
    trial INTEGER NOT NULL, attempt INTEGER NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (trial, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS saved (
    seq INTEGER PRIMARY KEY, trial INTEGER NOT NULL, at REAL NOT NULL, seconds REAL NOT NULL
) STRICT;
"""
# For those who only read one of these, a copy that is found in its place.
COPY = """
CREATE TEMP TABLE journal AS SELECT * FROM main.journal;
CREATE INDEX temp.by_trial ON journal (trial);
"""
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('trial', 'finished', 'failed')),
    trial INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    member INTEGER, step INTEGER, parent INTEGER, hparams TEXT,
    score REAL, metrics TEXT, saved INTEGER,
    reason TEXT, failure TEXT
) STRICT;
CREATE TABLE measured (
    trial INTEGER NOT NULL, attempt INTEGER NOT NULL, idx INTEGER NOT NULL,
    at REAL NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (trial, attempt, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE log (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE TABLE sessions (
    seq INTEGER PRIMARY KEY, pid INTEGER NOT NULL, host TEXT NOT NULL,
    began REAL NOT NULL, seen REAL NOT NULL, ended REAL, outcome TEXT, reason TEXT
) STRICT;
"""


# what comes of reading a journal that is damaged: no page, no text, no JSON, no score
DAMAGE = (sqlite3.Error, ValueError)
REASON = 2000  # characters of a reason that a summary goes by
TABLES = {"meta", "journal", "measured", "log", "sessions"}
SIDE_TABLES = ("measured", "started", "saved", "log", "sessions")  # nothing is decided by them


class StoreError(Exception):
    """A journal that cannot be made, read or written to; the message says why, and what to do."""


def why(error: Exception, path: Path) -> str:
    """What `error` means for whoever wants to use the journal at `path`."""
    name = getattr(error, "sqlite_errorname", "")
    length = len(os.fsencode(path.absolute()))
    if name == "SQLITE_FULL":
        return f"the disk of {path.parent} is full, or `ulimit -f` reached: make room there"
    if name.startswith("SQLITE_IOERR"):
        return f"reading or writing {path} fails ({name}): is its disk full, `ulimit -f` reached?"
    if name.startswith("SQLITE_READONLY"):
        return f"{path} cannot be written to: its disk is read-only, or it is not yours"
    if name.startswith("SQLITE_CANTOPEN") and length > LONGEST_PATH:
        return f"{path} has a path of {length} bytes, and SQLite opens none of more than 500"
    return unreadable(path, error)


def unreadable(path: Path, error: Exception) -> str:
    """What to say of a journal that is damaged."""
    hint = f"`shoal repair {path.parent.name}` says what can be recovered"
    return f"{path} cannot be read as a journal: {error}. {hint}"


def steady() -> Callable[[], float]:
    """A clock that shows the time of day now, and then never steps, whatever is done to that."""
    kind = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while a laptop sleeps
    began = time.time() - time.clock_gettime(kind)
    return lambda: began + time.clock_gettime(kind)


class Session(NamedTuple):
    """One controller's time with an experiment, in seconds since the epoch."""

    pid: int
    host: str
    began: float
    seen: float  # when it last gave a sign of life
    ended: float | None  # None: it still runs, or was killed
    outcome: str | None  # done, stopped, failed
    reason: str | None

    @property
    def seconds(self) -> float:
        """How long it lasted, as far as is known."""
        return max(0.0, (self.seen if self.ended is None else self.ended) - self.began)


class Tally(NamedTuple):
    """How many trials there are, and how they stand."""

    trials: int
    finished: int
    failed: int  # given up, or about to be tried again
    failures: bool  # whether any has ever failed
    best: float | None  # the highest score
    least: float | None  # the lowest


class LogLine(NamedTuple):
    """A line of the experiment's log."""

    seq: int
    at: float
    level: str  # info, warning, error
    text: str


class SqliteStore:
    """The journal of one experiment. One process writes; others open it read-only."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the journal at `path`.

        Raises:
            StoreError: there is none, it is none, or a newer shoal wrote it.
        """
        if not path.is_file():
            raise StoreError(f"no journal at {path}")
        self.path = path
        self._pending: list[tuple[str, tuple[Any, ...]]] = []
        self._now = steady()
        try:
            self._db = opened(path, "ro") if read_only else opened(path, "rw")
        except DAMAGE as error:
            raise StoreError(why(error, path)) from error
        try:
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master")}
            if missing := TABLES - tables:
                self._db.close()
                raise StoreError(f"{path} is no journal: it has no table {min(missing)}")
            version = self.meta().get("version", "0")
            if read_only and "by_trial" not in tables:
                self._db.executescript(COPY)
            if not read_only and version == str(VERSION):
                self._db.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut
                self._db.executescript(ADDED)
        except DAMAGE as error:
            self._db.close()
            raise StoreError(why(error, path)) from error
        if version != str(VERSION):
            self._db.close()
            raise StoreError(
                f"{path} has format {version}, this shoal reads format {VERSION}: "
                "use the version of shoal that wrote it"
            )

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, str]) -> Self:
        """A new, empty journal at `path`, where nothing is yet.

        Raises:
            StoreError: it cannot be written there.
        """
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute("PRAGMA journal_mode = WAL")  # one writes while others read
                db.executescript(SCHEMA + ADDED)
                facts = {**meta, "version": str(VERSION)}
                db.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())
        except sqlite3.Error as error:
            raise StoreError(why(error, path)) from error
        return cls(path)

    def close(self) -> None:
        """Commit and let go of the file.

        Raises:
            StoreError: nothing can be written any more.
        """
        try:
            self.commit()
        finally:
            self._db.close()

    def append(self, record: Record | Seen) -> None:
        self._pending.append(encode(record, self._now()))

    def commit(self) -> None:
        if not self._pending:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for statement, values in self._pending:
                self._db.execute(statement, values)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StoreError(why(error, self.path)) from error
        self._pending.clear()

    def read(self) -> Iterator[Entry]:
        return map(decode, self._db.execute("SELECT * FROM journal ORDER BY seq"))

    def entries(self, after: int) -> Iterator[tuple[int, Entry]]:
        """(number, record) of what has come after the record of that number."""
        query = "SELECT * FROM journal WHERE seq > ? ORDER BY seq"
        return ((row[0], decode(row)) for row in self._db.execute(query, (after,)))

    def read_of(self, trials: Iterable[int]) -> Iterator[Entry]:
        """What the journal has of `trials`, of one after the other by their ids."""
        query = (
            "SELECT journal.* FROM json_each(?) AS wanted JOIN journal ON trial = wanted.value"
            " ORDER BY trial, seq"
        )
        return map(decode, self._db.execute(query, (json.dumps(sorted(set(trials))),)))

    def since(self, seq: int) -> Iterator[tuple[Any, ...]]:
        """The records after `seq`, undecoded: hyperparameters are JSON.

        (seq, at, kind, trial, attempt, member, step, parent, hparams, score, failure) of each.
        """
        return self._db.execute(
            "SELECT seq, at, kind, trial, attempt, member, step, parent, hparams, score, failure"
            " FROM journal WHERE seq > ? ORDER BY seq",
            (seq,),
        )

    def records(self) -> Iterator[Record]:
        """The journal as far as decisions depend on it: without times and further metrics.

        A million records are read in half the time that `read` takes, and trials that went on under
        the same hyperparameters share them.
        """
        known: dict[str, Hparams] = {}
        rows = self._db.execute(
            "SELECT kind, trial, attempt, member, step, parent, hparams, score, saved, failure,"
            " reason FROM journal ORDER BY seq"
        )
        for kind, trial, attempt, member, step, parent, hparams, score, saved, failure, why in rows:
            if kind == "trial":
                if (value := known.get(hparams)) is None:
                    if len(known) >= SHARED:
                        known.clear()
                    value = known[hparams] = parse(hparams)[0]
                yield Trial(trial, member, step, value, parent, attempt)
            elif kind == "finished":
                yield Finished(trial, score, NO_METRICS, saved == 1, attempt)
            else:
                yield Failed(trial, failure, why, attempt)

    def measured_by(self, trials: Iterable[int] | None = None) -> dict[tuple[int, int], list[Any]]:
        """The intermediate results of each attempt (trial, attempt), of all trials or of these."""
        query, given = "SELECT trial, attempt, value FROM measured", list[str]()
        if trials is not None:
            query += " WHERE trial IN (SELECT value FROM json_each(?))"
            given.append(json.dumps(sorted(set(trials))))
        found: dict[tuple[int, int], list[Any]] = {}
        for trial, attempt, value in self._db.execute(
            f"{query} ORDER BY trial, attempt, idx", given
        ):
            found.setdefault((trial, attempt), []).append(json.loads(value))
        return found

    def started(self, trials: Iterable[int] | None = None) -> dict[tuple[int, int], float]:
        """When the process of each attempt (trial, attempt) began, in seconds since the epoch.

        Of all trials, or of these.
        """
        query, given = "SELECT trial, attempt, at FROM started", list[str]()
        if trials is not None:
            query += " WHERE trial IN (SELECT value FROM json_each(?))"
            given.append(json.dumps(sorted(set(trials))))
        try:
            rows = self._db.execute(query, given)
        except sqlite3.OperationalError:  # a journal of shoal 0.1.0
            return {}
        return {(trial, attempt): at for trial, attempt, at in rows}

    def saved(self, after: int) -> list[tuple[int, int, float, float]]:
        """(number, trial, when it had ended, seconds) of each save after the one of that number."""
        query = "SELECT seq, trial, at, seconds FROM saved WHERE seq > ? ORDER BY seq"
        try:
            return self._db.execute(query, (after,)).fetchall()
        except sqlite3.OperationalError:  # an older journal
            return []

    def tally(self) -> Tally:
        """How the trials stand, counted without reading what else is known of them."""
        trials, finished, best, least = self._db.execute(
            "SELECT ifnull(max(trial), -1) + 1, count(score), max(score), min(score) FROM journal"
        ).fetchone()
        failed, failures = self._db.execute(
            "SELECT ifnull(sum(kind = 'failed' AND failure != ?), 0), count(*) FROM"
            " (SELECT kind, failure, max(seq) FROM journal"
            " WHERE trial IN (SELECT trial FROM journal WHERE kind = 'failed') GROUP BY trial)",
            (LOST,),
        ).fetchone()
        return Tally(trials, finished, failed, failures > 0, best, least)

    def failed(self) -> list[str]:
        """What each trial failed with whose newest record is a failure, and no loss, by trial."""
        query = (
            "SELECT failure || ': ' || substr(reason, 1, ?) FROM"
            " (SELECT trial, kind, failure, reason, max(seq) FROM journal"
            " WHERE trial IN (SELECT trial FROM journal WHERE kind = 'failed') GROUP BY trial)"
            " WHERE kind = 'failed' AND failure != ? ORDER BY trial"
        )
        return [error for (error,) in self._db.execute(query, (REASON, LOST))]

    def best(self) -> int | None:
        """The finished trial with the highest score; of equals, the one decided first."""
        query = (
            "SELECT trial FROM journal WHERE score IS NOT NULL ORDER BY score DESC, trial LIMIT 1"
        )
        found = self._db.execute(query).fetchone()
        return None if found is None else int(found[0])

    def top(self, members: range, steps: int) -> int | None:
        """The trial with the highest score of so many first steps of these members."""
        query = (
            "SELECT journal.trial FROM journal JOIN journal AS decided"
            " ON decided.trial = journal.trial AND decided.kind = 'trial' AND decided.attempt = 1"
            " WHERE journal.score IS NOT NULL AND decided.step < ?"
            " AND decided.member >= ? AND decided.member < ?"
            " ORDER BY journal.score DESC, journal.trial LIMIT 1"
        )
        found = self._db.execute(query, (steps, members.start, members.stop)).fetchone()
        return None if found is None else int(found[0])

    def ancestors(self, trial: int) -> list[int]:
        """`trial` and whatever it descends from, the first of all first."""
        rows = self._db.execute(
            "WITH RECURSIVE line (trial, parent) AS (SELECT trial, parent FROM journal"
            " WHERE trial = ? AND kind = 'trial' UNION SELECT journal.trial, journal.parent"
            " FROM line JOIN journal ON journal.trial = line.parent WHERE kind = 'trial')"
            " SELECT trial FROM line ORDER BY trial",  # no parent is younger than its child
            (trial,),
        )
        return [trial for (trial,) in rows]

    def newest(self, members: int) -> list[int]:
        """The latest trial of each of so many members."""
        found: dict[int, int] = {}
        for trial, member in self._db.execute(
            "SELECT trial, member FROM journal WHERE kind = 'trial' ORDER BY seq DESC"
        ):
            if found.get(member, -1) < trial:
                found[member] = trial
            if len(found) == members:
                break
        return list(found.values())

    def ancestor(self, trials: Iterable[int], since: int = 0) -> int | None:
        """The newest trial that all of `trials` go back to, or are, if it is not before `since`."""
        front: set[int | None] = set(trials)
        rows = self._db.execute(
            "SELECT trial, parent FROM journal WHERE kind = 'trial' AND attempt = 1"
            " AND trial BETWEEN ? AND ? ORDER BY trial DESC",
            (since, max(trials, default=-1)),
        )
        for trial, parent in rows:  # no parent is younger than its child
            if len(front) <= 1 or None in front:
                break
            if trial in front:
                front.discard(trial)
                front.add(parent)
        common = front.pop() if len(front) == 1 else None
        return common if common is not None and common >= since else None

    def starts(self) -> Iterator[tuple[int, int, int | None, float | None]]:
        """(trial, member, parent, score) of every trial, by id; without a score, it has none."""
        return self._db.execute(
            "SELECT trial, max(member), max(parent), max(score) FROM journal GROUP BY trial"
        )

    def meta(self) -> dict[str, str]:
        """What the experiment is."""
        return dict(self._db.execute("SELECT key, value FROM meta").fetchall())

    def set_meta(self, key: str, value: str) -> None:
        """Say at the next commit what the experiment now is."""
        self._later("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)

    def log(self, level: str, text: str) -> None:
        """Write a line of the log at the next commit."""
        self._later("INSERT INTO log (at, level, text) VALUES (?, ?, ?)", self._now(), level, text)

    def lines(self, after: int = 0) -> list[LogLine]:
        """The lines of the log whose `seq` is above `after`."""
        rows = self._db.execute("SELECT * FROM log WHERE seq > ? ORDER BY seq", (after,))
        return [LogLine(*row) for row in rows]

    def begin(self, pid: int, host: str) -> None:
        """Note that a controller takes the experiment over."""
        now = self._now()
        self._later("UPDATE sessions SET ended = seen WHERE ended IS NULL")
        self._later(
            "INSERT INTO sessions (pid, host, began, seen) VALUES (?, ?, ?, ?)", pid, host, now, now
        )
        self.commit()

    def seen(self) -> None:
        """Note at the next commit that the controller is alive."""
        self._later("UPDATE sessions SET seen = ? WHERE ended IS NULL", self._now())

    def end(self, outcome: str, reason: str) -> None:
        """Note how the controller left the experiment."""
        now = self._now()
        self._later(
            "UPDATE sessions SET seen = ?, ended = ?, outcome = ?, reason = ? WHERE ended IS NULL",
            now, now, outcome, reason,
        )  # fmt: skip
        self.commit()

    def sessions(self) -> list[Session]:
        """All controllers so far, in order."""
        rows = self._db.execute(
            "SELECT pid, host, began, seen, ended, outcome, reason FROM sessions ORDER BY seq"
        )
        return [Session(*row) for row in rows]

    def put(self, statement: str, values: tuple[Any, ...]) -> None:
        """Execute `statement` at the next commit."""
        self._pending.append((statement, values))

    def _later(self, statement: str, *values: Any) -> None:
        self.put(statement, values)


@contextmanager
def reading(path: Path) -> Iterator[SqliteStore]:
    """The journal at `path`, to be read.

    Raises:
        StoreError: it cannot be, wherever it breaks off.
    """
    try:
        with closing(SqliteStore(path, read_only=True)) as store:
            yield store
    except DAMAGE as error:
        raise StoreError(why(error, path)) from error


def opened(path: Path, mode: str) -> sqlite3.Connection:
    """The database at `path`, which has tables."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    for option in ("", "&immutable=1"):
        db = sqlite3.connect(uri + option, uri=True, timeout=30, isolation_level=None)
        try:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except DAMAGE as error:
            db.close()
            # On a disk that is read-only a reader cannot make the files by which it and a writer
            # keep out of each other's way; but where no writer has left any, there is none.
            wal = path.with_name(path.name + "-wal")
            alone = mode == "ro" and not option and not wal.exists()
            name = getattr(error, "sqlite_errorname", "")
            if not (alone and name.startswith("SQLITE_CANTOPEN")):
                raise
        else:
            break
    return db


TRIAL = """INSERT INTO journal (at, kind, trial, attempt, member, step, parent, hparams)
VALUES (?, 'trial', ?, ?, ?, ?, ?, ?)"""
FINISHED = """INSERT INTO journal (at, kind, trial, attempt, score, metrics, saved)
VALUES (?, 'finished', ?, ?, ?, ?, ?)"""
FAILED = """INSERT INTO journal (at, kind, trial, attempt, failure, reason)
VALUES (?, 'failed', ?, ?, ?, ?)"""
STARTED = "INSERT OR REPLACE INTO started (at, trial, attempt) VALUES (?, ?, ?)"
SAVED = "INSERT INTO saved (at, trial, seconds) VALUES (?, ?, ?)"
MEASURED = "INSERT OR REPLACE INTO measured (at, trial, attempt, idx, value) VALUES (?, ?, ?, ?, ?)"


def encode(record: Record | Seen, at: float) -> tuple[str, tuple[Any, ...]]:
    """The statement that writes `record`, and its values."""
    match record:
        case Trial(id, member, step, hparams, parent, attempt):
            return TRIAL, (at, id, attempt, member, step, parent, json.dumps(hparams))
        case Finished(trial, score, metrics, saved, attempt):
            return FINISHED, (at, trial, attempt, score, json.dumps(metrics), saved)
        case Failed(trial, kind, reason, attempt):
            return FAILED, (at, trial, attempt, kind, reason)
        case Started(trial, attempt, ago):
            return STARTED, (at - ago, trial, attempt)
        case Saved(trial, seconds):
            return SAVED, (at, trial, seconds)
        case Measured(trial, index, value, attempt):
            return MEASURED, (at, trial, attempt, index, json.dumps(value))


NO_METRICS: Mapping[str, float] = {}
parse = json.JSONDecoder().raw_decode  # `loads` without what is done for text of unknown origin


def decode(row: tuple[Any, ...]) -> Entry:
    """The record that a row of the journal holds.

    Raises:
        ValueError: it holds none: the file is damaged.
    """
    (seq, at, kind, trial, attempt, member, step, parent, hparams,
     score, metrics, saved, reason, failure) = row  # fmt: skip
    try:
        if kind == "trial":
            entry = Entry(at, Trial(trial, member, step, parse(hparams)[0], parent, attempt))
        elif kind == "finished":
            entry = Entry(at, Finished(trial, score, parse(metrics)[0], saved == 1, attempt))
        else:
            entry = Entry(at, Failed(trial, failure, reason, attempt))
    except TypeError as error:
        raise ValueError(f"record {seq} is damaged: {error}") from error
    match entry:
        case (float(), Trial(int(), int(), int(), dict(), None | int(), int())):
            return entry
        case (float(), Finished(int(), float(), dict(), bool(), int())):
            return entry
        case (float(), Failed(int(), str(), str(), int())):
            return entry
    raise ValueError(f"record {seq} is damaged")
