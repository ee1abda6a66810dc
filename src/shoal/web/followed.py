"""Experiments as a server keeps them: read on as they grow, never anew."""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any
from zlib import crc32

from shoal import home as homes
from shoal import views
from shoal.checkpoints import saved
from shoal.health import Finding
from shoal.history import FAILED, FINISHED, History, Reader
from shoal.home import ExperimentError, Folder
from shoal.result import Best, Result, findings_of, unreadable
from shoal.stores.sqlite import Tally

KEPT = 16  # experiments that are kept in memory
ANSWERS = 64  # answers that are kept, of each
HEALTH_S = 10.0  # how old findings may be
SEEN_S = 10.0  # how old the time that it has run may be
FRESH_S = 0.2  # how old what was read may be, in any case
WAL_INDEX_HEAD = 48  # bytes
ID = re.compile(r"[\w.-]{1,255}")


class Unknown(Exception):  # noqa: N818 (an answer, not a mishap)
    """There is no such thing: the message says which."""


class Now(Result):
    """An experiment at one moment: a `Result` for which almost nothing has to be read."""

    def __init__(self, followed: "Followed") -> None:
        super().__init__(followed.folder)
        self._followed = followed

    @cached_property
    def history(self) -> History:
        """All its trials, as columns."""
        return self._followed.reader.history()

    @cached_property
    def tally(self) -> Tally:
        history = self.history
        metrics = history.score[history.finished]
        return Tally(
            trials=len(history),
            finished=int((history.state == FINISHED).sum()),
            failed=int((history.state == FAILED).sum()),
            failures=self._followed.reader.failures,
            best=float(metrics.max()) if len(metrics) else None,
            least=float(metrics.min()) if len(metrics) else None,
        )

    @cached_property
    def best_so_far(self) -> Best | None:
        best, known = self.history.best, self._followed.best
        if best is None:
            return None
        if known is None or known.lineage[-1].id != best or self._moved(known):
            line = self.trials(self.history.lineage(best).tolist())
            row = line[-1]
            assert row.metric is not None
            known = Best(row.metric, row.hparams, row.checkpoint, views.schedule(line), line)
            self._followed.best = known
        return known

    def _moved(self, best: Best) -> bool:
        """Whether the checkpoint of what was the best has come or gone."""
        row = best.lineage[-1]
        there = saved(self.checkpoints / str(row.member) / str(row.step))
        return there != (best.checkpoint is not None)

    @cached_property
    def uncopied(self) -> views.Row | None:
        found = self.history.uncopied
        return None if found is None else self.trials([found])[0]

    def _top(self, members: range, steps: int) -> int | None:
        return self.history.top(members, steps)

    @cached_property
    def findings(self) -> list[Finding]:
        return self._followed.findings(self.tally.trials, running=self.state == "running")


@dataclass
class Followed:
    """One experiment, read on."""

    folder: Folder
    reader: Reader
    best: Best | None = None
    version: str = ""  # changes with whatever there is to be seen
    seq: int = 0  # of the last line of its log
    _lock: RLock = field(default_factory=RLock)
    _looked: float = 0.0
    _signature: object = None
    _which: int = 0  # the inode of the journal that was read
    _now: Now | None = None
    _answers: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    _findings: tuple[float, int, list[Finding]] = (-HEALTH_S, -1, [])

    @classmethod
    def of(cls, folder: Folder) -> "Followed":
        """The experiment in `folder`.

        Raises:
            ExperimentError: it cannot be read.
        """
        return cls(folder, Reader.of(Result(folder)))

    def refresh(self) -> str:
        """Take in what is new; the version that there is now.

        Raises:
            ExperimentError: it cannot be read any more.
        """
        with self._lock:
            if time.monotonic() < self._looked + FRESH_S:
                return self.version
            self._looked = time.monotonic()
            signature = signature_of(self.folder)
            if signature != self._signature:
                self._begin_again()
                self._read()
                self._signature = signature
            return self.version

    def now(self) -> Now:
        """How it stands.

        Raises:
            ExperimentError: it cannot be read.
        """
        with self._lock:
            self.refresh()
            if self._now is None:
                self._now = Now(self)
            return self._now

    def answer(self, key: str, make: Callable[[Now], bytes]) -> tuple[str, bytes]:
        """(version, what `make` makes of how it stands), made once a version and `key`.

        Raises:
            ExperimentError: it cannot be read.
        """
        with self._lock:
            now = self.now()
            if (known := self._answers.get(key)) is None:
                known = self._answers[key] = make(now)
                if len(self._answers) > ANSWERS:
                    self._answers.popitem(last=False)
            return self.version, known

    def findings(self, trials: int, *, running: bool) -> list[Finding]:
        """What may be wrong with it: as it was a few seconds ago, while it runs."""
        at, seq, found = self._findings
        old = time.monotonic() > at + HEALTH_S if running else seq != self.reader.seq
        if old:
            found = findings_of(Result(self.folder), trials)
            self._findings = time.monotonic(), self.reader.seq, found
        return found

    def _begin_again(self) -> None:
        """Forget what was read, if another journal is in the place of that, as after a repair."""
        with suppress(OSError):
            which = self.folder.journal.stat().st_ino
            if self._which not in {0, which}:
                self.reader, self.best, self.seq = Reader.of(Result(self.folder)), None, 0
                self._findings = (-HEALTH_S, -1, [])
            self._which = which

    def _read(self) -> None:
        with self.folder.open() as store:
            changed = self.reader.read(store)
            lines = store.lines(self.seq)
            sessions, meta = store.sessions(), store.meta()
        self.seq = lines[-1].seq if lines else self.seq
        last = sessions[-1] if sessions else None
        state = (
            self.folder.holder(), len(sessions), last and (last.outcome, last.seen // SEEN_S),
            meta.get("waiting"), meta.get("pausing"), meta.get("config"), self.reader.begun,
            self.reader.saves,
        )  # fmt: skip
        version = f"{self.reader.seq}.{self.seq}.{crc32(repr(state).encode()):x}"
        if changed or version != self.version:
            self._now = None
            self._answers.clear()
            self.version = version


def signature_of(folder: Folder) -> object:
    """What changes when something is written to the experiment in `folder`, or its holder goes.

    The times of its files are not enough: SQLite writes to the log, waits for the disk, and only
    then lets readers see it, by the head of the index of the log.
    https://www.sqlite.org/walformat.html#the_wal_index_file_format
    """
    found: list[object] = [folder.holder()]
    for name in ("journal.db", "journal.db-wal"):
        with suppress(OSError):
            stat = (folder.path / name).stat()
            found.append((name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    with suppress(OSError), (folder.path / "journal.db-shm").open("rb") as file:
        found.append(file.read(WAL_INDEX_HEAD))
    return tuple(found)


class Home:
    """All experiments in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._followed: OrderedDict[str, Followed] = OrderedDict()
        self._briefs: dict[str, tuple[object, dict[str, Any]]] = {}
        self._created: dict[str, float] = {}
        self._lock = RLock()

    def get(self, id: str) -> Followed:
        """The experiment with that id.

        Raises:
            Unknown: there is none.
            ExperimentError: it cannot be read.
        """
        folder = Folder((self.path / id).resolve()) if ID.fullmatch(id) and id[0] != "." else None
        if folder is None or not folder.journal.is_file():
            raise Unknown(f"there is no experiment {id!r} in {self.path}")
        with self._lock:
            known = self._followed.pop(id, None)
            if known is None or known.folder != folder:
                known = Followed.of(folder)
            self._followed[id] = known
            if len(self._followed) > KEPT:
                self._followed.popitem(last=False)
        return known

    def briefs(self) -> list[dict[str, Any]]:
        """How each experiment stands, newest first; last those that cannot be read, and why."""
        found: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        known = {}
        folders = list(homes.folders(self.path))
        self._created = {f.id: self._created.get(f.id) or homes.created(f) for f in folders}
        for folder in sorted(folders, key=lambda f: (self._created[f.id], f.id), reverse=True):
            signature = signature_of(folder)
            before = self._briefs.get(folder.id)
            if before is None or before[0] != signature:
                before = signature, self._brief(folder)
            known[folder.id] = before
            (others if before[1]["state"] == "unreadable" else found).append(before[1])
        self._briefs = known
        return found + others

    def prepare(self) -> None:
        """Read the newest experiment before somebody asks for it."""
        with suppress(ExperimentError, Unknown):
            newest = homes.find(self.path, None)
            self.get(newest.id).now().status()

    def version(self) -> str:
        """What changes with whatever the list shows."""
        shown = [{**brief, "seconds": None} for brief in self.briefs()]  # a page counts them
        return f"{crc32(repr(shown).encode()):x}"

    def _brief(self, folder: Folder) -> dict[str, Any]:
        try:
            if folder.id in self._followed:
                return self._followed[folder.id].now().brief()
            return Result(folder).brief()
        except ExperimentError as error:
            return unreadable(folder, str(error))
