"""Processes as Linux has them: sessions, orphans, death signals."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: object) -> None:
    """Linux only; elsewhere a trial's children are reached through its session alone."""
    if sys.platform == "linux":
        _libc.prctl(option, value, 0, 0, 0)


def adopt() -> None:
    """Become the parent of what our descendants leave behind."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, number: int) -> bool:
    """Get the signal `number` when `parent`, our parent, dies; False if it is dead already."""
    prctl(PR_SET_PDEATHSIG, int(number))
    return os.getppid() == parent


def name() -> str:
    """What this process is called in lists of processes."""
    try:
        with open("/proc/self/comm") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def call(name: str) -> None:
    """Let this process be called `name` in lists of processes."""
    if name:
        prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()))


def skip_c_exit() -> None:
    """Let C's `exit` do what was registered after this, flush C's buffers, and do no more.

    What was registered before, the libraries of a server, takes a tenth of a second with PyTorch,
    and leaves nothing behind that the end of the process would not.
    """
    on_exit = getattr(_libc, "on_exit", None)  # glibc's
    if on_exit is not None:
        on_exit(_libc._exit, None)
        _libc.__cxa_atexit(_libc.fflush, None, None)


def immortal(thing: object) -> None:
    """Let `thing` stay to the end of this process, whatever Python does at its end."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def track_again(thing: object) -> None:
    """Let Python's garbage collector see `thing` again, after it has been frozen."""
    for function in (ctypes.pythonapi.PyObject_GC_UnTrack, ctypes.pythonapi.PyObject_GC_Track):
        function.argtypes, function.restype = (ctypes.py_object,), None
        function(thing)


def children() -> list[int]:
    """The processes whose parent we are, adopted ones included."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def signal_session(session: int, number: int) -> None:
    """Send a signal to every process of a session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(session, number)
    try:
        others = [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]
    except OSError:
        return
    for pid in others:
        if pid != session and session_of(pid) == session:
            kill(pid, number)


def session_of(pid: int) -> int:
    """The session of `pid`; -1 when it is gone."""
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def kill(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def threads() -> int:
    """How many threads the kernel counts in this process, but for those that a fork can do without.

    jemalloc, which pyarrow brings, has one that gives memory back; in a fork it does that itself.
    """
    count = 0
    try:
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError), open(f"/proc/self/task/{thread}/comm") as file:
                count += file.read().strip() != "jemalloc_bg_thd"
    except OSError:
        return 1
    return count


def threads_survive_fork() -> bool:
    """Whether the threads of this process, if it has more than one, know how to go on in a fork.

    OpenBLAS ends its threads before a fork and starts them anew when they are needed. Those of a
    library that does not are still there after one.
    """
    if threads() == 1:
        return True
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return threads() == 1


def open_files() -> dict[int, str]:
    """What each open descriptor of this process refers to."""
    there = {}
    try:
        descriptors = os.listdir("/proc/self/fd")
    except OSError:
        return {}
    for fd in descriptors:
        try:
            there[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the one that listed the folder is closed by now
            continue
    return there


def default_signals() -> None:
    """Let signals do what they do in a new Python."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
