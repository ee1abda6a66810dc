"""What survives a power cut, and who waits for it.

A file is on the disk once it was synchronised, and so is its name once its folder was. That takes
from half a millisecond to as long as the disk needs, so it is done in a thread of its own, in the
order in which it was asked for.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Protocol, TypeAlias

Deed: TypeAlias = Callable[[], None]


def make_last(folder: Path, root: Path) -> None:
    """Return when `folder`, all that is in it, and its name in `root` would survive a power cut.

    Raises:
        OSError: the disk is full, or worse; FileNotFoundError: there is no such folder.
    """
    folder.stat()
    for path in (*folder.rglob("*"), folder):
        _synchronise(path)
    while folder != root:
        folder = folder.parent
        _synchronise(folder)


def name_last(folder: Path) -> None:
    """Return when the name of `folder`, which was synchronised before, would survive a power cut.

    Raises:
        OSError: the disk is full, or worse.
    """
    _synchronise(folder.parent)


@cache
def boot() -> str | None:
    """What tells this machine's life since it was switched on from all others; None: nothing does.

    What was written in this life is there to be read, on the disk or not.
    """
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def _synchronise(path: Path) -> None:
    if not (path.is_file() or path.is_dir()):
        return  # a link to nowhere
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # somebody has just replaced it
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Later(Protocol):
    """Does what it is given, in order."""

    @property
    def waiting(self) -> int:
        """How much of it is still to be done."""
        ...

    def __call__(self, deed: Deed) -> None:
        """Do this, too. An OSError of an earlier one is raised here."""
        ...

    def flush(self) -> None:
        """Return when all was done. An OSError of any of it is raised here."""
        ...

    def close(self) -> None:
        """Do what is left, and nothing more."""
        ...


class AtOnce:
    """Does it at once."""

    waiting = 0

    def __call__(self, deed: Deed) -> None:
        deed()

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class InThread:
    """Does it in a thread, while whoever asks goes on.

    Args:
        gives_up: whether nothing more is done after an OSError: what has not answered for minutes
            will not answer the next one either.
    """

    def __init__(self, *, gives_up: bool = False) -> None:
        self._deeds: SimpleQueue[Deed | Event | None] = SimpleQueue()
        self._gives_up, self._given_up = gives_up, False
        self._error: OSError | None = None
        self._thread = Thread(target=self._work, name="shoal-disk", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._deeds.qsize()

    def __call__(self, deed: Deed) -> None:
        self._complain()
        self._deeds.put(deed)

    def flush(self) -> None:
        done = Event()
        self._deeds.put(done)
        done.wait()
        self._complain()

    def close(self) -> None:
        self._deeds.put(None)
        self._thread.join()

    def _complain(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while (deed := self._deeds.get()) is not None:
            if isinstance(deed, Event):
                deed.set()
            elif not self._given_up:
                try:
                    deed()
                except OSError as error:
                    self._error, self._given_up = self._error or error, self._gives_up
