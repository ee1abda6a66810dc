"""Trackers that follow a run: in a thread of their own, so that it never waits for them."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from shoal.config import Config
from shoal.controller import Observer, ObserverError
from shoal.core.tuner import Tuner
from shoal.home import ExperimentError, Folder
from shoal.result import Result
from shoal.trackers import loaded, made, named
from shoal.trackers.steps import Reading, Tracker, about

REST_S = 1.0  # between two looks
ENDING_S = 60.0  # for what is left at the end, which may go over a network
PROGRESS = "trackers.json"  # in an experiment's folder: how far each has come


class Following(Observer):
    """Has a tracker told of each step of a run, and of those it was not told of in an earlier life.

    Args:
        what: which tracker, `NAME` or `NAME=WHERE`.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        loaded(named(what)[0])
        self._new, self._over = Event(), Event()
        self._problem: BaseException | None = None
        self._thread: Thread | None = None

    def began(self, folder: Folder, config: Config) -> None:
        self._folder, self._directory = folder, config.directory
        self._thread = Thread(target=self._follow, name=f"shoal-{self._what}", daemon=True)
        self._thread.start()

    def changed(self, tuner: Tuner, waiting: str) -> None:
        self._new.set()
        self._complain()

    def ended(self) -> None:
        if self._thread is None:
            return
        self._over.set()
        self._new.set()
        self._thread.join(ENDING_S)
        if self._thread.is_alive():
            raise ObserverError(f"{self._what} has not taken all of it within {ENDING_S:g} s")
        self._complain()

    def _complain(self) -> None:
        """Raise what has ended the thread, once."""
        problem, self._problem = self._problem, None
        if problem is not None:
            raise ObserverError(
                f"{self._what}: {type(problem).__name__}: {problem}. "
                f"`shoal export --format {named(self._what)[0]}` writes all of it later"
            ) from problem

    def _follow(self) -> None:
        try:
            tracker = made(self._what, self._directory)
            track(self._folder, tracker, Progress(self._folder, self._what), self._look)
        except Exception as error:  # noqa: BLE001 (whatever a library does, the run goes on)
            self._problem = error

    def _look(self) -> bool:
        """Whether there will be more to look at, after it is time to look again."""
        if self._over.is_set():
            return False
        self._new.wait()
        self._new.clear()
        self._over.wait(REST_S)
        return True


def track(
    folder: Folder, tracker: Tracker, progress: "Progress | None", look: Callable[[], bool]
) -> int:
    """Tell `tracker` of an experiment, until `look` says no more; of how many steps.

    Raises:
        ExperimentError: the journal cannot be read.
    """
    told, more, count = about(Result(folder)), True, 0
    reading = Reading(folder, higher=told.higher)
    tracker.begin(told)
    while more:
        more = look()
        for seq, step in reading.new():
            if progress is None or seq > progress.seq:
                tracker.step(step)
                count += 1
        tracker.flush()
        if progress is not None:
            progress.save(reading.seq)
    with folder.open() as store:
        sessions = store.sessions()
    tracker.end(sessions[-1].outcome or "killed" if sessions else "killed")
    return count


def tell_all(folder: Folder, what: str, directory: Path) -> int:
    """Tell the tracker that `what` names of an experiment; of how many steps.

    Raises:
        ExperimentError: the journal cannot be read, or the tracker cannot be told.
    """
    try:
        return track(folder, made(what, directory), None, lambda: False)
    except ExperimentError:
        raise
    except Exception as error:
        raise ExperimentError(f"{what}: {type(error).__name__}: {error}") from error


class Progress:
    """How far a tracker has come, over all lives of a run."""

    def __init__(self, folder: Folder, what: str) -> None:
        self._file, self._what = folder.path / PROGRESS, what
        self.seq = int(self._read().get(what, 0))

    def save(self, seq: int) -> None:
        """Note that it was told of all up to this record."""
        if seq == self.seq:
            return
        self.seq = seq
        partial = self._file.with_suffix(f".{self._what.partition('=')[0]}")
        partial.write_text(json.dumps(self._read() | {self._what: seq}))
        partial.replace(self._file)

    def _read(self) -> dict[str, int]:
        with suppress(OSError, ValueError):
            found: dict[str, int] = json.loads(self._file.read_text())
            return found
        return {}
