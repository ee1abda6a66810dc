"""Checkpoints: `<root>/<member>/<step>`, written by trials, kept by who can still need them.

What a folder holds is the trial's affair. An exploit copies no bytes: the trial is pointed to the
folder of the one it starts from.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from shoal.core.population import Population
from shoal.core.records import Trial

Keep = Literal["live", "all", "lineage"]
OWNER = ".shoal.json"  # says whose checkpoints a folder holds


class CheckpointError(Exception):
    """A folder that cannot hold the checkpoints of this experiment: the message says what to do."""


class Checkpoints:
    """The checkpoints of one experiment under `root`.

    Args:
        root: the folder; it is made when the first trial needs it.
        population: whose trials they are of.
        keep: "live": what a live member, a running trial or the best score can need; "lineage":
            that and all its ancestors, so that the whole history of the best is there; "all".
    """

    def __init__(self, root: Path, population: Population, keep: Keep = "live") -> None:
        self.root, self.population, self.keep = root, population, keep
        self._there = {trial.id for trial in population.trials if self.save(trial).is_dir()}

    def save(self, trial: Trial) -> Path:
        """The folder that `trial` saves to."""
        return self.root / str(trial.member) / str(trial.step)

    def load(self, trial: Trial) -> Path | None:
        """The folder that `trial` starts from: that of its parent, None for a fresh start."""
        return None if trial.parent is None else self.save(self.population.trials[trial.parent])

    def prepare(self, trial: Trial) -> None:
        """Let `trial` find nothing in the folder that it will make, as if it had never run."""
        remove(self.save(trial))
        self.save(trial).parent.mkdir(parents=True, exist_ok=True)
        self._there.add(trial.id)

    def lost(self, trial: Trial) -> bool:
        """Whether what `trial` is to start from was saved and is not there any more."""
        load = self.load(trial)
        return load is not None and trial.parent not in self.population.unsaved and not saved(load)

    def retain(self, live: set[int]) -> None:
        """Delete the checkpoints of all trials but those in `live` and those that are running."""
        if self.keep == "all":
            return
        trials = self.population.trials
        needed = live | self.population.running.keys()
        if self.keep == "lineage":
            for id in tuple(needed):
                while (parent := trials[id].parent) is not None and parent not in needed:
                    needed.add(parent)
                    id = parent  # noqa: PLW2901 (up the line)
        for id in self._there - needed:
            remove(self.save(trials[id]))
        self._there &= needed


def saved(folder: Path) -> bool:
    """Whether there is anything in `folder`."""
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def remove(folder: Path) -> None:
    """Delete `folder` with all it holds, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def claim(root: Path, experiment: str) -> None:
    """Make `root` the checkpoint folder of `experiment`.

    Raises:
        CheckpointError: it holds checkpoints already, which a fresh run would load as its own, or
            it is another experiment's, or it cannot be written to.
    """
    owner = owner_of(root)
    if owner == experiment:
        return
    there = next(members(root), None)
    if there is not None:
        whose = f"those of experiment {owner}" if owner else "of an earlier run"
        forward = f"`shoal resume {owner}`, or `shoal rm {owner}`, or" if owner else "Empty it, or"
        raise CheckpointError(
            f"{root} already holds checkpoints ({there.name}/...), {whose}: a fresh run would load "
            f"them as its own. {forward} name another folder."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / OWNER).write_text(json.dumps({"experiment": experiment}) + "\n")
    except OSError as error:
        raise CheckpointError(f"{root} cannot hold checkpoints: {error}") from error


def owner_of(root: Path) -> str | None:
    """The experiment whose checkpoints `root` holds, as far as it says."""
    try:
        owner = json.loads((root / OWNER).read_text())["experiment"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return owner if isinstance(owner, str) else None


def members(root: Path) -> Iterator[Path]:
    """The folders in `root` that are a member's and hold something."""
    if root.is_dir():
        yield from (path for path in sorted(root.iterdir()) if path.name.isdigit() and saved(path))


def release(root: Path, experiment: str, population: int) -> None:
    """Delete the checkpoints of `experiment` in `root`, and `root` too if nothing else is in it."""
    if owner_of(root) != experiment:
        return
    for path in members(root):
        if int(path.name) < population:
            remove(path)
    (root / OWNER).unlink(missing_ok=True)
    if not saved(root):
        remove(root)
