"""Between the server and a trial: a process that does nothing but wait.

It is the parent of the trial and of whatever the trial leaves behind, so it knows what is whose.
When the trial ends it ends the rest, and tells the server. When the server dies it ends the trial,
too.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from . import processes

MOMENT_S = 0.5  # on a busy machine that takes a while
PATIENCE_S = 10.0  # for processes that have been killed, and are still there


def keep(key: str, server: int, tell: int, close: Callable[[], None]) -> None:
    """Return in the trial, which is a fork of this process; here, end when all of it has ended.

    Args:
        key: the trial's name in messages.
        server: the pid of our parent.
        tell: the pipe for messages to it.
        close: is called to let go of what belongs to the server, in both processes.
    """
    # all signals that matter are blocked, and stay so: they are waited for
    alive = processes.die_with_parent(server, signal.SIGTERM)
    processes.adopt()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    close()
    keeper = os.getpid()
    trial = os.fork() if alive else 0
    if trial == 0:
        os.setsid()
        if not alive or not processes.die_with_parent(keeper, signal.SIGKILL):
            os._exit(1)
        os.close(tell)
        return
    try:
        processes.call("shoal-keeper")
        release_standard_files()
        send(tell, started=key, pid=trial, keeper=keeper)
        status = wait_for(trial)
        if status is None:
            end_all(0.0)
        else:
            left = end_all(MOMENT_S)
            send(tell, ended=key, status=status, left=left)
    finally:
        os._exit(0)


def wait_for(trial: int) -> int | None:
    """The wait status of `trial`, once it has ended; None if the server dies before."""
    while True:
        pid = -1
        while pid:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == trial:
                return status
        if signal.sigwait({signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP}) != signal.SIGCHLD:
            return None


def end_all(moment_s: float) -> int:
    """End what is below us; how many processes were still there after `moment_s`.

    What ends by itself a moment later, as multiprocessing's resource tracker, was not left behind.
    """
    until, ended = time.monotonic() + moment_s, 0
    while there(moment_s > 0) and time.monotonic() < until:
        time.sleep(0.002)
    killed: set[int] = set()
    until = time.monotonic() + PATIENCE_S
    while there(True) and time.monotonic() < until:
        for pid in processes.children():
            if pid not in killed:
                killed.add(pid)
                ended += 1
                processes.kill(pid, signal.SIGKILL)
        time.sleep(0.001)  # what they leave behind becomes ours
    return ended


def there(reap: bool) -> bool:
    """Whether we have children; those that have ended are gone after this."""
    while reap:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return True
        except ChildProcessError:
            return False
    return False


def release_standard_files() -> None:
    """Keep no file of anybody's open."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def send(tell: int, **message: object) -> None:
    """A line for the server: one write, so that no two are mixed up."""
    with suppress(OSError):  # it is gone, and we shall be
        os.write(tell, json.dumps(message).encode() + b"\n")
