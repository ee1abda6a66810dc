"""What the trials of an experiment are, a command or something in Python, and what runs them."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from shoal import trainable
from shoal.checkpoints import Checkpoints
from shoal.config import Config
from shoal.controller import MakeRunner
from shoal.home import ExperimentError, Folder
from shoal.runners.base import Log, Runner, RunnerError
from shoal.runners.forkserver import Imports
from shoal.runners.gpus import Gpus
from shoal.runners.launch import Launch, environment, module_in
from shoal.runners.outcome import Objective
from shoal.runners.preload import imports_of
from shoal.runners.script import ScriptRunner
from shoal.runners.warm.libraries import shared
from shoal.trainable import Trainable, Trial

# what is trained: a function of a trial, a trainable, or a class of them
Work: TypeAlias = Callable[[Trial], Any] | Trainable[Any] | type[Trainable[Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """What the trials of an experiment are."""

    work: Work | None = None  # what was given in Python
    data: bytes = b""  # that, as it is sent to workers
    inline: bool = False

    @classmethod
    def of(cls, config: Config, work: Work | None, *, inline: bool) -> "Job":
        """What `config` and `work`, which was given with it, are to be trained as.

        Raises:
            ExperimentError: there is nothing to be trained, or it cannot be sent to a worker.
        """
        if config.trainable is None:
            if work is not None or inline:
                raise ExperimentError(
                    "this experiment runs a command: it needs no function or trainable, and "
                    "cannot run inline"
                )
            return cls()
        if work is None and not importable(config.trainable):
            raise ExperimentError(
                f"what it trains was given in Python, as {config.trainable}: go on from there, "
                "with shoal.resume(train, name)"
            )
        if work is not None and (why := trainable.problem(work)) is not None:
            raise ExperimentError(why)
        if work is None or inline:
            return cls(work, inline=inline)
        from shoal.runners.packing import PackingError, packed

        try:
            return cls(work, packed(work))
        except PackingError as error:
            raise ExperimentError(str(error)) from error

    def runner(self, folder: Folder, config: Config, gpus: Gpus) -> MakeRunner:
        """How they are run."""
        if config.trainable is None:
            return partial(script_runner, folder, config, gpus)
        return partial(self._workers, folder, config, gpus)

    def _workers(
        self, folder: Folder, config: Config, gpus: Gpus, checkpoints: Checkpoints, log: Log
    ) -> Runner:
        from shoal.runners.crew import Crew, InlineCrew, ProcessCrew
        from shoal.runners.workers import WorkerRunner

        assert config.trainable is not None
        module, _, name = config.trainable.partition(":")
        crew: Crew
        if self.inline:
            work = self.work or imported(module, name, config.directory)
            crew = InlineCrew(trainable.made(work))
        else:
            how = {"module": module, "name": name}
            if self.data:
                file = folder.path / "work.pickle"
                file.write_bytes(self.data)
                how = {"file": str(file)}
            crew = ProcessCrew(
                how,
                folder=folder,
                directory=config.directory,
                env=environment(folder, config.directory, config.env),
                gpus=gpus,
                imports=self._imports(config, module),
                log=log,
            )
        return WorkerRunner(
            crew,
            folder=folder,
            checkpoints=checkpoints,
            objective=Objective(config.metric, config.mode),
            workers=1 if self.inline else config.workers,
            population=config.population,
            seed=config.seed,
            timeout_s=config.timeout,
            every=config.checkpoint_every,
            hold=config.hold,
            synchronous=config.synchronous,
            log=log,
        )

    def _imports(self, config: Config, module: str) -> Imports:
        """What workers are to share: what they will import as far as can be told."""
        from shoal.runners.packing import modules_in

        more = tuple(config.preload or ())
        tops = frozenset(name.partition(".")[0] for name in (*more, "cloudpickle"))
        file = module_in(module, config.directory)
        text = imports_of(file, config.directory) if file is not None and not self.data else []
        names = [*more, *(name for name in (*modules_in(self.data), *text) if shared(name, tops))]
        load = dict.fromkeys(["runpy", "shoal.runners.worker.worker", "cloudpickle", *names])
        return Imports(tuple(load), (*more, "cloudpickle"), config.directory)


def importable(name: str) -> bool:
    """Whether another process can import what `module:name` names."""
    module, _, name = name.partition(":")
    return module != "__main__" and "<" not in name


def imported(module: str, name: str, directory: Path) -> Any:
    """What `name` in `module` is.

    Raises:
        ExperimentError: there is none, or it cannot be trained.
    """
    sys.path.insert(0, str(directory))
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ExperimentError(f"{module}:{name} cannot be imported: {error}") from error
    finally:
        sys.path.remove(str(directory))
    if (why := trainable.problem(found)) is not None:
        raise ExperimentError(why)
    return found


def script_runner(
    folder: Folder, config: Config, gpus: Gpus, checkpoints: Checkpoints, log: Log
) -> Runner:
    """Runs the command of `config`."""
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
