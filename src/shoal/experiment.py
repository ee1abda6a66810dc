"""An experiment from outside: read its file, run it, resume it, remove it."""

import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from json import dumps
from pathlib import Path
from typing import Any

from shoal import home as homes
from shoal.checkpoints import CheckpointError, Checkpoints, claim, release
from shoal.compat.nni import config as nni
from shoal.config import Config, parse
from shoal.controller import MakeRunner, Observer, Quiet, drive
from shoal.documents import read
from shoal.home import ExperimentError, Folder, locked
from shoal.result import Result, home_of
from shoal.runners.base import Log, Runner, RunnerError
from shoal.runners.gpus import Gpus
from shoal.runners.launch import Launch, environment
from shoal.runners.outcome import Objective
from shoal.runners.script import ScriptRunner
from shoal.stores.sqlite import SqliteStore


def read_config(path: str | Path) -> tuple[Config, list[str]]:
    """(the experiment that the file describes, what the user should know about it).

    The file is in the native form, or one of NNI's.

    Raises:
        ConfigError: with every mistake there is.
    """
    path = Path(path).expanduser()
    mapping = read(path)
    folder = path.absolute().parent
    if nni.is_nni(mapping):
        return nni.parse(mapping, folder, str(path))
    return parse(mapping, folder, str(path)), []


def run(
    config: Config | str | Path,
    *,
    name: str | None = None,
    seed: int | None = None,
    steps: int | None = None,
    workers: int | None = None,
    gpus_per_trial: float | None = None,
    env: Mapping[str, str] | None = None,
    home: str | Path | None = None,
    observer: Observer = Quiet(),
) -> Result:
    """Run an experiment to its end: the model, the schedule that made it, and all that happened.

    Args:
        config: the experiment, or the file that describes it.
        name: what to call it, in place of what `config` says; so with all down to
            `gpus_per_trial`.
        seed: of all decisions.
        steps: how many steps each member does.
        workers: how many trials run at a time.
        gpus_per_trial: 0 hides the GPUs from trials.
        env: variables for their environment, besides those that `config` names.
        home: where experiments are kept; by default the file's `home`, $SHOAL_HOME, or
            ~/shoal-experiments.
        observer: whoever wants to watch.

    Raises:
        ConfigError: the file is wrong; every mistake is told.
        ExperimentError: it cannot begin, and nothing is left of the attempt.
    """
    notes: list[str] = []
    if not isinstance(config, Config):
        config, notes = read_config(config)
    changes = {"name": name, "seed": seed, "steps": steps, "workers": workers}
    config = fitted(changed(config, changes), gpus_per_trial, env)
    gpus = places(config)
    given = None if home is None else home_of(home)
    root = given or config.home or homes.default_home()
    folder = homes.create(root, lambda partial: prepare(partial, config))
    if given is None and root != homes.default_home():
        homes.link(folder, homes.default_home())
    drive(folder, config, trials_of(folder, config, gpus), observer, notes)
    return Result(folder)


def resume(
    experiment: str | None = None,
    *,
    steps: int | None = None,
    workers: int | None = None,
    max_trials: int | None = None,
    max_duration: float | str | None = None,
    target: float | None = None,
    home: str | Path | None = None,
    observer: Observer = Quiet(),
) -> Result:
    """Go on with an experiment that was stopped, killed or has ended, as if it had not been.

    Args:
        experiment: its id, name or folder; None: the newest.
        steps: a new limit, in place of the one it had; so with all that follow.
        workers: how many trials run at a time.
        max_trials: how many trials are decided in all.
        max_duration: seconds, or text such as "10m", in all.
        target: the metric at which to stop.
        home: where experiments are kept.
        observer: whoever wants to watch.

    Raises:
        ExperimentError: there is no such experiment, or another controller runs it.
    """
    folder = homes.find(home_of(home), experiment)
    limits = {
        "steps": steps, "workers": workers, "max_trials": max_trials,
        "max_duration": max_duration, "target": target,
    }  # fmt: skip
    config = changed(Config.restore(Result(folder).config), limits)
    own(folder.id, folder.path.parent, config, new=False)
    drive(folder, config, trials_of(folder, config, places(config)), observer, [])
    return Result(folder)


def remove(experiment: str, *, home: str | Path | None = None) -> None:
    """Delete an experiment: its folder, and its checkpoints wherever they are.

    Raises:
        ExperimentError: there is none, or a controller runs it.
    """
    folder = homes.find(home_of(home), experiment)
    with locked(folder):
        with suppress(ExperimentError):  # a journal that cannot be read names no checkpoints
            result = Result(folder)
            release(result.checkpoints, folder.id, result.config["population"])
        shutil.rmtree(folder.path)
    link = home_of(home) / folder.id
    if link.is_symlink():
        link.unlink()


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with those of `changes` that are not None.

    `steps` and `max_trials` limit the same thing: whoever gives one means it and not the other.

    Raises:
        ConfigError: a change is no good.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    if not given:
        return config
    if ("steps" in given) != ("max_trials" in given):
        given = {"steps": None, "max_trials": None} | given
    fields = {name: getattr(config, name) for name in type(config).model_fields}
    return Config(**fields | given)


def fitted(config: Config, gpus_per_trial: float | None, env: Mapping[str, str] | None) -> Config:
    """`config` for this machine: other GPUs for each trial, and further variables.

    Raises:
        ConfigError: they are no good.
    """
    variables = None if env is None else {**config.env, **env}
    return changed(config, {"gpus_per_trial": gpus_per_trial, "env": variables})


def trials_of(folder: Folder, config: Config, gpus: Gpus) -> MakeRunner:
    """How the trials of `config` are run."""

    def make(checkpoints: Checkpoints, log: Log) -> Runner:
        env = environment(folder, config.directory, config.env)
        return ScriptRunner(
            launch_of(config, env),
            folder,
            checkpoints,
            Objective(config.metric, config.mode),
            slots=config.workers,
            directory=config.directory,
            env=env,
            gpus=gpus,
            seed=config.seed,
            timeout_s=config.timeout,
            preload=config.preload or (),
            log=log,
        )

    return make


def launch_of(config: Config, env: Mapping[str, str]) -> Launch:
    """How the trials of `config` are started."""
    if config.train is not None:
        launch = Launch.function(config.train, config.directory)
    else:
        launch = Launch.of(config.command or "", config.directory, env)
    return launch if config.warm else launch.cold


def places(config: Config) -> Gpus:
    """The GPUs for the trials of `config`.

    Raises:
        ExperimentError: there are too few.
    """
    try:
        return Gpus(
            config.gpus_per_trial,
            config.gpus,
            config.trials_per_gpu,
            use_active=config.use_active_gpus,
        )
    except RunnerError as error:
        raise ExperimentError(str(error)) from error


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
            claim(config.checkpoints, id, home, homes.exists, new=new)
        except CheckpointError as error:
            raise ExperimentError(str(error)) from error
