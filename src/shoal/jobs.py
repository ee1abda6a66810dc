"""What the trials of an experiment are, a command or something in Python, and what runs them."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from shoal import trainable
from shoal.checkpoints import Checkpoints
from shoal.config import Config, Ray
from shoal.controller import MakeRunner
from shoal.home import ExperimentError, Folder
from shoal.runners.base import Log, Runner, RunnerError
from shoal.runners.cluster.connection import Cluster, Need
from shoal.runners.crew import Crew
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

    @contextmanager
    def ground(self, config: Config, where: Path | str) -> Iterator[Gpus | Cluster]:
        """Where they can run: the GPUs for them, or a cluster, which is reached and let go of.

        Args:
            config: the experiment.
            where: the folder, or the place in an object store, that all nodes have to have.

        Raises:
            ExperimentError: there are too few GPUs, or the cluster cannot be reached, or one of its
                nodes is not as it has to be.
        """
        try:
            if config.execution is None:
                ground: Gpus | Cluster = places(config)
            else:
                ground = self._cluster(config, config.execution, where)
        except RunnerError as error:
            raise ExperimentError(str(error)) from error
        try:
            yield ground
        finally:
            if isinstance(ground, Cluster):
                ground.disconnect()

    def _cluster(self, config: Config, execution: Ray, where: Path | str) -> Cluster:
        env = dict(execution.runtime_env)
        if self._shipped(execution):
            env.setdefault("working_dir", str(config.directory))
        cluster = Cluster(execution.address, env)
        cluster.connect()
        try:
            cluster.check(where, config.env)
        except BaseException:
            cluster.disconnect()
            raise
        return cluster

    def _shipped(self, execution: Ray) -> bool:
        """Whether the folder in which trials run is copied to the nodes.

        What was given in Python is sent by itself, and its folder is whichever its user was in.
        """
        if execution.ship is None:
            return execution.address is not None and not self.data
        return execution.ship

    def runner(self, folder: Folder, config: Config, ground: Gpus | Cluster) -> MakeRunner:
        """How they are run."""
        if config.trainable is None and isinstance(ground, Gpus):
            return partial(script_runner, folder, config, ground)
        return partial(self._workers, folder, config, ground)

    def _workers(
        self,
        folder: Folder,
        config: Config,
        ground: Gpus | Cluster,
        checkpoints: Checkpoints,
        log: Log,
    ) -> Runner:
        from shoal.runners.crew import InlineCrew, ProcessCrew
        from shoal.runners.workers import WorkerRunner

        module, _, name = (config.trainable or "").partition(":")
        crew: Crew
        if self.inline:
            work = self.work or imported(module, name, config.directory)
            crew = InlineCrew(trainable.made(work))
        elif isinstance(ground, Cluster):
            crew = self._abroad(folder, config, ground, checkpoints, log)
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
                gpus=ground,
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
            # a command is ended by its host, which asks it first
            timeout_s=config.timeout if config.trainable is not None else None,
            every=config.checkpoint_every,
            # and is decided on when there is room for it, as on this machine
            hold=config.hold and config.trainable is not None,
            synchronous=config.synchronous,
            log=log,
        )

    def _abroad(
        self, folder: Folder, config: Config, cluster: Cluster, checkpoints: Checkpoints, log: Log
    ) -> Crew:
        """The workers on a cluster.

        Raises:
            RunnerError: it cannot be reached, or a node of it is of no use.
        """
        from shoal.runners.cluster.crew import RayCrew
        from shoal.runners.cluster.host import Duty
        from shoal.runners.cluster.script import Script

        assert config.execution is not None
        module, _, name = (config.trainable or "").partition(":")
        work: Mapping[str, Any] | Script = {"module": module, "name": name}
        if self.data:
            work = {"pickled": self.data}
        elif config.trainable is None:
            work = Script(
                command=config.command,
                train=config.train,
                warm=config.warm,
                metric=config.metric,
                mode=config.mode,
                seed=config.seed,
                timeout_s=config.timeout,
                preload=tuple(config.preload or ()),
            )
        cluster.connect()
        shipped = self._shipped(config.execution) and cluster.ships
        duty = Duty(
            experiment=folder.id,
            work=work,
            directory=None if shipped else str(config.directory),
            env=config.env,
            argv=sys.argv,
            imports=self._imports(config, module) if module else Imports(),
            checkpoints=str(checkpoints.root),
            store=config.checkpoints if isinstance(config.checkpoints, str) else None,
            hide_gpus=config.gpus_per_trial == 0,
        )
        checkpoints.root.mkdir(parents=True, exist_ok=True)  # hosts look for it
        return RayCrew(cluster, need_of(config), duty, folder=folder, log=log)

    def _imports(self, config: Config, module: str) -> Imports:
        """What workers are to share: what they will import as far as can be told."""
        from shoal.runners.packing import modules_in

        more = tuple(config.preload or ())
        tops = frozenset(name.partition(".")[0] for name in (*more, "cloudpickle"))
        named = modules_in(self.data) if self.data else [module]
        found = [*named, *(name for own in named for name in imports_by(own, config.directory))]
        names = [*more, *(name for name in found if shared(name, tops))]
        load = dict.fromkeys(["runpy", "shoal.runners.worker.worker", "cloudpickle", *names])
        return Imports(tuple(load), (*more, "cloudpickle"), config.directory)


def imports_by(module: str, directory: Path) -> list[str]:
    """What the user's own `module` imports, wherever it was imported from, or in `directory`."""
    from shoal.runners.warm.shared import installed

    file = getattr(sys.modules.get(module), "__file__", None) or module_in(module, directory)
    if file is None or installed(str(file)):
        return []
    path = Path(file)
    up = module.count(".") + (path.name == "__init__.py")
    return imports_of(path, path.parents[up])


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
    return Launch.wanted(config.command, config.train, config.directory, env, warm=config.warm)


def need_of(config: Config) -> Need:
    """What a trial of `config` needs of a node."""
    assert config.execution is not None
    execution = config.execution
    return Need(execution.cpus_per_trial, config.gpus_per_trial or 0.0, execution.resources)


def places(config: Config) -> Gpus:
    """The GPUs of this machine for the trials of `config`.

    Raises:
        RunnerError: there are too few.
    """
    return Gpus(
        config.gpus_per_trial,
        config.gpus,
        config.trials_per_gpu,
        use_active=config.use_active_gpus,
    )
