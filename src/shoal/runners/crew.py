"""Workers as whoever leads them sees them: started, told something, heard, gone.

`ProcessCrew` has them in processes of this machine, `InlineCrew` has one, in this process. What a
worker is told and what it says is in `worker/worker.py`.
"""

import json
import os
import selectors
import shlex
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from select import select
from typing import Any, Protocol, TypeAlias

from shoal.checkpoints import remove
from shoal.core.records import LOST
from shoal.home import Folder
from shoal.runners.base import Log, RunnerError
from shoal.runners.forkserver import ForkServer, Imports
from shoal.runners.gpus import Gpus
from shoal.runners.launch import Launch
from shoal.runners.outcome import tail, told_signal
from shoal.runners.processes import Began, Ended, Orphaned, Processes
from shoal.runners.script import end_leftovers
from shoal.runners.worker.worker import Worker

SEND_S = 30.0  # for a message to be taken in
WORKER = "SHOAL_WORKER"  # in a worker's environment: what it is called
DEATHS = 5  # of workers in a row before they were ready: something is wrong here
ANEW = 50  # times that a worker may begin anew before that counts as its failure


@dataclass(frozen=True, slots=True)
class Said:
    """The worker `key` has said something."""

    key: str
    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gone:
    """The worker `key` is there no more, and neither are the states that it held."""

    key: str
    kind: str  # as of a `Failed`
    reason: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What was saved for `key`, an attempt or a state, is now where it is to be, or was lost.

    Comes after that was said to have been saved, if it was said to be `sending`.
    """

    key: str
    lost: str | None = None  # why


@dataclass(frozen=True, slots=True)
class Woken:
    """Somebody has called `wake`."""


Event: TypeAlias = Said | Gone | Sent | Woken


class Crew(Protocol):
    """Some workers, known by keys that are never used twice.

    Raises:
        RunnerError: (from any method) there can be none.
    """

    @property
    def can_start(self) -> bool:
        """Whether another worker may be started now."""
        ...

    @property
    def waiting_for(self) -> str | None:
        """What has to come before workers can be started, in words."""
        ...

    def want(self, workers: int) -> None:
        """Be told how many workers are wanted, where they have to be asked for."""
        ...

    def start(self, key: str) -> None:
        """Start a worker; when it can be told something, it says that it is ready."""
        ...

    def send(self, key: str, message: Mapping[str, Any]) -> None:
        """Tell a worker something; if it is gone, that is heard of."""
        ...

    def end(self, key: str) -> None:
        """End a worker, whatever it is doing."""
        ...

    def dismiss(self, key: str) -> None:
        """Let go a worker, if it is there, that has nothing to do and nothing that is needed."""
        ...

    def wait(self, seconds: float) -> Sequence[Event]:
        """What has happened, in order; after so many seconds, perhaps nothing."""
        ...

    def wake(self) -> None:
        """Let a `wait` under way return; safe to call from a signal handler."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


@dataclass(slots=True, eq=False)
class Mate:
    """A worker in a process."""

    key: str
    folder: Path
    gpus: list[int] | None
    link: socket.socket | None = None
    buffer: bytes = b""
    dismissed: bool = False
    spoiled: str = ""  # why it cannot be believed any more


class ProcessCrew:
    """Workers in processes, which begin warm.

    Args:
        work: what they train: `{"file": path}` or `{"module": name, "name": name}`.
        folder: the experiment's.
        directory: in which they run.
        env: their environment.
        gpus: what each sees of the GPUs.
        imports: the modules to load once for all of them.
        log: is told what the user should know.
        argv: what their `sys.argv` is.
    """

    def __init__(
        self,
        work: Mapping[str, str],
        *,
        folder: Folder,
        directory: Path,
        env: Mapping[str, str],
        gpus: Gpus,
        imports: Imports,
        log: Log,
        argv: Sequence[str] = sys.argv,
    ) -> None:
        end_leftovers(folder)
        self._work, self._folder, self._directory = dict(work), folder, directory
        self._gpus, self._log, self._argv = gpus, log, list(argv)
        self._mates: dict[str, Mate] = {}  # by key
        self._events: list[Event] = []
        self._deaths = self._anew = 0
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        # not in the experiment's folder: the path of a socket has to be short
        self._sockets = tempfile.TemporaryDirectory(prefix="shoal-", ignore_cleanup_errors=True)
        address = str(Path(self._sockets.name) / "controller")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(address)
        self._listener.listen()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._strangers: dict[
            socket.socket, bytes
        ] = {}  # have connected, and not said who they are
        argv = (sys.executable, "-m", "shoal.runners.worker", address)
        self._processes = Processes(
            Launch(None, sys.executable, argv, None, directory, shlex.join(argv)),
            imports,
            env=env,
            directory=directory,
            output=folder.path / "forkserver.log",
            selector=self._selector,
            log=log,
        )

    @property
    def can_start(self) -> bool:
        # not under imports that are out of date: it would begin anew in the middle of a step
        return self._processes.ready and not self._processes.renewing and self._gpus.free != 0

    @property
    def waiting_for(self) -> str | None:
        return self._processes.loading if self._processes.renewing else self._processes.waiting_for

    def want(self, workers: int) -> None:
        pass

    def start(self, key: str) -> None:
        folder = self._folder.path / "workers" / key
        remove(folder)
        folder.mkdir(parents=True)
        visible = self._gpus.take()
        self._mates[key] = Mate(key, folder, visible)
        seen = {} if visible is None else {"CUDA_VISIBLE_DEVICES": ",".join(map(str, visible))}
        self._processes.start(
            key,
            cwd=self._directory,
            env={WORKER: key} | seen,
            out=folder / "stdout",
            err=folder / "stderr",
            note=folder / "imports.json",
        )

    def send(self, key: str, message: Mapping[str, Any]) -> None:
        mate = self._mates.get(key)
        if mate is None or mate.link is None:
            return
        try:
            mate.link.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            with suppress(OSError):
                mate.link.shutdown(socket.SHUT_RDWR)

    def end(self, key: str) -> None:
        self._processes.signal(key, signal.SIGKILL)

    def dismiss(self, key: str) -> None:
        if (mate := self._mates.get(key)) is not None:
            mate.dismissed = True
            self.end(key)

    def wait(self, seconds: float) -> Sequence[Event]:
        for ready, _ in self._selector.select(0 if self._events else seconds):
            self._hear(ready)
        self._processes.keep_time()
        for event in self._processes.events():
            match event:
                case Ended(key, status, left, anew):
                    if left:
                        self._log("warning", f"{key} left {left} processes behind: they were ended")
                    self._gone(key, status, anew)
                case Orphaned(key, _):
                    self._gone(key, None)
                case Began():
                    pass  # it will say so itself
        events, self._events = self._events, []
        return events

    def wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def close(self) -> None:
        for mate in self._mates.values():
            self._hang_up(mate)
            self._gpus.give_back(mate.gpus)
        self._mates.clear()
        for stranger in self._strangers:
            stranger.close()
        self._processes.close()
        end_leftovers(self._folder)
        self._selector.close()
        self._listener.close()
        self._sockets.cleanup()
        os.close(self._woken)
        os.close(self._wake)

    def _hear(self, ready: selectors.SelectorKey) -> None:
        whom = ready.fileobj
        if isinstance(whom, ForkServer):
            self._processes.receive(whom)
        elif whom is self._listener:
            self._accept()
        elif isinstance(ready.data, Mate):
            self._receive(ready.data)
        elif isinstance(whom, socket.socket):
            self._introduce(whom)
        else:
            self._drain()

    def _accept(self) -> None:
        link, _ = self._listener.accept()
        self._strangers[link] = b""
        self._selector.register(link, selectors.EVENT_READ)

    def _introduce(self, link: socket.socket) -> None:
        """Hear who has connected."""
        data = received(link)
        self._strangers[link] += data or b""
        line, whole, rest = self._strangers[link].partition(b"\n")
        if data is not None and not whole:
            return
        self._selector.unregister(link)
        del self._strangers[link]
        said = None if data is None else understood(line)
        mate = None if said is None else self._mates.get(str(said.get("worker")))
        if mate is None:
            link.close()
            return
        link.settimeout(SEND_S)
        mate.link, mate.buffer = link, rest
        self._selector.register(link, selectors.EVENT_READ, mate)
        path = [str(self._directory), *sys.path]
        self.send(mate.key, {"work": self._work, "path": path, "argv": self._argv})

    def _receive(self, mate: Mate) -> None:
        if mate.link is None:
            return
        data = received(mate.link)
        if data is None:
            self._hang_up(mate)
            self.end(mate.key)  # what cannot be told anything is of no use
            return
        *lines, mate.buffer = (mate.buffer + data).split(b"\n")
        for line in lines:
            message = understood(line)
            if message is None:
                mate.spoiled = f"it said what cannot be read: {line[:80]!r}"
                self._hang_up(mate)
                self.end(mate.key)
                return
            if "unusable" in message:
                reason = message["unusable"]
                raise RunnerError(f"what is to be trained cannot be loaded by a worker: {reason}")
            if "ready" in message:
                self._deaths = 0
            self._events.append(Said(mate.key, message))

    def _hang_up(self, mate: Mate) -> None:
        if mate.link is not None:
            self._selector.unregister(mate.link)
            mate.link.close()
        mate.link = None

    def _gone(self, key: str, status: int | None, anew: str = "") -> None:
        mate = self._mates.pop(key)
        while mate.link is not None and select([mate.link], [], [], 0)[0]:
            self._receive(mate)  # what it had said before
        self._hang_up(mate)
        self._gpus.give_back(mate.gpus)
        if mate.dismissed:
            return
        if status is not None and anew and self._anew < ANEW:
            self._anew += 1
            self._events.append(Gone(key, LOST, f"its worker had to begin anew, {anew}"))
            return
        self._deaths += 1
        last = tail(mate.folder / "stderr")
        if self._deaths > DEATHS:
            raise RunnerError(f"{self._deaths} workers ended before they were ready{last}")
        if status is None:
            self._events.append(Gone(key, LOST, "its worker was lost with the fork server"))
            return
        if mate.spoiled:
            self._events.append(Gone(key, "crash", f"its worker was ended: {mate.spoiled}"))
            return
        code = os.waitstatus_to_exitcode(status)
        kind = "killed" if code < 0 else "crash"
        how = f"was ended by {told_signal(-code)}" if code < 0 else f"ended with exit code {code}"
        self._events.append(Gone(key, kind, f"the worker that trained it {how}{last}"))

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._woken, 4096):
                pass
        self._events.append(Woken())


class InlineCrew:
    """One worker, in this process: for debugging, and where nothing else is to be started."""

    def __init__(self, work: Any) -> None:
        self._work = work
        self._worker: Worker | None = None
        self._key = ""
        self._orders: deque[Mapping[str, Any]] = deque()
        self._events: list[Event] = []

    @property
    def can_start(self) -> bool:
        return self._worker is None

    @property
    def waiting_for(self) -> str | None:
        return None

    def want(self, workers: int) -> None:
        pass

    def start(self, key: str) -> None:
        self._worker, self._key = Worker(self._work, self._hear), key
        self._hear({"ready": os.getpid(), "holds states": self._worker.holds_states})

    def send(self, key: str, message: Mapping[str, Any]) -> None:
        self._orders.append(message)

    def end(self, key: str) -> None:
        pass  # it is us

    def dismiss(self, key: str) -> None:
        pass

    def wait(self, seconds: float) -> Sequence[Event]:
        if not self._events and self._orders and self._worker is not None:
            self._worker.do(self._orders.popleft())
        events, self._events = self._events, []
        return events

    def wake(self) -> None:
        self._events.append(Woken())

    def close(self) -> None:
        self._worker = None
        self._orders.clear()

    def _hear(self, message: Mapping[str, Any]) -> None:
        self._events.append(Said(self._key, message))


def understood(line: bytes) -> dict[str, Any] | None:
    """The message that a worker's `line` is; None where it is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def received(link: socket.socket) -> bytes | None:
    """What has come over `link`, which is readable; None when it is at its end."""
    try:
        return link.recv(1 << 20) or None
    except OSError:
        return None
