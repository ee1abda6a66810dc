"""What a script imports inside a trial: its hyperparameters, its checkpoints, a way to report.

    from shoal.trial import current

    trial = current()
    model = load(trial.load / "model.pt") if trial.load else new_model()
    trial.finish(train_one_step(model, lr=trial.hparams["lr"]))
    save(model, trial.save / "model.pt")

The other side of this file is the controller, and what lies between them is a folder, named by
``SHOAL_TRIAL_DIR``: the controller wrote ``trial.json`` into it, the trial appends to
``metrics.jsonl``. `docs/trials.md` describes both for trials that are not Python.

Rules of this file: the standard library only, nothing from shoal, and Python 3.8. It is loaded by
its path into interpreters that have no shoal (our module named ``nni`` does that). Nothing is read
from the environment on import, because a fork server imports this before the trial is known.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_dumps = json.dumps  # as it is now: what is trained may put something else in its place

__all__ = ["Current", "current", "main", "to_json", "trial_dir", "write_report"]

# what numpy, torch and their like raise when a value is no scalar
_NOT_A_SCALAR = (AttributeError, TypeError, ValueError, RuntimeError)


class Current:
    """The trial that this process is: one step of one member.

    Attributes:
        hparams: The hyperparameters to train under.
        load: The folder of the checkpoint to start from; None for a member's first step.
        save: The folder to leave the new checkpoint in.
        seed: A number that is this trial's own and the same whenever the run is repeated.
        member: The member of the population, counted from 0.
        step: How many steps the member has done before this one.
        id: The trial's number in the experiment.
        attempt: 1, and one more for each retry.
        experiment: The experiment's id.
        job: The trial's number as text, the name of its folder.
        parameters: `hparams` with ``load_checkpoint_dir`` and ``save_checkpoint_dir`` added, which
            is how NNI passes the two folders.
        finished: Whether this object has reported a final result.
        alone: Whether it is of no experiment: see `current`. Reports are printed, too.
    """

    __slots__ = (
        "alone",
        "attempt",
        "directory",
        "experiment",
        "finished",
        "hparams",
        "id",
        "job",
        "load",
        "member",
        "parameters",
        "save",
        "seed",
        "step",
    )

    def __init__(self, directory: Path) -> None:
        try:
            written = json.loads((directory / "trial.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RuntimeError(
                f"SHOAL_TRIAL_DIR names {directory}, which holds no trial.json: the variable was "
                "not set by shoal, or the trial's folder has been deleted since."
            ) from None
        self.directory: Path = directory
        self.id: int = written["id"]
        self.job: str = written["job"]
        self.experiment: str = written["experiment"]
        self.member: int = written["member"]
        self.step: int = written["step"]
        self.attempt: int = written["attempt"]
        self.seed: int = written["seed"]
        self.hparams: dict[str, Any] = written["hparams"]
        self.parameters: dict[str, Any] = written["parameters"]
        self.load: Path | None = None if written["load"] is None else Path(written["load"])
        self.save: Path = Path(written["save"])
        self.finished: bool = False
        self.alone: bool = False

    def __repr__(self) -> str:
        return f"<trial {self.id}: member {self.member}, step {self.step}, {self.hparams}>"

    def report(self, value: object) -> None:
        """Report how it is going; shown and kept, never used to choose.

        Args:
            value: A number, or a mapping of names to numbers. Scalars of numpy, torch and the like
                are numbers.

        Raises:
            OSError: The trial's folder cannot be written.
        """
        write_report(self.directory, "intermediate", value)
        if self.alone:
            sys.stderr.write(f"shoal: reported {to_json(value)}\n")

    def finish(self, value: object) -> None:
        """Report the result that the trial is judged by.

        It is judged when the process has ended, so a checkpoint may well be saved after this. What
        cannot be judged (None, text, a list) is written all the same: a bad result is the trial's
        outcome, and it is the controller that says so.

        Args:
            value: As for `report`. Of a mapping, the entry ``default`` or the metric that the
                experiment names is the score.

        Raises:
            OSError: The trial's folder cannot be written.
        """
        write_report(self.directory, "final", value)
        self.finished = True
        if self.alone:
            sys.stderr.write(f"shoal: finished with {to_json(value)}\n")


def trial_dir() -> Path | None:
    """The folder of the trial that this process is, None outside of a trial."""
    # An empty variable is how some launchers unset one.
    named = os.environ.get("SHOAL_TRIAL_DIR")
    return Path(named) if named else None


def current(default: Mapping[str, Any] | None = None) -> Current:
    """The trial that this process is; its folder `save` exists on return.

    Args:
        default: The hyperparameters of a process that is no trial, so that a script can be tried as
            it stands: it is the first step of member 0, saves to a temporary folder, and says so.

    Raises:
        RuntimeError: Outside of a trial, without `default`; or where the trial's folder is gone.
    """
    directory = trial_dir()
    if directory is None and default is not None:
        return _alone(dict(default))
    if directory is None:
        raise RuntimeError(
            "This process is not a trial: SHOAL_TRIAL_DIR is not set. Start the script through an "
            "experiment (shoal run CONFIG); to try it alone, give hyperparameters for that: "
            "shoal.trial.current(default={...})."
        )
    trial = Current(directory)
    trial.save.mkdir(parents=True, exist_ok=True)
    return trial


def _alone(hparams: dict[str, Any]) -> Current:
    """A trial of no experiment, which begins with nothing."""
    directory = Path(tempfile.mkdtemp(prefix="shoal-alone-"))
    save = directory / "checkpoint"
    save.mkdir()
    written = {
        "id": 0, "job": "00000", "experiment": "", "member": 0, "step": 0, "attempt": 1, "seed": 0,
        "hparams": hparams, "load": None, "save": str(save),
        "parameters": {
            **hparams, "load_checkpoint_dir": str(save), "save_checkpoint_dir": str(save),
        },
    }  # fmt: skip
    (directory / "trial.json").write_text(to_json(written), encoding="utf-8")
    sys.stderr.write(f"shoal: no experiment runs this: one step under {hparams}, saved to {save}\n")
    trial = Current(directory)
    trial.alone = True
    return trial


def write_report(directory: Path, kind: str, value: object) -> None:
    """Append one report to a trial's ``metrics.jsonl``.

    Args:
        directory: The trial's folder.
        kind: ``intermediate`` or ``final``.
        value: What is reported.

    Raises:
        OSError: The file cannot be written, or not whole (the disk is full).
    """
    told = rank()
    of = "" if told is None else f', "rank": {told}'
    data = f"{{{_dumps(kind)}: {to_json(value)}{of}}}\n".encode()
    # One write on a descriptor that appends: the kernel places it behind whatever the other
    # processes of this trial write at the same moment, so no line is ever torn or overwritten. A
    # buffered file would give neither.
    descriptor = os.open(directory / "metrics.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(f"the report did not fit on the disk: {directory / 'metrics.jsonl'}")
    finally:
        os.close(descriptor)


def rank(environ: Mapping[str, str] = os.environ) -> int | None:
    """Which of the processes that a launcher has started for this trial this is, if one has."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    return None


def to_json(value: object) -> str:
    """A reported value as JSON text: scalars of any library as numbers, the rest as it is.

    What JSON cannot carry becomes the text of its `repr`, for it is the controller that judges a
    result, and it cannot judge what never arrives. NaN and infinities are written as Python does.
    """
    try:
        return _dumps(value, default=_plain)
    except (TypeError, ValueError, RecursionError):  # a key that is no text, a value inside itself
        return _dumps(repr(value))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of ``python -m shoal.trial module:function``, which is how `train:` runs.

    Calls the function with the current trial and reports what it returns as the final result,
    unless it returned nothing after it had reported one itself. Whatever the user's code raises is
    let through, so that its traceback is in the trial's stderr.

    Args:
        arguments: The command line's; None takes them from this process.

    Returns:
        0, or 2 where no training was started, with the reason on stderr.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    module_name, colon, name = words[0].partition(":") if len(words) == 1 else ("", "", "")
    if not (module_name and colon and name):
        return _refuse("usage: python -m shoal.trial module:function")
    try:
        trial = current()
    except RuntimeError as error:
        return _refuse(str(error))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Only if it is the named module, or a package that it is in, which is not there. Anything
        # else is an import inside of it, and the user needs to see from where.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        return _refuse(f"there is no module named {error.name!r} to import from {Path.cwd()}")
    function = getattr(module, name, None)
    if not callable(function):
        return _refuse(f"module {module_name!r} ({module.__file__}) has no function {name!r}")
    value = function(trial)
    if value is not None or not trial.finished:
        trial.finish(value)
    return 0


def _plain(value: object) -> object:
    """Something JSON carries in place of a value that it does not."""
    if isinstance(value, Mapping):
        return dict(value)
    try:
        scalar = value.item()  # type: ignore[attr-defined]
    except _NOT_A_SCALAR:
        scalar = value
    if isinstance(scalar, (bool, int, float)):
        return scalar
    try:
        # For tensors without `item` and floats wider than Python's. Not float(), which reads text.
        return scalar.__float__()
    except _NOT_A_SCALAR:
        return repr(value)


def _refuse(reason: str) -> int:
    sys.stderr.write(f"shoal.trial: {reason}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
