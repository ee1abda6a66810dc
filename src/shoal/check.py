"""Trying an experiment out: two members, two steps, and a look at what the trials really do.

The mistake that costs most is the quiet one: a trial that does not load what was saved trains from
nothing at each step, and every number looks plausible. So the files' access times are set to long
ago before a trial, and looked at after it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from shoal import experiment, jobs
from shoal.checkpoints import LASTS, WORKERS, saved
from shoal.claims import OWNER, members, owner_of
from shoal.config import Config, changed
from shoal.controller import Observer
from shoal.core.records import Trial
from shoal.core.tuner import Tuner
from shoal.home import ExperimentError, Folder, default_home
from shoal.runners.cluster.connection import Cluster
from shoal.views import Row, copies

MEMBERS = STEPS = 2
OURS = (OWNER, WORKERS, LASTS)  # files that we put beside what is saved
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


def check(config: Config, tell: Callable[[str], None]) -> tuple[list[Finding], float | None]:
    """(what was found out about `config`, the seconds that a trial took).

    Nothing of the user's is touched: experiment and checkpoints are in a folder that is deleted.

    Args:
        config: the experiment.
        tell: is told what is being done.

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
        rows = tried(small(config, root), temporary, watch)
        found = [*cluster, *about_folder(config), *about_trials(rows)]
        found += about_checkpoints(rows, root, watch)
        if config.trainable is not None and any(row.metric is not None for row in rows):
            held = Config.restore(small(config, root).dump() | {"checkpoints": None, "hold": True})
            tell("once more, with states that stay in memory")
            runs = [tried(held, temporary, Observer()) for _ in range(2)]
            found.append(about_state(rows, *runs))
        times = [row.ended - row.started for row in rows if row.ended and row.metric is not None]
    return found, sum(times) / len(times) if times else None


def tried(config: Config, home: str, observer: Observer) -> list[Row]:
    """The trials of a run of `config`.

    Raises:
        KeyboardInterrupt: the user did not want to wait.
    """
    result = experiment.run(config, home=home, observer=observer, verbose=False)
    if result.state == "stopped":
        raise KeyboardInterrupt
    return result.trials()


def small(config: Config, checkpoints: Path) -> Config:
    """`config` cut down to two members and two steps, one of whom copies the other in between."""
    changes = {
        "population": MEMBERS,
        "steps": STEPS,
        "workers": 1,  # what a trial has read is seen before the next one begins
        "max_trials": None,
        "max_duration": None,
        "target": None,
        "retries": 0,
        "synchronous": True,
        "exploit": {"truncation": 1 / MEMBERS},
        "checkpoints": str(checkpoints),
        "keep": "all",
        "hold": False,  # so that what was saved has to be loaded
    }
    return Config.restore(config.dump() | changes)


class Watch(Observer):
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


def about_state(loaded: Sequence[Row], held: Sequence[Row], again: Sequence[Row]) -> Finding:
    """Whether a state that was saved and loaded trains on as one that stayed in memory does.

    Args:
        loaded: the trials of a run in which every state was.
        held: those of a run in which none was.
        again: those of one more of the second kind.
    """
    what = "a loaded state is the same as a held one"
    if [row.metric for row in held] != [row.metric for row in again]:
        why = "the same run twice did not give the same metrics"
        return Finding(what, None, f"could not be verified: {why}")
    for one, other in zip(loaded, held, strict=False):
        if one.metric is not None and one.metric != other.metric:
            detail = (
                f"{name(one)} came to {one.metric:.6g} from what was loaded, and to "
                f"{other.metric:.6g} from what had stayed in memory. Something that training needs "
                "to go on is not saved, or not loaded: the optimizer, a schedule, a position."
            )
            return Finding(what, ok=False, detail=detail)
    return Finding(what, ok=True, detail=f"{len(loaded)} metrics, to the last bit")


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
