"""The user's command, held before its script: it loads libraries and starts trials, forks of it.

It has no thread, and speaks with the controller over a socket, in lines of JSON:

    <- {"hello": pid}
    -> {"load": [names], "more": [names], "folder": path, "environ": {...}}        first of all
    <- {"loading": name}                                                           before each
    <- {"unfit": name, "why": text}                     it is of no use any more, and ends
    <- {"loaded": [names], "failed": {name: why}}
    -> {"start": key, "command": text or null, "cwd": path, "env": {variables of its own},
        "out": path, "err": path, "note": path, "argv": [program, its argument 0, ...]}
    <- {"started": key, "pid": pid, "keeper": pid}
    -> {"signal": pid, "number": 15}                    of that trial's session
    <- {"ended": key, "status": wait status, "left": number of processes that had to be ended}
    <- {"lost": key, "status": wait status of its keeper}
    -> {"ping": number}
    <- {"pong": number}

A trial is a fork, by way of a keeper, that returns from `main`: Python goes on and runs the script.
With a `command` it becomes a shell instead.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from . import keeper, processes
from .libraries import IN_USE
from .shared import Shared

BLOCKED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
HANDLED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD)


def main(link: int) -> None:
    """Serve until the controller is gone; in a trial, return."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in HANDLED}
    was_called = processes.name()
    processes.call("shoal-server")
    processes.die_with_parent(os.getppid(), signal.SIGKILL)  # also while we are stopped
    server = Server(link)
    base = dict(os.environ)  # as what has started us hands it on
    order = server.next_message()
    for variable, value in order["environ"].items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value
    shared = Shared(order["more"])
    if order["load"]:
        load(server, shared, order)
    else:
        server.send(loaded=[], failed={})
    shared.hide()
    start = server.serve()
    del server
    start["env"] = {**base, **start["env"]}
    become(start, shared, before)
    processes.call(was_called)


def load(server: Server, shared: Shared, order: dict[str, Any]) -> None:
    """Load what trials share; end where that leaves nothing that can be forked."""
    path = sys.path[:]
    sys.path.insert(0, order["folder"])  # as in the trial
    loaded, failed = [], {}
    with Output() as output:
        for name in with_those_in_use(order["load"]):
            server.send(loading=name)
            why = shared.load(name)
            if os.getpid() != server.pid:  # a fork that an import has made, and let go on
                os._exit(0)
            if why is None:
                loaded.append(name)
            elif why.startswith("importing it fails"):
                if name in order["load"]:  # or nobody has asked for it yet
                    failed[name] = why
            else:
                server.send(unfit=name, why=why)
                output.show()
                os._exit(0)
    sys.path[:] = path
    server.send(loaded=loaded, failed=failed)


def with_those_in_use(names: list[str]) -> Iterator[str]:
    """`names`, which are loaded one by one, and what their libraries import when they are used."""
    yield from names
    for library, more in IN_USE.items():
        if hasattr(sys.modules.get(library), "__path__"):
            yield from (name for name in more if importlib.util.find_spec(name) is not None)


class Output:
    """While entered, what this process prints goes to a file, to see whether it does."""

    def __enter__(self) -> Output:  # noqa: PYI034 (Python 3.9)
        self._file = os.memfd_create("output")
        self._real = [os.dup(fd) for fd in (1, 2)]
        for fd in (1, 2):
            os.dup2(self._file, fd)
        return self

    def __exit__(self, *_: object) -> None:
        for fd, real in zip((1, 2), self._real):  # noqa: B905 (Python 3.9)
            os.dup2(real, fd)
            os.close(real)
        os.close(self._file)

    def show(self) -> None:
        """Print to our log what was printed."""
        os.write(self._real[1], os.pread(self._file, 1 << 16, 0))


class Server:
    """Starts trials, tells how they end, and ends them all when its link breaks."""

    def __init__(self, link: int) -> None:
        self._link, self.pid = link, os.getpid()
        self._buffers = {link: b""}
        self._keepers: dict[int, str] = {}  # pid -> key
        self._reports, self._tell = os.pipe()
        self._wakeup, self._wake = os.pipe()
        self._buffers[self._reports] = b""
        for end in (self._wakeup, self._wake, self._reports):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        processes.adopt()  # what a keeper that was killed leaves behind
        self.send(hello=self.pid)

    def send(self, **message: object) -> None:
        """Tell the controller; if it is gone, the next look at the link will see it."""
        data = json.dumps(message).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._link, data) :]
        except OSError:
            pass

    def next_message(self) -> dict[str, Any]:
        """The next one of the controller, which is waited for."""
        while True:
            for message in self._receive(self._link):
                if message is None:
                    self._end()
                else:
                    return message

    def serve(self) -> dict[str, Any]:
        """What a trial is to be, in that trial; here, no return."""
        poll = select.poll()
        for fd in (self._link, self._reports, self._wakeup):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wakeup:
                    drain(self._wakeup)
                    self._reap()
                    continue
                for message in self._receive(fd):
                    if message is None:
                        self._end()
                    elif self._handle(message):
                        return message

    def _handle(self, message: dict[str, Any]) -> bool:
        """Whether this is the trial now that `message` asks for."""
        if "start" in message:
            return self._start(message)
        if "signal" in message:
            processes.signal_session(message["signal"], message["number"])
        elif "ping" in message:
            self.send(pong=message["ping"])
        else:  # of a keeper
            self._pass_on(message)
        return False

    def _receive(self, fd: int) -> Iterator[dict[str, Any] | None]:
        try:
            data = os.read(fd, 1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            yield None
            return
        *lines, self._buffers[fd] = (self._buffers[fd] + data).split(b"\n")
        yield from map(json.loads, lines)

    def _start(self, start: dict[str, Any]) -> bool:
        """Whether this is the trial now."""
        # nothing may reach us between fork and the child's own handlers
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        pid = os.fork()
        if pid == 0:
            keeper.keep(start["start"], self.pid, self._tell, self._close)
            return True
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
        self._keepers[pid] = start["start"]
        return False

    def _close(self) -> None:
        for fd in (self._link, self._reports, self._wakeup, self._wake):
            os.close(fd)

    def _pass_on(self, message: dict[str, Any]) -> None:
        if "ended" in message:
            for pid in [pid for pid, key in self._keepers.items() if key == message["ended"]]:
                del self._keepers[pid]
        self.send(**message)

    def _hear_keepers(self) -> None:
        for message in self._receive(self._reports):
            if message is not None:
                self._pass_on(message)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):  # nobody's trial may hang on that
                processes.kill(pid, signal.SIGCONT)
                continue
            self._hear_keepers()  # it may have told how its trial ended, and then ended
            key = self._keepers.pop(pid, None)
            if key is not None:  # it was killed: what it kept has become ours, or is dying
                self._end_strays()
                self.send(lost=key, status=status)

    def _end_strays(self) -> None:
        until = 1000
        while until and (strays := [p for p in processes.children() if p not in self._keepers]):
            until -= 1
            for pid in strays:
                processes.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _end(self) -> None:
        """End: the controller is gone. Each keeper ends its trial and what that has started."""
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        for pid in self._keepers:
            processes.kill(pid, signal.SIGTERM)
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                os._exit(0)
            for pid in processes.children():
                if pid not in self._keepers:
                    processes.kill(pid, signal.SIGKILL)


def become(start: dict[str, Any], shared: Shared, handlers: dict[int, Any]) -> None:
    """Make this fork the trial that `start` says: signals, files, folder, environment."""
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
        empty_output(start)
        os.chdir(start["cwd"])
        put_environment(start["env"])
        if start["command"] is not None:
            shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
            run_program(shell, [shell, "-c", start["command"]], start["env"])
        program, *argv = start["argv"]

        def become_cold() -> None:
            sys.stdout.flush()
            empty_output(start)
            os.chdir(start["cwd"])
            for number, handler in handlers.items():
                signal.signal(number, handler)
            run_program(program, argv, start["env"])

        shared.enter(start["note"], become_cold)
        processes.skip_c_exit()
    except BaseException:  # noqa: BLE001 (nothing may escape into the script)
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def run_program(program: str, argv: list[str], env: dict[str, str]) -> None:
    """Become another program, as one that was started by subprocess."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        signal.signal(number, signal.SIG_DFL)
    os.execve(program, argv, env)


def empty_output(start: dict[str, Any]) -> None:
    """Let stdout and stderr be files, with nothing in them."""
    for path, fd in ((start["out"], 1), (start["err"], 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        os.dup2(file, fd)
        os.close(file)


def put_environment(env: dict[str, str]) -> None:
    """Let `env` be the environment of this process, for Python and for C."""
    os.environ.clear()
    os.environ.update(env)
    raw = sys.modules["posix"].environ
    raw.clear()
    raw.update({os.fsencode(name): os.fsencode(value) for name, value in env.items()})


def drain(fd: int) -> None:
    """Read away what is in a pipe."""
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass
