"""The process that every trial is a child of. Standard library only, and no thread of its own.

    python -m shoal.runners.forkserver FD

The controller talks to it over the socket FD, in lines of JSON:

    -> {"cwd": path, "folder": path, "script": path or null, "preload": [names] or null,
        "skip": {}}                                                              first of all
    <- {"ready": [names], "left": {name: why}}
    -> {"start": key, "command": text or null, "argv": [...], "module": name or null,
        "unbuffered": bool, "cwd": path, "env": {...}, "out": path, "err": path}
    <- {"started": key, "pid": pid}
    -> {"signal": key, "number": 15}
    <- {"ended": key, "status": wait status, "left": number of processes that had to be ended}

A Python script is run in a fork of this process, which has imported what the script imports: the
interpreter is up and the libraries are loaded, yet each trial is a process of its own. Any other
command is a `bash -c`. Either way a trial leads a session, so that it can be ended with all its
children, and it does not outlive us; we do not outlive the controller, whose death closes the
socket.

An import that starts threads which do not survive a fork, or that opens a GPU, would leave every
trial with a broken copy of it. Such an import is left to the trials: we begin again without it.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib.util
import io
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from shoal.runners.preload import imports_of

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
AGAIN = "SHOAL_FORKSERVER_BEGINS_AGAIN_WITH"
MOMENT_S = 0.1
GPU_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/render")


def main(fd: int) -> None:
    """Serve until the controller is gone; in a fork, return into the trial's script."""
    link = socket.socket(fileno=fd)
    server = Server(link)
    start = server.serve()
    if start is not None:  # this is a trial now
        del server, link
        run(start)


class Server:
    """Starts trials, tells how they end, and ends them all when its link breaks."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._buffer = b""
        self._trials: dict[int, int] = {}  # pid -> key
        self._pid = os.getpid()
        self._wakeup, wakeup = os.pipe()
        for end in (self._wakeup, wakeup):
            os.set_blocking(end, False)
        self._ends = (self._wakeup, wakeup)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a trial leaves behind becomes our child

    def serve(self) -> dict[str, Any] | None:
        """None when the controller is gone; in a fork, what that trial is to run."""
        if (again := os.environ.pop(AGAIN, None)) is not None:
            self._handle(json.loads(again))
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wakeup:
                    drain(self._wakeup)
                    self._reap()
                    continue
                for message in self._receive():
                    if message is None:
                        self._end_all()
                        return None
                    if (start := self._handle(message)) is not None:
                        return start

    def _receive(self) -> Iterator[dict[str, Any] | None]:
        try:
            data = self._link.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            yield None
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        yield from map(json.loads, lines)

    def _send(self, **message: object) -> None:
        with contextlib.suppress(OSError):  # the controller is gone: the next receive will see it
            self._link.sendall(json.dumps(message).encode() + b"\n")

    def _handle(self, message: dict[str, Any]) -> dict[str, Any] | None:
        if "start" in message:
            return self._start(message)
        if "signal" in message:
            for pid in [pid for pid, key in self._trials.items() if key == message["signal"]]:
                signal_session(pid, message["number"])
        else:
            loaded, left = preload(message)
            self._send(ready=loaded, left=left)
        return None

    def _start(self, start: dict[str, Any]) -> dict[str, Any] | None:
        sys.stdout.flush()
        sys.stderr.flush()
        # nothing may reach us between fork and the child's own handlers
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            self._become(start)
            return start
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._trials[pid] = start["start"]
        self._send(started=start["start"], pid=pid)
        return None

    def _become(self, start: dict[str, Any]) -> None:
        """Make this fork a process of its own: session, signals, files, folder, environment."""
        try:
            os.setsid()
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._pid:  # the server died before the line above
                os._exit(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            for end in self._ends:
                os.close(end)
            self._link.close()
            for path, fd in ((start["out"], 1), (start["err"], 2)):
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
                os.dup2(file, fd)
                os.close(file)
            os.chdir(start["cwd"])
            os.environ.clear()
            os.environ.update(start["env"])
            if start["command"] is not None:
                shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
                os.execv(shell, [shell, "-c", start["command"]])
        except BaseException:  # noqa: BLE001 (nothing may escape into the server's loop)
            traceback.print_exc()
            os._exit(1)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            key = self._trials.pop(pid, None)
            if key is not None:
                left = self._end_rest(pid)
                self._send(ended=key, status=status, left=left)

    def _end_rest(self, session: int) -> int:
        """End what a trial that is gone left running; how many processes that were."""
        busy = {*self._trials, os.getsid(0)}
        orphans = [pid for pid in children() if session_of(pid) not in busy]
        # what ends by itself a moment later, as multiprocessing's resource tracker, was not left
        until = time.monotonic() + MOMENT_S
        while (orphans := [pid for pid in orphans if not reaped(pid)]) and time.monotonic() < until:
            time.sleep(0.002)
        for leftover in {session, *map(session_of, orphans)} - busy - {-1}:
            if leftover != session or orphans or exists(session):
                signal_session(leftover, signal.SIGKILL)
        return len(orphans)

    def _end_all(self) -> None:
        for pid in self._trials:
            signal_session(pid, signal.SIGKILL)
        # whoever's parent has died becomes our child: once there is none left, there is nobody
        while True:
            for pid in children():
                kill(pid, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def preload(message: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """(modules imported, {module: why it is left to the trials})."""
    script, names, left = message["script"], message["preload"], dict(message["skip"])
    os.chdir(message["cwd"])
    sys.path[0] = message["folder"]  # as in the trial
    if script is not None:
        names = imports_of(Path(script), Path(message["folder"])) if names is None else names
    loaded = []
    for name in names or ():
        if name in left:
            continue
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 (whatever it is, the trial will meet it)
            left[name] = f"importing it failed: {type(error).__name__}: {error}"
            continue
        if (why := unsafe()) is not None:
            begin_again({**message, "skip": {**left, name: why}})
        loaded.append(name)
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # noqa: SLF001
        finalizer.atexit = False  # what an import has to clean up is ours, and not each trial's
    gc.collect()
    gc.freeze()  # no trial walks these objects again, nor copies the pages they are on
    return loaded, left


def begin_again(message: dict[str, Any]) -> None:
    """Become a fresh server that has been sent `message`: an import cannot be undone."""
    os.environ[AGAIN] = json.dumps(message)
    os.execv(sys.executable, [sys.executable, "-m", "shoal.runners.forkserver", sys.argv[1]])


def unsafe() -> str | None:
    """Why a fork of this process would be broken, if it would."""
    if threading.active_count() > 1:
        return "it starts threads"
    if threads() > 1:
        # A library may know about fork: OpenBLAS ends its threads before one and starts them anew
        # when they are needed. Those of one that does not are still there afterwards.
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if threads() > 1:
            return "it starts threads"
    return next((f"it opens {device}" for device in open_files() if is_gpu(device)), None)


def threads() -> int:
    """How many threads the kernel counts in this process."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


def open_files() -> Iterator[str]:
    """What the open descriptors of this process refer to."""
    try:
        descriptors = os.listdir("/proc/self/fd")
    except OSError:
        return
    for fd in descriptors:
        try:
            yield os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the one that listed the folder is closed by now
            continue


def is_gpu(path: str) -> bool:
    """Whether `path` is the device of a GPU: a context on it does not survive a fork."""
    return path.startswith(GPU_DEVICES)


def run(start: dict[str, Any]) -> NoReturn:
    """Run a trial's script as `python script.py ...` would, to the traceback and the exit code."""
    if "numpy.random" in sys.modules:  # or all trials would draw the same: forks share its state
        sys.modules["numpy.random"].seed()
    before = set(sys.modules)
    sys.argv[:] = start["argv"]
    if start["unbuffered"]:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    code = 0
    try:
        if start["module"] is None:
            run_script(start["argv"][0])
        else:
            run_module(start["module"])
    except SystemExit as error:
        code = exit_code(error)
    except BaseException as error:  # noqa: BLE001
        error.__traceback__ = own_frames(error)
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    finish(before)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def run_script(path: str) -> None:
    """Run the file at `path` as the module `__main__`."""
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        sys.stderr.write(f"{sys.executable}: can't open file {path!r}: {error}\n")
        sys.exit(2)
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    file = os.path.abspath(path)
    main = become_main(__file__=file)
    exec(compile(source, file, "exec", dont_inherit=True), main.__dict__)


def run_module(name: str) -> None:
    """Run the module `name`, or the `__main__` of the package `name`, as the module `__main__`."""
    sys.path[0] = os.getcwd()
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
        code = spec.loader.get_code(spec.name) if spec is not None else None  # type: ignore[union-attr]
    except ImportError as error:
        sys.exit(
            f"{sys.executable}: Error while finding module specification for {name!r}: {error}"
        )
    if spec is None or code is None:
        sys.exit(f"{sys.executable}: No module named {name}")
    sys.argv[0] = spec.origin or name
    main = become_main(
        __file__=spec.origin, __spec__=spec, __package__=spec.parent, __loader__=spec.loader
    )
    exec(code, main.__dict__)


def become_main(**attributes: Any) -> ModuleType:
    """A fresh module `__main__`, in the place of ours."""
    main = ModuleType("__main__")
    main.__dict__.update(attributes, __builtins__=__builtins__, __annotations__={}, __cached__=None)
    sys.modules["__main__"] = main
    return main


def exit_code(error: SystemExit) -> int:
    """What the interpreter makes of `sys.exit(...)`."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def finish(before: set[str]) -> None:
    """What the interpreter does at its end, for what the trial itself has made.

    Taking down all that was imported before the fork takes a third of a second with PyTorch, and
    leaves nothing behind that the end of the process would not: so that part is left out. Threads
    are waited for, exit functions are called, open files are flushed, and the trial's own objects
    are let go in the reverse order of their making, so that a `__del__` finds what it was made of.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 (no public name)
    atexit._run_exitfuncs()  # noqa: SLF001 (no public name)
    for thing in gc.get_objects():
        if isinstance(thing, io.TextIOWrapper | io.BufferedWriter) and not thing.closed:
            with contextlib.suppress(Exception):
                thing.flush()
    sys.last_value = sys.last_traceback = None
    new = [module for name, module in sys.modules.items() if name not in before]
    own = [m for m in new if (getattr(m, "__file__", None) or "").startswith(sys.path[0])]
    if sys.modules["__main__"].__dict__ is not globals():
        own.append(sys.modules["__main__"])
    while own:
        module = own.pop()
        for name in reversed(module.__dict__):
            module.__dict__[name] = None
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def own_frames(error: BaseException) -> Any:
    """The traceback of `error` from the script on: ours is nothing to the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def prctl(option: int, value: int) -> None:
    """Linux only; elsewhere a trial's children are reached through its process group alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def children() -> list[int]:
    """The processes whose parent we are, orphans of trials included."""
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return []
    return [int(pid) for pid in listed.split()]


def reaped(pid: int) -> bool:
    """Whether `pid`, a child of ours, has ended by itself; then it is gone for good."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def session_of(pid: int) -> int:
    """The session of `pid`, which is the pid of the trial that led it; -1 when it is gone."""
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def signal_session(session: int, number: int) -> None:
    """Send a signal to every process of a session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, number)
    try:
        others = [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]
    except OSError:
        return
    for pid in others:
        if session_of(pid) == session and pid != session:
            kill(pid, number)


def exists(group: int) -> bool:
    """Whether a process group has a member."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def drain(fd: int) -> None:
    """Read away what is in a pipe."""
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]))
