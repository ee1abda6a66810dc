"""An experiment from outside: read its file, run it, resume it, remove it."""

import shutil
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from json import dumps
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

from shoal import home as homes
from shoal import trackers, trainable
from shoal.claims import CheckpointError, claim, claim_bucket, release, release_bucket
from shoal.compat.nni import config as nni
from shoal.config import LIMITS, Config, ConfigError, Problem, Ray, changed, parse
from shoal.controller import MakeRunner, Observer, drive
from shoal.core.exploit import Exploit
from shoal.core.explore import Explore
from shoal.core.space import Space
from shoal.documents import read, unknown
from shoal.home import ExperimentError, Folder, locked
from shoal.jobs import Job, Work
from shoal.notation import dump_space, is_number, parse_space
from shoal.result import Result, home_of
from shoal.stores.place import shaky
from shoal.stores.sqlite import SqliteStore
from shoal.trackers.following import Following

Execution: TypeAlias = Ray | Mapping[str, Any] | Literal["local", "ray"] | None
FITTED = {"gpus_per_trial", "env"}


def read_config(path: str | Path, *, cluster: bool = False) -> tuple[Config, list[str]]:
    """(the experiment that the file describes, what the user should know about it).

    The file is in the native form, or one of NNI's; that may be for another platform, if its
    trials are to run on a cluster.

    Raises:
        ConfigError: with every mistake there is.
    """
    path = Path(path).expanduser()
    mapping = read(path)
    folder = path.absolute().parent
    if nni.is_nni(mapping):
        return nni.parse(mapping, folder, str(path), cluster=cluster)
    return parse(mapping, folder, str(path)), bare_ranges(mapping.get("space"))


class Words(TypedDict, total=False):
    """The words of the experiment file, which `Config` explains. None: as if not given."""

    name: str | None
    directory: str | Path
    space: Mapping[str, Any]
    population: int
    control: int | None
    initial: Sequence[Mapping[str, Any]] | None
    steps: int | None
    workers: int | None
    metric: str
    mode: Literal["max", "min"]
    synchronous: bool
    seed: int | None
    exploit: Exploit | Mapping[str, Any]
    explore: Explore | Mapping[str, Any]
    checkpoints: str | Path
    checkpoint_every: Literal["auto"] | int
    hold: bool
    keep: Literal["live", "all", "lineage"]
    retries: int | None
    timeout: float | str
    gpus_per_trial: float | None
    gpus_per_worker: float | None
    gpus: list[int]
    trials_per_gpu: int
    use_active_gpus: bool
    preload: list[str]
    max_trials: int
    max_duration: float | str
    target: float
    env: Mapping[str, str] | None
    execution: Execution
    track: list[str] | None


def run(
    what: Config | str | Path | Work,
    *,
    home: str | Path | None = None,
    observer: Observer = Observer(),
    verbose: bool = True,
    inline: bool = False,
    **words: Unpack[Words],
) -> Result:
    """Run an experiment to its end: the model, the schedule that made it, and all that happened.

    Args:
        what: what to train: a function of a trial, or a trainable (see `shoal.Trainable`); or an
            experiment, or the file that describes one.
        home: where experiments are kept; by default the file's `home`, $SHOAL_HOME, or
            ~/shoal-experiments.
        observer: whoever wants to watch, see `shoal.Observer`.
        verbose: whether to show how it goes, in a terminal or notebook.
        inline: train in this process, one step after the other, for debugging.
        words: those of the experiment file; of an experiment, in place of what it says.
            `gpus_per_worker` is another name for `gpus_per_trial`; 0 hides the GPUs.

    Raises:
        ConfigError: the file or a word is wrong; every mistake is told.
        ExperimentError: it cannot begin, and nothing is left of the attempt.
    """
    config, work, notes = understood(what, spelled(words))
    return driven(
        config, work, home=home, observer=observer, verbose=verbose, inline=inline, notes=notes
    )


def understood(
    what: Config | str | Path | Work, given: Mapping[str, Any]
) -> tuple[Config, Work | None, list[str]]:
    """(the experiment, what it trains if that is in Python, what the user should know of it).

    Raises:
        ConfigError: the file or a word is wrong; every mistake is told.
    """
    if isinstance(what, Config):
        return reworded(what, given), None, []
    if isinstance(what, str | Path):
        config, notes = read_config(what, cluster=on_cluster(given.get("execution")))
        return reworded(config, given), None, [*notes, *bare_ranges(given.get("space"))]
    return described(what, given), what, bare_ranges(given.get("space"))


def driven(
    config: Config,
    work: Work | None,
    *,
    home: str | Path | None,
    observer: Observer,
    verbose: bool,
    inline: bool,
    notes: Sequence[str],
) -> Result:
    """As `run`, of `config`, which trains `work` if that was given in Python."""
    job = Job.of(config, work, inline=inline)
    trackers.wanted(config)
    chosen = None if home is None else home_of(home)
    root = chosen or config.home or homes.default_home()
    with job.ground(config, config.checkpoints or root) as ground:
        folder = homes.create(root, lambda partial: prepare(partial, config))
        if chosen is None and root != homes.default_home():
            homes.link(folder, homes.default_home())
        make_runner = job.runner(folder, config, ground)
        notes = [*notes, *filter(None, [shaky(root), idle(config), endless(config)])]
        return watched(folder, config, make_runner, observer, notes, verbose=verbose)


def resume(
    what: str | Work | None = None,
    experiment: str | None = None,
    *,
    space: Mapping[str, Any] | None = None,
    steps: int | None = None,
    workers: int | None = None,
    max_trials: int | None = None,
    max_duration: float | str | None = None,
    target: float | None = None,
    execution: Execution = None,
    home: str | Path | None = None,
    observer: Observer = Observer(),
    verbose: bool = True,
    inline: bool = False,
) -> Result:
    """Go on with an experiment that was stopped, killed or has ended, as if it had not been.

    Args:
        what: the function or trainable that it trains, where it was begun with one that cannot be
            imported; else the next argument.
        experiment: its id, name or folder; None: the newest.
        space: what the hyperparameters may be, to be sure that it is the same.
        steps: a new limit, in place of the one it had; so with all that follow.
        workers: how many trials run at a time.
        max_trials: how many trials are decided in all.
        max_duration: seconds, or text such as "10m", in all.
        target: the metric at which to stop.
        execution: where trials run from now on, as for `run`.
        home: where experiments are kept.
        observer: whoever wants to watch.
        verbose: whether to show how it goes.
        inline: train in this process, one step after the other.

    Raises:
        ExperimentError: there is no such experiment, another controller runs it, it has another
            space, or what it trains was not given.
    """
    work: Work | None = None
    if isinstance(what, str) or what is None:
        experiment = what if experiment is None else experiment
    else:
        work = what
    folder = homes.find(home_of(home), experiment)
    limits = {
        "steps": steps, "workers": workers, "max_trials": max_trials,
        "max_duration": max_duration, "target": target,
    }  # fmt: skip
    before = Config.restore(Result(folder).config)
    config = changed(before, limits | {"execution": moved(before, execution)})
    if space is not None and dump_space(parsed(space)) != dump_space(config.space):
        raise ExperimentError(
            f"experiment {folder.id} has another space: {dump_space(config.space)}. Leave `space` "
            "out to go on with that, or begin a new experiment."
        )
    job = Job.of(config, work, inline=inline)
    own(folder.id, folder.path.parent, config, new=False)
    with job.ground(config, config.checkpoints or folder.path) as ground:
        make_runner = job.runner(folder, config, ground)
        return watched(folder, config, make_runner, observer, [], verbose=verbose)


def remove(experiment: str, *, home: str | Path | None = None) -> None:
    """Delete an experiment: its folder, and its checkpoints wherever they are.

    Raises:
        ExperimentError: there is none, or a controller runs it.
    """
    folder = homes.find(home_of(home), experiment)
    with locked(folder):
        url = None
        with suppress(ExperimentError):  # a journal that cannot be read names no checkpoints
            result = Result(folder)
            release(result.checkpoints, folder.id, result.config["population"])
            url = result.config["checkpoints"]
        if "://" in str(url):
            let_go(str(url), folder.id)
        shutil.rmtree(folder.path)
    link = home_of(home) / folder.id
    if link.is_symlink():
        link.unlink()


def let_go(url: str, id: str) -> None:
    """Delete the checkpoints of an experiment that are in an object store.

    Raises:
        ExperimentError: it cannot be reached.
    """
    try:
        release_bucket(url, id)
    except CheckpointError as error:
        raise ExperimentError(str(error)) from error


def fitted(config: Config, gpus_per_trial: float | None, env: Mapping[str, str] | None) -> Config:
    """`config` for this machine: other GPUs for each trial, and further variables.

    Raises:
        ConfigError: they are no good.
    """
    variables = None if env is None else {**config.env, **env}
    return changed(config, {"gpus_per_trial": gpus_per_trial, "env": variables})


def parsed(space: Mapping[str, Any]) -> Space:
    """`space`, whichever way it was written."""
    return space if isinstance(space, Space) else parse_space(space)


def watched(
    folder: Folder,
    config: Config,
    make_runner: MakeRunner,
    observer: Observer,
    notes: Sequence[str],
    *,
    verbose: bool,
) -> Result:
    """What came of an experiment that was driven while somebody watched, us too if `verbose`."""
    followers = [Following(what) for what in trackers.wanted(config)]
    if not verbose:
        drive(folder, config, make_runner, [observer, *followers], notes)
        result = Result(folder)
        if not observer.shows and (trouble := troubled(result)):
            warnings.warn(trouble, ShoalWarning, stacklevel=_ours())
        return result
    from shoal.show import live, tables

    watcher = live.watcher()
    with watcher.watching():
        drive(folder, config, make_runner, [watcher, observer, *followers], notes)
    result = Result(folder)
    again = [f"shoal.resume({folder.id!r}) goes on."] if result.state == "stopped" else []
    watcher.conclude([*tables.ended(result), *again, "", *tables.winner(result)])
    return result


def _ours() -> int:
    """How many frames of the stack, from the caller's on, are of this file: a `stacklevel`."""
    frame, many = sys._getframe(1), 1  # noqa: SLF001 (as `warnings` itself)
    while (above := frame.f_back) is not None and frame.f_code.co_filename == __file__:
        frame, many = above, many + 1
    return many


class ShoalWarning(UserWarning):
    """Something in a run went wrong that nobody was shown."""


def troubled(result: Result) -> str:
    """What went wrong in a run that has ended, in a sentence; empty: nothing did."""
    which = f"experiment {result.id}"
    parts = [f"it failed: {result.reason}"] if result.state == "failed" else []
    if failed := result.tally.failed:
        parts.append(f"{failed:,} of {result.tally.trials:,} trials failed: {result.failures}")
    return f"{which}: {'; '.join(parts)}" if parts else ""


def spelled(words: Words) -> dict[str, Any]:
    """`words` as `Config` spells them."""
    given = {word: value for word, value in words.items() if value is not None}
    if "gpus_per_worker" in given:
        given["gpus_per_trial"] = given.pop("gpus_per_worker")
    return given


def described(work: Work, words: Mapping[str, Any]) -> Config:
    """The experiment that trains `work`.

    Raises:
        ConfigError: with every mistake there is.
    """
    if (why := trainable.problem(work)) is not None:
        raise ConfigError([Problem("", why)])
    name = trainable.name_of(work)
    named = {"name": name.rpartition(":")[2].rpartition(".")[2], "trainable": name}
    return Config(**{**named, **words})


def reworded(config: Config, words: Mapping[str, Any]) -> Config:
    """`config` with `words` in place of what it says; variables are added to those it has.

    Raises:
        ConfigError: a word is no good.
    """
    rest = {word: value for word, value in words.items() if word not in FITTED}
    fields = type(config).model_fields
    if wrong := sorted(rest.keys() - fields):
        raise ConfigError([Problem("", unknown(word, fields)) for word in wrong])
    rest |= {"execution": moved(config, rest.get("execution"))}
    return fitted(changed(config, rest), words.get("gpus_per_trial"), words.get("env"))


def idle(config: Config) -> str | None:
    """Which words of `config` have no effect on a cluster, where it runs on one; None: all have."""
    if config.execution is None:
        return None
    words = ("gpus", "trials_per_gpu", "use_active_gpus")
    said = [word for word in words if getattr(config, word) != Config.model_fields[word].default]
    if not said:
        return None
    return f"{', '.join(said)}: no effect on a cluster, where Ray hands out GPUs (gpus_per_trial)"


def endless(config: Config) -> str | None:
    """That nothing ends the experiment `config`; None: something does."""
    if any(getattr(config, name) is not None for name in LIMITS if name != "workers"):
        return None
    return (
        "no limit is given (steps, max_trials, max_duration, target): it goes on until Ctrl-C, and "
        "can be resumed from there"
    )


def bare_ranges(space: object) -> list[str]:
    """Hints at lists in `space`, as a user wrote it, that look like ranges and are constants."""
    if not isinstance(space, Mapping) or isinstance(space, Space):
        return []
    pairs = {
        name: domain
        for name, domain in space.items()
        if isinstance(domain, list | tuple) and len(domain) == 2 and all(map(is_number, domain))
    }
    return [
        f"{name} is the list [{low!r}, {high!r}] itself in every trial: write a range as "
        f"{{{kind}: [{low!r}, {high!r}]}}, in Python shoal.{kind.capitalize()}({low!r}, {high!r})"
        for name, (low, high) in pairs.items()
        if low < high
        for kind in ["int" if isinstance(low, int) and isinstance(high, int) else "float"]
    ]


def on_cluster(execution: Execution) -> bool:
    """Whether that is not this machine."""
    if isinstance(execution, Mapping):
        return execution.get("engine") == "ray"
    return execution is not None and execution != "local"


def moved(config: Config, execution: Execution) -> Execution:
    """Where to run `config` from now on: a mapping adds to what it says of the same engine."""
    before = config.execution
    if before is None or not isinstance(execution, Mapping):
        return execution
    same = execution.get("engine", before.engine) == before.engine
    return {**before.model_dump(), **execution} if same else execution


def prepare(folder: Folder, config: Config) -> None:
    """Make the files of a new experiment, and claim the folder for its checkpoints.

    Raises:
        ExperimentError: trials could not run, or their checkpoints would meet others.
    """
    if not config.directory.is_dir():
        raise ExperimentError(f"trials are to run in {config.directory}, which is not a folder")
    meta = {
        "id": folder.id,
        "name": config.name,
        "created": repr(time.time()),
        "config": dumps(config.dump()),
    }
    SqliteStore.create(folder.journal, meta).close()
    own(folder.id, folder.path.parents[1], config, new=True)  # last: nothing fails after it


def own(id: str, home: Path, config: Config, *, new: bool) -> None:
    """See that the folder for checkpoints, where `config` names one, is this experiment's.

    Raises:
        ExperimentError: it is not.
    """
    if config.checkpoints is not None:
        try:
            if isinstance(config.checkpoints, str):
                claim_bucket(config.checkpoints, id, home, homes.exists, new=new)
            else:
                claim(config.checkpoints, id, home, homes.exists, new=new)
        except CheckpointError as error:
            raise ExperimentError(str(error)) from error
