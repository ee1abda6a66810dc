"""The commands that look at experiments, and the one that removes them.

They import nothing that only a run needs, since people and scripts ask often.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from shoal.cli.words import answer, answer_all, tell, title
from shoal.home import ExperimentError, experiments
from shoal.result import Result, home_of, unreadable
from shoal.result import open as result_of
from shoal.runners import written
from shoal.show import tables
from shoal.show.layout import printable, show

POLL_S = 0.1  # how often `log -f` looks
READ_BYTES = 1 << 20  # at a time
ENDED = {"finished", "failed"}


def listing(home: Path | None, *, as_json: bool) -> None:
    """Print the experiments, newest first, and last those that cannot be read, and why."""
    briefs, others = [], []
    for folder in reversed(experiments(home_of(home))):
        try:
            briefs.append(Result(folder).brief())
        except ExperimentError as error:
            others.append(unreadable(folder, str(error)))
    briefs += others
    if as_json:
        answer(briefs)
    elif briefs:
        show(*tables.listing(briefs))
    else:
        tell(f"there is no experiment in {home_of(home)} yet: `shoal run CONFIG` makes one")


def status(experiment: str | None, home: Path | None, *, as_json: bool) -> None:
    """Print how an experiment stands."""
    result = result_of(experiment, home=home)
    if as_json:
        answer(result.status())
    else:
        show(*tables.status(result))


def trials(experiment: str | None, home: Path | None, *, as_json: bool) -> None:
    """Print every trial."""
    result = result_of(experiment, home=home)
    if as_json:
        answer_all(row.json() for page in result.pages() for row in page)
        return
    for lines in tables.every_trial(result):
        show(*lines)
        sys.stdout.flush()


def best(experiment: str | None, home: Path | None, *, as_json: bool) -> None:
    """Print the best trial."""
    result = result_of(experiment, home=home)
    found = result.best_so_far
    if as_json:
        answer(found and {**found.lineage[-1].json(), "schedule": found.schedule})
        return
    show(tables.heading(result), "", *tables.winner(result))


def schedule(experiment: str | None, home: Path | None, *, as_json: bool) -> None:
    """Print the hyperparameters along the best trial's lineage."""
    result = result_of(experiment, home=home)
    found = result.best_so_far
    if as_json:
        answer(found.schedule if found else [])
    elif found:
        show(*tables.schedule(found.lineage, tables.names_of(result)))
    else:
        tell(tables.NOTHING)


def lineage(experiment: str | None, home: Path | None, *, as_json: bool) -> None:
    """Print the best trial and its ancestors."""
    result = result_of(experiment, home=home)
    line = result.best_so_far.lineage if result.best_so_far else []
    if as_json:
        answer([row.json() for row in line])
    elif line:
        show(*tables.trials(line, tables.names_of(result), result.copies(line)))
    else:
        tell(tables.NOTHING)


def log(experiment: str | None, home: Path | None, *, follow: bool, trial: int | None) -> None:
    """Print the log, or what a trial printed; with `follow` for as long as more can come."""
    result = result_of(experiment, home=home)
    for more in said(result) if trial is None else printed(result, trial):
        sys.stdout.flush()
        if not (follow and more):
            return
        time.sleep(POLL_S)


def said(result: Result) -> Iterator[bool]:
    """Print the lines of the log that are new; each time, whether there can be more."""
    seen = 0
    while True:
        running = result.folder.holder() is not None  # asked first: its last lines are still read
        with result.folder.open() as store:
            lines = store.lines(seen)
        for line in lines:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.at))
            click.echo(printable(f"{at}  {line.level:<7}  {line.text}"))
            seen = line.seq
        yield running


def printed(result: Result, trial: int) -> Iterator[bool]:
    """Print what a trial has newly written: stdout to stdout, stderr to stderr.

    Each time, whether there can be more. Of several attempts it is the last.

    Raises:
        ExperimentError: there is no such trial.
    """
    count = result.tally.trials
    if trial >= count:
        raise ExperimentError(
            f"experiment {result.id} has no trial {trial}; it has {tables.plural(count, 'trial')}"
        )
    attempt, offsets = 0, {"stdout": 0, "stderr": 0}
    while True:
        row = Result(result.folder).trial(trial)
        assert row is not None
        if row.attempt != attempt:
            attempt, offsets = row.attempt, dict.fromkeys(offsets, 0)
            tell(f"trial {trial}, attempt {attempt}: {result.folder.trial(trial, attempt)}")
        for name in offsets:
            file = result.folder.trial(trial, attempt) / name
            while data := written.read(file, offsets[name], READ_BYTES):
                offsets[name] += len(data)
                click.echo(data, nl=False, err=name == "stderr")
        yield row.state not in ENDED and result.folder.holder() is not None


def remove(experiment: str, home: Path | None, *, yes: bool) -> None:
    """Delete an experiment with its checkpoints, if the user says so.

    Raises:
        ExperimentError: it runs, or nobody is there to be asked.
    """
    result = result_of(experiment, home=home)
    try:
        name, count = title(result.name, result.id), tables.plural(result.tally.trials, "trial")
        where, gone = f"the checkpoints in {result.checkpoints}", "its checkpoints"
    except ExperimentError:
        name, count = f"{result.id} (unreadable)", "whatever it is"
        where = gone = "what is in its folder"
    if not yes:
        if not sys.stdin.isatty():
            raise ExperimentError(f"nobody is there to be asked: --yes deletes {name}")
        question = f"Delete {name}, {count}, with {where}?"
        click.confirm(question, abort=True, err=True)
    from shoal.experiment import remove as delete  # noqa: PLC0415 (what looks on does without)

    delete(str(result.folder.path))
    tell(f"{name} is deleted, and {gone} with it")
