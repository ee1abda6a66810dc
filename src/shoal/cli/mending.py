"""The command that mends an experiment."""

import sys
from pathlib import Path

import click

from shoal.cli.words import call, tell
from shoal.home import ExperimentError, find
from shoal.repair import Repair
from shoal.repair import repair as mend
from shoal.result import home_of
from shoal.show import tables


def repair(experiment: str, home: Path | None, *, yes: bool) -> None:
    """Make the journal of an experiment whole again, if the user says so.

    Raises:
        ExperimentError: it runs, nothing can be recovered, or nobody is there to be asked.
    """
    folder = find(home_of(home), experiment)

    def agreed(plan: Repair) -> bool:
        tell(f"{folder.journal} is damaged: {outlook(plan)}")
        if not yes and not sys.stdin.isatty():
            raise ExperimentError(f"nobody is there to be asked: --yes repairs {folder.id}")
        return yes or click.confirm("Repair it? The damaged file is kept.", abort=True, err=True)

    done = mend(folder, agreed)
    if done.sound:
        tell(f"the journal of experiment {folder.id} is whole: there is nothing to repair")
        return
    tell(f"repaired; the damaged file is kept as {done.kept}")
    tell(
        f"`shoal status {call(folder)}` shows how it stands, `shoal resume {call(folder)}` goes on"
    )


def outlook(plan: Repair) -> str:
    """What can be recovered, in a sentence."""
    parts = [f"{tables.plural(plan.readable, 'record')} can be read"]
    if plan.filled:
        parts.append(f"{plan.filled:,} more are told by the trials' own files")
    if plan.dropped:
        parts.append(f"{plan.dropped:,} come after some that nothing tells of, and are left out")
    return f"{', '.join(parts)}; that is {tables.plural(plan.trials, 'trial')}"
