"""The commands that run experiments, and try them out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from shoal import experiment, views
from shoal.checking import Finding, tried_out
from shoal.cli import steering
from shoal.cli.entry import interruptible, unread
from shoal.cli.words import call, complain, tell, title
from shoal.config import Config
from shoal.controller import Observer
from shoal.home import ExperimentError
from shoal.result import Result
from shoal.result import open as result_of
from shoal.show import live, tables
from shoal.show.layout import Cell, facts, show

CODES = {"done": 0, "failed": 1, "stopped": 130}


def conduct(drive: Callable[[Observer], Result]) -> int:
    """The exit code of a run. It is shown while it goes on, and then what came of it.

    Raises:
        ExperimentError: it could not begin.
    """
    watcher = live.watcher()
    try:
        with interruptible(), watcher.watching():
            result = drive(watcher)
    except KeyboardInterrupt:  # before it had begun; click would print a line
        return CODES["stopped"]
    except ExperimentError as error:
        if watcher.folder is None:
            raise
        complain(f"{error}\n`shoal resume {call(watcher.folder)}` goes on.")
        return CODES["failed"]
    try:
        conclude(result)
    except BrokenPipeError:  # what came of it is in the journal, and in the exit code
        unread()
    return CODES[result.state]


def conclude(result: Result) -> None:
    """Say what came of a run."""
    name = call(result.folder)
    if result.state == "failed":
        complain(f"{title(result.name, result.id)} failed: {result.reason}")
        tell(f"`shoal trials {name}` shows every trial, `shoal resume {name}` tries again.")
        return
    show(*tables.ended(result), "", *tables.winner(result))
    tell("")
    if result.state == "stopped":
        tell(f"`shoal resume {name}` goes on.")
    else:
        tell(f"`shoal trials {name}` shows every trial, `shoal --help` what else there is.")


def run(
    config: Path,
    *,
    on: str | None,
    address: str | None,
    track: Sequence[str],
    settings: Mapping[str, Any],
    home: Path | None,
    **options: Any,
) -> int:
    """The exit code of a run of the experiment in the file `config`.

    Args:
        config: the file.
        on: where trials run, if it was said.
        address: of the cluster, if it was said.
        track: the trackers that are told.
        settings: any keys of the file, in place of what it says.
        home: where experiments are kept.
        options: keys of the file that have an option of their own; None: not given.
    """
    options |= {"execution": place(on, address), "track": list(track) or None}
    words: Any = {key: value for key, value in options.items() if value is not None}
    if twice := words.keys() & settings.keys():
        raise click.BadParameter(f"{min(twice)} has an option, too.", param_hint="--set")
    words |= settings
    home = words.pop("home", home)
    return conduct(
        lambda observer: experiment.run(
            config, home=home, observer=observer, verbose=False, **words
        )
    )


def place(on: str | None, address: str | None) -> dict[str, str] | None:
    """Where to run, as far as it was said; None if it was not."""
    if on == "local" and address is not None:
        raise click.BadParameter("only a cluster has one.", param_hint="--address")
    if on is None and address is None:
        return None
    given = {"engine": on or "ray", "address": address}
    return {key: value for key, value in given.items() if value is not None}


def resume(
    which: str | None, *, on: str | None, address: str | None, home: Path | None, **limits: Any
) -> int:
    """The exit code of going on with an experiment."""
    execution = place(on, address)
    if execution is None and steering.gone_on(which, limits, home):
        return CODES["done"]
    before = result_of(which, home=home)
    if all(value is None for value in limits.values()) and (spent := before.spent):
        tell(f"nothing is left to do: {spent}. With new limits, as --steps, it goes further.")
    return conduct(
        lambda observer: experiment.resume(
            which,
            execution=execution,
            home=home,
            observer=observer,
            verbose=False,
            **limits,
        )
    )


def check(file: Path, *, gpus_per_trial: float | None, env: Mapping[str, str] | None) -> int:
    """The exit code of a trial of the experiment in `file`: 1 if something is not as it has to be.

    Raises:
        ConfigError: the file is wrong.
        ExperimentError: trials cannot be run at all.
    """
    config, notes = experiment.read_config(file)
    config = experiment.fitted(config, gpus_per_trial, env)
    for note in notes:
        tell(f"warning: {note}")
    try:
        with interruptible():
            checked = tried_out(config, tell)
    except KeyboardInterrupt:
        return CODES["stopped"]
    total = views.total(config.steps, config.max_trials, config.population)
    found, trial_s = checked.findings, checked.trial_s
    valid = Finding("the file is valid", ok=True, detail=described(config, total))
    show(*findings([valid, *found]), "")
    if not checked.ok:
        show(f"Mend what failed: `shoal run {file}` would run into it.")
        return CODES["failed"]
    pace = ""
    if trial_s is not None and total is not None:
        wall = tables.duration(trial_s * total / config.workers)
        pace = f", which takes about {wall}"
    show(f"All is well: `shoal run {file}`{pace}.")
    return CODES["done"]


def described(config: Config, total: int | None) -> str:
    """How large an experiment is."""
    parts = [tables.plural(config.population, "member"), f"{config.workers} at a time"]
    parts += [] if config.steps is None else [tables.plural(config.steps, "step")]
    parts += [] if total is None else [tables.plural(total, "trial")]
    return ", ".join(parts)


def findings(found: Sequence[Finding]) -> list[str]:
    """What was found out, one thing a line."""
    words = {
        True: Cell("ok", "good"),
        False: Cell("failed", "bad"),
        None: Cell("unknown", "unclear"),
    }
    whats = max(len(finding.what) for finding in found)
    return facts(
        [words[finding.ok], finding.what.ljust(whats), Cell(finding.detail, "dim")]
        for finding in found
    )
