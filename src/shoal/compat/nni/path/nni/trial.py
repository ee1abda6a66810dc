"""The functions that a trial calls, as NNI names them.

Everything is looked up when it is called. A fork server imports this package before it becomes a
trial, so what is true on import is true of no trial.
"""

from __future__ import annotations

import itertools
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from ._absent import absent
from ._protocol import protocol

__all__ = [
    "get_current_parameter",
    "get_experiment_id",
    "get_next_parameter",
    "get_next_parameters",
    "get_sequence_id",
    "get_trial_id",
    "report_final_result",
    "report_intermediate_result",
]

__path__: list[str] = []  # see nni.utils


class _State:
    """What this process has asked for and said, which belongs to one trial folder."""

    asked_in: Path | None = None
    parameters: dict[str, Any] | None = None
    alone_index = itertools.count()
    silent = False


def get_next_parameter() -> dict[str, Any]:
    """The parameters of this trial: its hyperparameters and the two checkpoint folders.

    A trial has exactly one set, so asking again gives an equal one. (NNI gives None, or waits for
    ever.) Outside of a trial it is empty, with a warning.

    Raises:
        RuntimeError: In a trial that NNI itself started, or whose folder is gone.
    """
    directory = _directory()
    if directory is None:
        warnings.warn(
            "nni.get_next_parameter() outside of a trial gives no parameters; start the "
            "experiment with `shoal run CONFIG` to get them",
            RuntimeWarning,
            stacklevel=2,
        )
        parameters: dict[str, Any] = {}
    else:
        parameters = protocol.Current(directory).parameters
    _State.asked_in, _State.parameters = directory, parameters
    return parameters


def get_next_parameters() -> dict[str, Any]:
    """The parameters of this trial; an alias of `get_next_parameter`.

    Raises:
        RuntimeError: As there.
    """
    return get_next_parameter()


def get_current_parameter(tag: str | None = None) -> Any:
    """The parameters asked for last, or the one named `tag`; None if none were asked for.

    Raises:
        KeyError: There is no parameter of that name.
    """
    if _State.parameters is None or _State.asked_in != _directory():
        return None
    return _State.parameters if tag is None else _State.parameters[tag]


def get_experiment_id() -> str:
    """The experiment's id, ``STANDALONE`` outside of a trial."""
    directory = _directory()
    return "STANDALONE" if directory is None else str(protocol.Current(directory).experiment)


def get_trial_id() -> str:
    """The trial's number as text, ``STANDALONE`` outside of a trial."""
    directory = _directory()
    return "STANDALONE" if directory is None else str(protocol.Current(directory).job)


def get_sequence_id() -> int:
    """The trial's number, 0 outside of a trial."""
    directory = _directory()
    return 0 if directory is None else int(protocol.Current(directory).id)


def report_intermediate_result(metric: Any) -> None:
    """Report how it is going; shown and kept, never used to choose.

    Args:
        metric: A number, or a dict of them with the main one under ``default``.

    Raises:
        RuntimeError: The trial has not asked for its parameters.
        OSError: The report cannot be written.
    """
    directory = _directory_to_report_in("report_intermediate_result")
    if directory is not None:
        protocol.write_report(directory, "intermediate", metric)
    elif not _State.silent:
        index = next(_State.alone_index)
        sys.stdout.write(f"Intermediate result: {protocol.to_json(metric)}  (Index {index})\n")


def report_final_result(metric: Any) -> None:
    """Report the result that the trial is judged by; of several, the first.

    Args:
        metric: A number, or a dict of them with the main one under ``default``.

    Raises:
        RuntimeError: The trial has not asked for its parameters.
        OSError: The report cannot be written.
    """
    directory = _directory_to_report_in("report_final_result")
    if directory is not None:
        protocol.write_report(directory, "final", metric)
    elif not _State.silent:
        sys.stdout.write(f"Final result: {protocol.to_json(metric)}\n")


def silence_stdout() -> None:
    """Stop this package from printing, which it only does outside of a trial."""
    _State.silent = True


def _directory() -> Path | None:
    """The trial's folder; None outside of a trial.

    Raises:
        RuntimeError: In a trial that NNI itself started, where training would go unreported.
    """
    directory: Path | None = protocol.trial_dir()
    if directory is None and os.environ.get("NNI_PLATFORM"):
        raise RuntimeError(
            f"This is shoal's `nni` ({Path(__file__).parent}) in a trial that shoal did not start: "
            "NNI_PLATFORM is set and SHOAL_TRIAL_DIR is not. Take that folder out of PYTHONPATH to "
            "use the real NNI, or keep SHOAL_TRIAL_DIR in the trial's environment."
        )
    return directory


def _directory_to_report_in(function: str) -> Path | None:
    directory = _directory()
    if directory is not None and _State.asked_in != directory:
        raise RuntimeError(
            f"nni.{function}() was called before nni.get_next_parameter(), so the result belongs "
            "to no parameters. Ask for the parameters first, and train with them."
        )
    return directory


def __getattr__(name: str) -> Any:
    raise AttributeError(absent(f"{__name__}.{name}"))
