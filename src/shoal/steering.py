"""An experiment steered from outside, running or not: paused, let go on, changed, stopped."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from json import dumps
from threading import Thread
from typing import Any

from shoal import orders
from shoal.config import Config, ConfigError, Problem, changed
from shoal.home import ExperimentError, Folder, locked
from shoal.orders import Order, Wanted
from shoal.result import Result
from shoal.stores.sqlite import SqliteStore, StoreError

POLL_S = 0.1
PATIENCE_S = 60.0  # for whoever runs an experiment to take an order, over a network, too
BEGINNING_S = 120.0  # for a process to take an experiment over, imports included


def stop(folder: Folder, *, now: bool = False) -> bool:
    """Have whoever runs the experiment end in order, or end at once; whether anybody runs it.

    Told twice, it ends at once.

    Raises:
        ExperimentError: whoever runs it cannot be told.
    """
    holder = folder.holder()
    if holder is None:
        return False
    pid, host = holder
    if host == os.uname().nodename:
        with suppress(OSError):  # it is somebody else's process, who takes orders all the same
            for number in (signal.SIGINT, signal.SIGTERM)[: 2 if now else 1]:
                os.kill(pid, number)
            return True
    orders.put(folder, Order("stop now" if now else "stop"), holder)
    return True


def pause(folder: Folder) -> bool:
    """Have no further trial begun until it is to go on; whether anybody runs it.

    Raises:
        ExperimentError: whoever runs it cannot be told.
    """
    return ordered(folder, "pause")


def go_on(folder: Folder, changes: Mapping[str, Any] = {}) -> bool:
    """Have a paused experiment go on, perhaps under other limits; whether anybody has paused it.

    Raises:
        ConfigError: a limit is no good.
        ExperimentError: whoever runs it cannot be told.
    """
    if not Result(folder).pausing:
        return False
    checked(folder, changes)
    return ordered(folder, "go on", changes)


def update(folder: Folder, changes: Mapping[str, Any]) -> Config:
    """Change limits of an experiment, whether somebody runs it or not; what it now is.

    Args:
        folder: the experiment's.
        changes: of those in `config.LIMITS`; None: as it was.

    Raises:
        ConfigError: a limit is no good.
        ExperimentError: it can be told to nobody, and be written down nowhere.
    """
    config = checked(folder, changes)
    if not ordered(folder, None, changes):
        with locked(folder):
            try:
                store = SqliteStore(folder.journal)
                store.set_meta("config", dumps(config.dump()))
                store.close()
            except StoreError as error:
                raise ExperimentError(str(error)) from error
    return config


def checked(folder: Folder, changes: Mapping[str, Any]) -> Config:
    """The configuration of an experiment with `changes`.

    Raises:
        ConfigError: one is no good.
    """
    result = Result(folder)
    config = changed(Config.restore(result.config), changes)
    refuse_the_past(config, changes, result)
    return config


def refuse_the_past(config: Config, changes: Mapping[str, Any], result: Result) -> None:
    """Refuse limits that the experiment has gone beyond.

    Raises:
        ConfigError: one is such.
    """
    most = max((row.step + 1 for row in result.progress.members), default=0)
    gone = {
        "steps": (most, "a member has begun"),
        "max_trials": (result.tally.trials, "were begun"),
    }
    problems = [
        Problem(name, f"expected {so_far} or more, as so many {which}, got {given}")
        for name, (so_far, which) in gone.items()
        if changes.get(name) is not None and (given := getattr(config, name)) < so_far
    ]
    if problems:
        raise ConfigError(problems)


def ordered(folder: Folder, wanted: Wanted | None, changes: Mapping[str, Any] = {}) -> bool:
    """Have whoever runs the experiment take an order; whether there is anybody, and it did.

    Raises:
        ExperimentError: nothing can be left for it, or it takes nothing.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if (holder := folder.holder()) is None:
        return False
    file = orders.put(folder, Order(wanted, given), holder)
    until = time.monotonic() + PATIENCE_S
    while file.exists():
        gone, late = folder.holder() != holder, time.monotonic() > until
        with suppress(FileNotFoundError):
            if gone or late:
                file.unlink()
            if gone:
                return False  # it ended before it saw it
            if late:
                raise ExperimentError(
                    f"process {holder[0]} on {holder[1]}, which runs experiment {folder.id}, has "
                    f"taken no order for {PATIENCE_S:g} s: is it stopped, or its disk gone?"
                )
        time.sleep(POLL_S)
    return True


def start(folder: Folder) -> int:
    """Have a process of its own go on with an experiment; its pid, once it has taken it over.

    Raises:
        ExperimentError: somebody runs it, or it cannot be run.
    """
    if (holder := folder.holder()) is not None:
        raise ExperimentError(f"experiment {folder.id} is run by process {holder[0]} already")
    command = [sys.executable, "-m", "shoal", "resume", str(folder.path)]
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ExperimentError(f"no process can be started: {error.strerror}") from error
        until = time.monotonic() + BEGINNING_S
        while folder.holder() != (process.pid, os.uname().nodename):
            if time.monotonic() > until:
                process.kill()
                raise ExperimentError(f"it has not gone on within {BEGINNING_S:g} s")
            if process.poll() is not None:
                if process.returncode == 0:  # it has ended meanwhile
                    break
                said.seek(0)
                why = said.read().decode("utf-8", "replace").strip()
                raise ExperimentError(why.removeprefix("error: ") or "it ended at once")
            time.sleep(POLL_S)
    Thread(target=process.wait, daemon=True).start()  # leaves no zombie behind
    return process.pid


def waits(folder: Folder, until: Callable[[str], bool], tell: Callable[[str], None]) -> str:
    """The state of an experiment, once `until` it is so or nobody runs it.

    Args:
        folder: the experiment's.
        until: whether a state is the one that is waited for.
        tell: is told what that one waits for.
    """
    holder, said = folder.holder(), ""
    while True:
        result = Result(folder)
        if until(result.state) or folder.holder() != holder:
            return Result(folder).state
        waiting = result.reason
        if waiting and waiting != said:
            tell(f"waiting for {waiting}")
            said = waiting
        time.sleep(POLL_S)
