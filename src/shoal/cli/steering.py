"""The commands that steer an experiment while it runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoal import steering
from shoal.cli.words import call, tell, title
from shoal.config import LIMITS
from shoal.result import Result
from shoal.result import open as result_of


def stop(which: str | None, *, now: bool, home: Path | None) -> None:
    """Stop an experiment, and return when nobody runs it any more.

    Raises:
        ExperimentError: whoever runs it cannot be told.
    """
    result = result_of(which, home=home)
    if not steering.stop(result.folder, now=now):
        tell(idle(result))
        return
    state = steering.waits(result.folder, lambda _: False, tell)
    tell(f"{named(result)} is {state}: `shoal resume {call(result.folder)}` goes on")


def pause(which: str | None, *, home: Path | None) -> None:
    """Pause an experiment, and return when nothing of it runs any more.

    Raises:
        ExperimentError: whoever runs it cannot be told.
    """
    result = result_of(which, home=home)
    if not steering.pause(result.folder):
        tell(idle(result))
        return
    state = steering.waits(result.folder, lambda state: state == "paused", tell)
    tell(f"{named(result)} is {state}: `shoal resume {call(result.folder)}` goes on")


def gone_on(which: str | None, limits: Mapping[str, Any], home: Path | None) -> bool:
    """Whether the experiment was paused, and goes on now.

    Raises:
        ConfigError: a limit is no good.
        ExperimentError: whoever runs it cannot be told.
    """
    result = result_of(which, home=home)
    holder = result.controller
    if holder is None or not steering.go_on(result.folder, limits):
        return False
    tell(f"{named(result)} goes on: process {holder[0]} on {holder[1]} runs it")
    return True


def update(which: str | None, *, home: Path | None, **limits: Any) -> None:
    """Change limits of an experiment, for whoever runs it and for whoever will.

    Raises:
        ConfigError: a limit is no good.
        ExperimentError: whoever runs it cannot be told.
    """
    result = result_of(which, home=home)
    steering.update(result.folder, limits)
    after = Result(result.folder)
    changed = (name for name in LIMITS if limits[name] is not None)
    words = ", ".join(f"{name} {after.config[name]}" for name in changed)
    hint = "" if after.controller else f": `shoal resume {call(result.folder)}` goes on with that"
    tell(f"{named(result)} has {words}{hint}")


def named(result: Result) -> str:
    """Which experiment it is."""
    return title(result.name, result.id)


def idle(result: Result) -> str:
    """That nobody runs it."""
    return f"{named(result)} is not running: {Result(result.folder).state}"
