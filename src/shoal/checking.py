"""Trying an experiment out: two members, two steps, and a look at what the trials really do.

The mistakes that cost most are the quiet ones, in which every number looks plausible. A trial that
does not load what was saved trains from nothing at each step: so the files' access times are set to
long ago before a trial, and looked at after it. Hyperparameters that are applied before loading, or
never, are those of the first step for ever: so a step is trained from one checkpoint under two
settings. Members that share a model train each other's: so they are trained together and apart.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Unpack

from shoal import experiment, jobs
from shoal.checkpoints import LASTS, WORKERS, saved
from shoal.claims import OWNER, members, owner_of
from shoal.config import Config, changed
from shoal.controller import Observer
from shoal.core.chance import stream
from shoal.core.exploit import Cohort, Exploit, Move
from shoal.core.records import Hparams, Result, Trial
from shoal.core.space import Space
from shoal.core.tuner import Tuner
from shoal.experiment import Words
from shoal.home import ExperimentError, Folder, default_home
from shoal.jobs import Work
from shoal.runners.cluster.connection import Cluster
from shoal.runners.outcome import short
from shoal.views import Row, copies

MEMBERS = STEPS = 2
OURS = (OWNER, WORKERS, LASTS)  # files that we put beside what is saved
WORDS = {True: "ok", False: "failed", None: "unknown"}
DRAWS = 20  # of hyperparameters, of which the farthest are tried
UNUSABLE = ("no result", "bad result", "nan")  # the kinds of failure that a process survives


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that has to be so, whether it is, and what was seen or is to be done."""

    what: str
    ok: bool | None  # None: it could not be found out
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a trial did with the checkpoint that it was to start from."""

    trial: Trial
    files: int  # in the checkpoint
    read: int  # of them


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found out about an experiment.

    Attributes:
        findings: one after the other.
        trial_s: the seconds that a trial took; None where none finished.
    """

    findings: tuple[Finding, ...]
    trial_s: float | None

    @property
    def ok(self) -> bool:
        """Whether nothing was found that has to be mended."""
        return all(finding.ok is not False for finding in self.findings)

    def __repr__(self) -> str:
        wide = max((len(finding.what) for finding in self.findings), default=0)
        return "\n".join(
            f"{WORDS[finding.ok]:<7}  {finding.what:<{wide}}  {finding.detail}".rstrip()
            for finding in self.findings
        )


def check(
    what: Config | str | Path | Work, *, verbose: bool = True, **words: Unpack[Words]
) -> Checked:
    """Try an experiment out, as `shoal check` does: what was found out.

    Nothing of the user's is touched: experiment and checkpoints are in a folder that is deleted.

    Args:
        what: what to train, or an experiment or its file, as for `shoal.run`.
        verbose: whether to tell on stderr what is being done.
        words: those of the experiment file, as for `shoal.run`.

    Raises:
        ConfigError: the file or a word is wrong; every mistake is told.
        ExperimentError: trials cannot be run at all.
    """
    config, work, notes = experiment.understood(what, experiment.spelled(words))

    def tell(text: str) -> None:
        if verbose:
            sys.stderr.write(f"{text}\n")

    for note in notes:
        tell(f"warning: {note}")
    return tried_out(config, tell, work)


def tried_out(config: Config, tell: Callable[[str], None], work: Work | None = None) -> Checked:
    """What was found out about `config`, which trains `work` if that was given in Python.

    Args:
        config: the experiment.
        tell: is told what is being done.
        work: what it trains.

    Raises:
        ExperimentError: trials cannot be run at all.
        KeyboardInterrupt: the user did not want to wait.
    """
    cluster: list[Finding] = []
    if config.execution is not None:
        tell("looking at the cluster; trials are tried on this machine, which can be looked into")
        cluster = list(about_cluster(config))
        config = changed(config, {"execution": "local"})
    with jobs.Job().ground(config, config.directory):
        pass  # there is something to run on
    with TemporaryDirectory(prefix="shoal-check-") as temporary:
        root = Path(temporary) / "checkpoints"
        watch = Watch(root, tell)
        attempt = partial(tried, work, temporary)
        rows = attempt(small(config, root), watch)
        found = [*cluster, *about_folder(config), *about_trials(rows)]
        found += about_checkpoints(rows, root, watch)
        if len(rows) > MEMBERS and rows[0].metric is not None:
            tell("once more, under other hyperparameters")
            other = far(config.space, rows[0].hparams)
            beside = Path(temporary) / "other"
            moved = attempt(alone(config, beside, other), Quiet())
            saved_to, moved_to = (folder / "0" / "1" for folder in (root, beside))
            found.append(about_effect(rows, moved, saved_to, moved_to, other))
        if config.trainable is not None and any(row.metric is not None for row in rows):
            tell("once more, with states that stay in memory")
            held = attempt(kept(config), Quiet())
            tell("once more, the first member alone")
            both, one = (attempt(kept(config, Stay(), size), Quiet()) for size in (MEMBERS, 1))
            again = both
            if metrics(of_first(both)) != metrics(one):  # is that so each time?
                again = attempt(kept(config, Stay()), Quiet())
            steady = metrics(both) == metrics(again)
            found.append(about_state(rows, held, steady=steady))
            found += about_members(of_first(both), one, steady=steady)
        times = [row.ended - row.started for row in rows if row.ended and row.metric is not None]
    return Checked(tuple(found), sum(times) / len(times) if times else None)


def tried(work: Work | None, home: str, config: Config, observer: Observer) -> list[Row]:
    """The trials of a run of `config`.

    Raises:
        KeyboardInterrupt: the user did not want to wait.
    """
    result = experiment.driven(
        config, work, home=home, observer=observer, verbose=False, inline=False, notes=()
    )
    if result.state == "stopped":
        raise KeyboardInterrupt
    return result.trials()


class Quiet(Observer):
    """Sees what there is to be seen, as what failed will be a finding."""

    shows = True


@dataclass(frozen=True, slots=True)
class FirstLeads:
    """All members but the first copy that."""

    def __call__(self, own: Result | None, cohort: Cohort, rng: Random) -> Move:
        if own is not None and own.trial.member == 0:
            return Move(own, own.trial.hparams, explore=False)
        results = [cohort[rank] for rank in range(len(cohort))]
        donor = next((one for one in results if one.trial.member == 0), results[-1])
        return Move(donor, donor.trial.hparams, explore=True)


@dataclass(frozen=True, slots=True)
class Stay:
    """Every member goes on by itself, under `hparams` where they are given."""

    hparams: Hparams | None = None

    def __call__(self, own: Result | None, cohort: Cohort, rng: Random) -> Move:
        start = cohort[len(cohort) - 1] if own is None else own
        hparams = start.trial.hparams if self.hparams is None else self.hparams
        return Move(start, hparams, explore=False)


def small(config: Config, checkpoints: Path) -> Config:
    """`config` cut down to two members and two steps, one of whom copies the other in between."""
    return reduced(
        config,
        workers=1,  # what a trial has read is seen before the next one begins
        exploit=FirstLeads(),
        checkpoints=str(checkpoints),
        hold=False,  # so that what was saved has to be loaded
    )


def alone(config: Config, checkpoints: Path, hparams: Hparams) -> Config:
    """As `small`, the first member alone, which does its second step under `hparams`."""
    how = {"population": 1, "workers": 1, "exploit": Stay(hparams), "hold": False}
    return reduced(config, checkpoints=str(checkpoints), **how)


def kept(config: Config, exploit: Exploit = FirstLeads(), size: int = MEMBERS) -> Config:
    """As `small`, with states that stay in memory, and checkpoints in the experiment's folder."""
    how = {"exploit": exploit, "population": size, "workers": 1}
    return reduced(config, checkpoints=None, hold=True, **how)


def reduced(config: Config, **more: Any) -> Config:
    """`config` cut down to two members and two steps, with `more` changes."""
    changes: dict[str, Any] = {
        "population": MEMBERS,
        "control": 0,
        "steps": STEPS,
        "max_trials": None,
        "max_duration": None,
        "target": None,
        "retries": 0,
        "synchronous": True,
        "keep": "all",
        "track": [],
        "checkpoint_every": "auto",
    }
    given = config.dump() | {"explore": config.explore} | changes | more
    return Config.restore(given | {"initial": config.initial[: given["population"]]})


def far(space: Space, hparams: Hparams) -> Hparams:
    """Hyperparameters of `space` that are far from `hparams`: of some draws, the farthest."""
    draws = [space.sample(stream(0, draw, 0)) for draw in range(DRAWS)]

    def apart(name: str, value: Any) -> float:
        here: Any = hparams.get(name)
        all_: list[Any] = [draw.get(name) for draw in draws]
        if value == here:
            return -1.0  # it is to change
        if not all(isinstance(x, int | float) for x in (here, *all_)):
            return 1.0
        below, here_below = (sum(bool(x < end) for x in all_) for end in (value, here))
        return abs(below - here_below) / DRAWS

    return max(draws, key=lambda draw: sum(apart(name, value) for name, value in draw.items()))


class Watch(Quiet):
    """Observes the trials, and what they read."""

    def __init__(self, root: Path, tell: Callable[[str], None]) -> None:
        self.reads_show = False  # whether this file system records that a file is read
        self.seen: list[Seen] = []
        self._root, self._tell = root, tell
        self._begun = self._over = 0

    def began(self, folder: Folder, config: Config) -> None:
        self.reads_show = records_reads(folder.path)

    def changed(self, tuner: Tuner, waiting: str) -> None:
        trials, running = tuner.population.trials, tuner.population.running
        for trial in trials[self._begun :]:
            self._begun += 1
            where = f"member {trial.member}, step {trial.step}"
            self._tell(f"trial {self._begun} of {MEMBERS * STEPS}: {where}")
        if len(trials) > self._over and not running:
            trial, self._over = trials[-1], len(trials)
            if trial.parent is not None and trial.id not in tuner.population.failures:
                parent = trials[trial.parent]
                read = [was_read(file) for file in files(self._root, parent.member, parent.step)]
                self.seen.append(Seen(trial, len(read), sum(read)))
            for file in files(self._root):
                make_unread(file)

    def said(self, level: str, text: str) -> None:
        if level == "warning":
            self._tell(f"warning: {text}")


def about_cluster(config: Config) -> Iterator[Finding]:
    """Whether every node can do its part: the same shoal, what it loads and saves, and room."""
    where, need = config.checkpoints or config.home or default_home(), jobs.need_of(config)
    what = "every node of the cluster can load and save"
    try:
        with jobs.Job().ground(config, where) as cluster:
            assert isinstance(cluster, Cluster)
            many, enough = len(cluster.nodes()), cluster.can_ever(need)
    except ExperimentError as error:
        yield Finding(what, ok=False, detail=str(error))
        return
    yield Finding(what, ok=True, detail=f"{many}, in {where}")
    detail = f"for a trial: {need}" if enough else f"none has {need}, which a trial needs"
    yield Finding("a node is large enough", ok=enough, detail=detail)


def about_folder(config: Config) -> Iterator[Finding]:
    """Whether a run would be refused for what is in its folder for checkpoints."""
    if not isinstance(config.checkpoints, Path):
        return
    what, folder = "the folder for checkpoints is empty", config.checkpoints
    if next(members(folder), None) is None:
        yield Finding(what, ok=True)
        return
    owner = owner_of(folder)
    whose = f"experiment {owner}: resume or remove that" if owner else "an earlier run: empty it"
    yield Finding(what, ok=False, detail=f"{folder} holds those of {whose}, or name another.")


def about_trials(rows: Sequence[Row]) -> Iterator[Finding]:
    """Whether trials end, and with what."""
    failed = [row for row in rows if row.state == "failed"]
    finished = [row for row in rows if row.metric is not None]
    unusable = [row for row in failed if kind(row) in UNUSABLE]
    broken = [row for row in failed if row not in unusable]
    detail = said(broken[0]) if broken else f"{len(rows)} of {MEMBERS * STEPS}"
    yield Finding("trials finish", ok=not broken, detail=detail)
    what = "the final result is a number"
    if unusable:
        yield Finding(what, ok=False, detail=said(unusable[0]))
    elif finished:
        metrics = ", ".join(f"{row.metric:.4g}" for row in finished)
        yield Finding(what, ok=True, detail=metrics)


def about_checkpoints(rows: Sequence[Row], root: Path, watch: Watch) -> Iterator[Finding]:
    """Whether trials save, and load what was saved."""
    finished = [row for row in rows if row.metric is not None]
    if not finished:
        return
    what = "something is saved"
    empty = [row for row in finished if not saved(root / str(row.member) / str(row.step))]
    if empty:
        detail = (
            f"{name(empty[0])} left nothing in its folder: who goes on from it starts "
            "anew. Save there what training needs to go on: model, optimizer, schedules."
        )
        yield Finding(what, ok=False, detail=detail)
        return
    there = list(files(root, finished[0].member, finished[0].step))
    bytes_ = sum(file.stat().st_size for file in there)
    many = "1 file" if len(there) == 1 else f"{len(there)} files"
    yield Finding(what, ok=True, detail=f"{many}, {size(bytes_)}")
    copied = copies(rows, {row.id: row.member for row in rows})
    for what, seen in (
        ("what was saved is loaded", [s for s in watch.seen if s.trial.id not in copied]),
        ("what was copied is loaded", [s for s in watch.seen if s.trial.id in copied]),
    ):
        yield about_loading(what, seen, reads_show=watch.reads_show)


def about_effect(
    rows: Sequence[Row], moved: Sequence[Row], one: Path, other: Path, hparams: Hparams
) -> Finding:
    """Whether other hyperparameters have an effect on a step that begins with a checkpoint.

    Args:
        rows: the trials of a run, of which the third is the first member's second step.
        moved: those of a run of that member alone, whose second step was under `hparams`.
        one: the folder of the one second step's checkpoint.
        other: that of the other's.
        hparams: what was changed to.
    """
    what = "hyperparameters take effect after loading"
    before, after = rows[MEMBERS], moved[-1]
    if rows[0].metric != moved[0].metric:
        why = "the same step twice did not give the same metric"
        return Finding(what, None, f"could not be verified: {why}")
    if len(moved) < STEPS or before.metric is None:
        return Finding(what, None, "no trial came as far as that")
    names = [name for name in hparams if before.hparams.get(name) != hparams[name]]
    if not names:
        return Finding(what, None, "could not be verified: the space holds nothing to change")
    if after.metric != before.metric or dict(after.metrics) != dict(before.metrics):
        return Finding(what, ok=True, detail=f"seen of {', '.join(names)} together")
    changes = ", ".join(
        f"{name} {short(before.hparams.get(name))} and {short(hparams[name])}" for name in names
    )
    same = f"from one checkpoint, a step under {changes} came to the same {before.metric:.6g}"
    if contents(one) != contents(other):
        why = f"{same}; but what was saved differs, so the metric may be too coarse to tell"
        return Finding(what, None, why)
    why = (
        f"{same}, and saved the same. Apply the hyperparameters after the checkpoint is loaded: an "
        "optimizer's state contains those that it was saved under."
    )
    return Finding(what, ok=False, detail=why)


def about_members(together: Sequence[Row], alone: Sequence[Row], *, steady: bool) -> list[Finding]:
    """Whether a member trains beside another in one worker as it does alone.

    Args:
        together: its trials, of a run with the other.
        alone: those of a run without.
        steady: whether the same run twice gives the same metrics.
    """
    what = "members that share a worker do not touch each other"
    if any(row.error is not None for row in (*together, *alone)):
        return []  # it is told of the run before
    if metrics(together) == metrics(alone):
        return [Finding(what, ok=True, detail=f"{len(together)} metrics, to the last bit")]
    if not steady:
        why = "the same run twice did not give the same metrics"
        return [Finding(what, None, f"could not be verified: {why}")]
    pairs = zip(together, alone, strict=True)
    one, other = next(pair for pair in pairs if pair[0].metric != pair[1].metric)
    detail = (
        f"{name(one)} came to {told(one.metric)} beside the other member, and to "
        f"{told(other.metric)} alone: a step of one changes what the other trains. Keep the model "
        "in the state that init returns, not on the trainable or in a module."
    )
    return [Finding(what, ok=False, detail=detail)]


def of_first(rows: Sequence[Row]) -> list[Row]:
    """The trials of the first member."""
    return [row for row in rows if row.member == 0]


def about_state(loaded: Sequence[Row], held: Sequence[Row], *, steady: bool) -> Finding:
    """Whether a state that was saved and loaded trains on as one that stayed in memory does.

    Args:
        loaded: the trials of a run in which every state was.
        held: those of a run in which none was.
        steady: whether the same run twice gives the same metrics.
    """
    what = "a loaded state is the same as a held one"
    for row in held:
        if row.error is not None:
            where = "with states that stay in memory"
            return Finding(what, ok=False, detail=f"{where}, {said(row)}")
    for one, other in zip(loaded, held, strict=False):
        if one.metric is not None and one.metric != other.metric:
            if not steady:
                why = "the same run twice did not give the same metrics"
                return Finding(what, None, f"could not be verified: {why}")
            detail = (
                f"{name(one)} came to {told(one.metric)} from what was loaded, and to "
                f"{told(other.metric)} from what had stayed in memory. Something that training "
                "needs to go on is not saved, or not loaded: the optimizer, a schedule, a position."
            )
            return Finding(what, ok=False, detail=detail)
    return Finding(what, ok=True, detail=f"{len(loaded)} metrics, to the last bit")


def metrics(rows: Sequence[Row]) -> list[float | None]:
    """What trials came to."""
    return [row.metric for row in rows]


def told(metric: float | None) -> str:
    """A metric as people read it."""
    return "nothing" if metric is None else f"{metric:.6g}"


def contents(folder: Path) -> dict[str, bytes]:
    """The user's files below `folder`, by name."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in files(folder)}


def about_loading(what: str, seen: Sequence[Seen], *, reads_show: bool) -> Finding:
    """Whether the trials in `seen` loaded what they were to start from."""
    if not seen:
        return Finding(what, None, "no trial came as far as that")
    if not reads_show:
        why = "this file system does not record when files are read"
        return Finding(what, None, f"could not be verified: {why}")
    lazy = next((one for one in seen if one.read == 0), None)
    if lazy is not None:
        detail = (
            f"trial {lazy.trial.id} (member {lazy.trial.member}, step {lazy.trial.step}) read "
            "nothing of it: it starts anew at each step. Load what is in load_checkpoint_dir, if "
            "there is something, before training."
        )
        return Finding(what, ok=False, detail=detail)
    return Finding(what, ok=True, detail=f"{seen[0].read} of {seen[0].files} files read")


def kind(row: Row) -> str:
    """How a trial failed."""
    return (row.error or "").partition(":")[0]


def name(row: Row) -> str:
    """Which trial it is."""
    return f"trial {row.id} (member {row.member}, step {row.step})"


def said(row: Row) -> str:
    """Which trial failed, and how."""
    return f"{name(row)}: {row.error}"


def size(bytes_: int) -> str:
    """A size as people say it."""
    if bytes_ == 1:
        return "1 byte"
    units = ("bytes", "kB", "MB", "GB")
    power = min((len(str(bytes_)) - 1) // 3, len(units) - 1)
    return f"{bytes_ / 1000**power:.4g} {units[power]}"


# ---------------------------------------------------------------------- access times


def files(root: Path, *inside: int) -> Iterator[Path]:
    """The user's files below a folder; a link leads to what is not theirs, and is left alone."""
    for path in root.joinpath(*map(str, inside)).rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name not in OURS:
            yield path


def make_unread(file: Path) -> None:
    """Set the access time of `file` to long ago.

    That is before its last change, after which a mount with `relatime` records the next read.
    """
    os.utime(file, ns=(0, file.stat().st_mtime_ns))


def was_read(file: Path) -> bool:
    """Whether `file` was read since it was made unread."""
    return file.stat().st_atime_ns > 0


def records_reads(folder: Path) -> bool:
    """Whether the file system of `folder` records that a file is read: tried, not looked up."""
    probe = folder / "probe"
    probe.write_text("?")
    make_unread(probe)
    before = was_read(probe)
    probe.read_text()
    after = was_read(probe)
    probe.unlink()
    return after and not before
