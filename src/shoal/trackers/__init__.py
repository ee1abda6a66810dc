"""Trackers: what each step was trained under and came to, written where people look for it.

A tracker takes hyperparameters for constants, and in population based training they are not: each
member is a run of its own here, its hyperparameters are series, and a copy is told as what it is.
All is read from the journal, so a run that has ended can be written as well as one that goes on.
Each tracker needs a library, which is imported when it is asked for.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shoal.config import Config
from shoal.home import ExperimentError
from shoal.trackers.steps import Tracker

# by name: the module that it is in, and the library that has to be installed
KNOWN = {
    "tensorboard": ("shoal.trackers.tensorboard", "tensorboardX"),
    "mlflow": ("shoal.trackers.mlflow", "mlflow"),
    "wandb": ("shoal.trackers.wandb", "wandb"),
}


def named(what: str) -> tuple[str, str]:
    """(name, where to) of `NAME` or `NAME=WHERE`; without, the library decides."""
    name, _, where = what.partition("=")
    return name, where


def wanted(config: Config) -> list[str]:
    """The trackers that `config` names, each of which can be had here.

    Raises:
        ExperimentError: one cannot.
    """
    for what in config.track:
        installed(what)
    return list(dict.fromkeys(config.track))


def installed(what: str) -> None:
    """See that the library of the tracker that `what` names is there.

    Raises:
        ExperimentError: it is not.
    """
    name, _ = named(what)
    _, library = KNOWN[name]
    if find_spec(library) is None:
        raise ExperimentError(
            f"to track in {name}, {library} has to be installed: `pip install shoal[{name}]`"
        )


def made(what: str, directory: Path) -> Tracker:
    """The tracker that `what` names.

    Args:
        what: `NAME` or `NAME=WHERE`.
        directory: to which a relative path in WHERE is relative.
    """
    name, where = named(what)
    tracker: Tracker = loaded(name).tracker(where, directory)
    return tracker


def loaded(name: str) -> Any:
    """The module of a tracker, and with it its library.

    To be called first by a thread that stays: pyarrow, which MLflow brings, takes the process down
    if the one that has imported it ends (apache/arrow#50471).
    """
    return import_module(KNOWN[name][0])
