"""Wiring: a configuration becomes a tuner, a runner and a store; run, resume, look at the result.

This is the one place that knows implementations by name.
"""

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from json import dumps, loads
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

from shoal import home as homes
from shoal import views
from shoal.checkpoints import CheckpointError, Checkpoints, claim, owner_of
from shoal.compat.nni import config as nni
from shoal.config import Config, parse
from shoal.core.records import Hparams
from shoal.core.tuner import Tuner
from shoal.documents import read
from shoal.home import ExperimentError, Folder, Lock
from shoal.loop import run as loop
from shoal.runners.base import RunnerError
from shoal.runners.gpus import Gpus
from shoal.runners.outcome import Objective
from shoal.runners.script import Launch, ScriptRunner, end_leftovers, environment
from shoal.stores.sqlite import SqliteStore, StoreError

Outcome = Literal["done", "stopped", "failed"]
HEARTBEAT_S = 1.0


class Observer(Protocol):
    """Whoever wants to see an experiment run. Called from the controller: be quick."""

    def began(self, folder: Folder, config: Config) -> None:
        """The experiment is about to run, or to go on."""
        ...

    def changed(self, tuner: Tuner, waiting: str) -> None:
        """About once a second, and whenever a trial has begun or ended."""
        ...

    def said(self, level: str, text: str) -> None:
        """A line was written to the log."""
        ...


class Quiet:
    """Sees nothing."""

    def began(self, folder: Folder, config: Config) -> None:
        pass

    def changed(self, tuner: Tuner, waiting: str) -> None:
        pass

    def said(self, level: str, text: str) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Best:
    """The best trial of an experiment."""

    metric: float
    hparams: Hparams
    checkpoint: Path | None  # None: nothing was saved, or it is not there any more
    schedule: list[dict[str, Any]]  # {"step", "hparams"} along the lineage: what PBT has found
    lineage: list[views.Row]  # from the first ancestor to the trial itself


class Result:
    """What an experiment has come to, so far or for good. Reads the journal when first asked."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.id = folder.id

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The configuration, in the words of the experiment file."""
        config: Mapping[str, Any] = loads(self._meta["config"])
        return config

    @property
    def name(self) -> str:
        """What the experiment was called."""
        return self._meta["name"]

    @cached_property
    def state(self) -> str:
        """One of running, done, stopped, failed, killed (nobody runs it, and nobody ended it)."""
        if self.folder.holder() is not None:
            return "running"
        last = self._sessions[-1] if self._sessions else None
        return "killed" if last is None or last.outcome is None else last.outcome

    @cached_property
    def reason(self) -> str:
        """Why it is in that state; for a running one, what it waits for."""
        if self.state == "running":
            return self._meta.get("waiting", "")
        return (self._sessions[-1].reason or "") if self._sessions else ""

    @property
    def seconds(self) -> float:
        """How long it has run, all sessions together."""
        return sum(session.seconds for session in self._sessions)

    @property
    def checkpoints(self) -> Path:
        """The folder that holds `<member>/<step>`."""
        return checkpoint_root(self.folder, self.config["checkpoints"])

    @cached_property
    def best(self) -> Best | None:
        """The best trial, with its schedule and lineage; None while none has finished."""
        row = views.best(self._rows, self.config["mode"])
        if row is None or row.metric is None:
            return None
        line = views.lineage(self._rows, row)
        checkpoint = None if row.checkpoint is None else Path(row.checkpoint)
        return Best(row.metric, row.hparams, checkpoint, views.schedule(line), line)

    @property
    def progress(self) -> views.Progress:
        """How far it has come."""
        config = self.config
        total = views.total(config["steps"], config["max_trials"], config["population"])
        return views.progress(self._rows, config["population"], total)

    def trials(self) -> list[views.Row]:
        """Every trial, by id."""
        return list(self._rows)

    def export(self) -> list[dict[str, Any]]:
        """Every trial with NNI's columns plus member, step, parent and state."""
        with self._store() as store:
            intermediate = {row.id: store.measured(row.id, row.attempt) for row in self._rows}
        return views.export(self._rows, intermediate)

    @cached_property
    def _meta(self) -> dict[str, str]:
        with self._store() as store:
            return store.meta()

    @cached_property
    def _sessions(self) -> Sequence[Any]:
        with self._store() as store:
            return store.sessions()

    @cached_property
    def _rows(self) -> list[views.Row]:
        alive = self.state == "running"
        with self._store() as store:
            rows = views.table(store.read(), self.config["mode"], alive=alive)
        return [views.located(row, self._checkpoint(row)) for row in rows]

    def _checkpoint(self, row: views.Row) -> str | None:
        path = self.checkpoints / str(row.member) / str(row.step)
        return str(path) if row.state == "finished" and path.is_dir() else None

    @contextmanager
    def _store(self) -> Iterator[SqliteStore]:
        store = self.folder.open()
        try:
            yield store
        finally:
            store.close()


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
    home: str | Path | None = None,
    observer: Observer = Quiet(),
) -> Result:
    """Run an experiment to its end: the model, the schedule that made it, and all that happened.

    Args:
        config: the experiment, or the file that describes it.
        name: what to call it, in place of what `config` says; so with `seed`, `steps`, `workers`.
        seed: of all decisions.
        steps: how many steps each member does.
        workers: how many trials run at a time.
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
    given = {"name": name, "seed": seed, "steps": steps, "workers": workers}
    changes = {key: value for key, value in given.items() if value is not None}
    config = Config.restore({**config.dump(), **changes}) if changes else config
    gpus = places(config)
    root = Path(home).expanduser().absolute() if home else config.home or homes.default_home()
    folder = homes.create(root, lambda partial: prepare(partial, config))
    return drive(folder, config, gpus, observer, notes)


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
    given = {
        "steps": steps, "workers": workers, "max_trials": max_trials,
        "max_duration": max_duration, "target": target,
    }  # fmt: skip
    changes = {key: value for key, value in given.items() if value is not None}
    config = Config.restore({**Result(folder).config, **changes})
    gpus = places(config)
    return drive(folder, config, gpus, observer, [])


def open(experiment: str | None = None, *, home: str | Path | None = None) -> Result:  # noqa: A001
    """What an experiment has come to, by id, name or folder; None: the newest.

    Raises:
        ExperimentError: there is none.
    """
    return Result(homes.find(home_of(home), experiment))


def remove(experiment: str, *, home: str | Path | None = None) -> None:
    """Delete an experiment: its folder, and its checkpoints wherever they are.

    Raises:
        ExperimentError: there is none, or a controller runs it.
    """
    from shoal.checkpoints import release

    folder = homes.find(home_of(home), experiment)
    root = Result(folder).checkpoints
    with Lock(folder):
        release(root, folder.id)
        shutil.rmtree(folder.path)


def home_of(home: str | Path | None) -> Path:
    """`home`, or where experiments are kept by default."""
    return homes.default_home() if home is None else Path(home).expanduser().absolute()


def checkpoint_root(folder: Folder, configured: str | Path | None) -> Path:
    """Where the checkpoints of the experiment in `folder` are."""
    return folder.checkpoints if configured is None else Path(configured)


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
    if config.checkpoints is not None:
        owner = owner_of(config.checkpoints)
        if owner is not None and Folder(folder.path.parents[1] / owner).holder() is not None:
            raise ExperimentError(
                f"{config.checkpoints} is in use by experiment {owner}, which runs"
            )
        try:
            claim(config.checkpoints, folder.id)
        except CheckpointError as error:
            raise ExperimentError(str(error)) from error
    meta = {
        "id": folder.id,
        "name": config.name,
        "created": repr(time.time()),
        "config": dumps(config.dump()),
    }
    SqliteStore.create(folder.journal, meta).close()


def tuner_of(config: Config, journal: SqliteStore) -> Tuner:
    """The tuner of `config`, as far as `journal` has come."""
    return Tuner(
        config.space,
        population=config.population,
        steps=config.steps,
        trials=config.max_trials,
        exploit=config.exploit,
        explore=config.explore,
        synchronous=config.synchronous,
        seed=config.seed,
        retries=config.retries,
        journal=(entry.record for entry in journal.read()),
    )


def drive(
    folder: Folder, config: Config, gpus: Gpus, observer: Observer, notes: Sequence[str]
) -> Result:
    """Be the controller of the experiment in `folder` until it is done, stuck or stopped."""
    with Lock(folder):
        store = SqliteStore(folder.journal)
        try:
            end_leftovers(folder)
            before_s = sum(session.seconds for session in store.sessions())
            store.set_meta("config", dumps(config.dump()))
            store.begin(os.getpid(), socket.gethostname())
            outcome, reason = _drive(folder, config, gpus, observer, notes, store, before_s)
            store.end(outcome, reason)
        except (RunnerError, StoreError) as error:
            store.end("failed", str(error))
            raise ExperimentError(str(error)) from error
        finally:
            store.close()
    return Result(folder)


def _drive(
    folder: Folder,
    config: Config,
    gpus: Gpus,
    observer: Observer,
    notes: Sequence[str],
    store: SqliteStore,
    before_s: float,
) -> tuple[Outcome, str]:
    def log(level: str, text: str) -> None:
        store.log(level, text)
        observer.said(level, text)

    observer.began(folder, config)
    for note in notes:
        log("warning", note)
    tuner = tuner_of(config, store)
    checkpoints = Checkpoints(
        checkpoint_root(folder, config.checkpoints), tuner.population, config.keep
    )
    env = environment(folder, config.directory)
    launch = launch_of(config, env)
    runner = ScriptRunner(
        launch,
        folder,
        checkpoints,
        Objective(config.metric, config.mode),
        slots=config.workers,
        directory=config.directory,
        env=env,
        gpus=gpus,
        seed=config.seed,
        timeout_s=config.timeout,
        preload=config.preload,
        log=log,
    )
    watch = Watch(config, runner, store, observer, log, before_s)
    try:
        with watch.signals():
            stopped = loop(tuner, runner, store, checkpoints, watch)
    except StopNow as stop:
        stopped = str(stop)
    finally:
        runner.close()
    observer.changed(tuner, "")
    outcome, reason = conclude(tuner, watch.interrupted, stopped)
    if outcome == "failed":
        reason += last_failure(store)
    log("error" if outcome == "failed" else "info", f"{outcome}: {reason}" if reason else outcome)
    return outcome, reason


def launch_of(config: Config, env: Mapping[str, str]) -> Launch:
    """How the trials of `config` are started."""
    if config.train is not None:
        launch = Launch.function(config.train, config.directory)
    else:
        launch = Launch.of(config.command or "", config.directory, env)
    return launch if config.warm else launch.cold


def conclude(tuner: Tuner, interrupted: bool, stopped: str | None) -> tuple[Outcome, str]:
    """(outcome, reason) of a loop that has returned."""
    if tuner.done:
        return "done", ""
    if interrupted:
        return "stopped", stopped or ""
    if (stuck := tuner.stuck) is not None:
        return "failed", stuck
    return "done", stopped or ""


def last_failure(store: SqliteStore) -> str:
    """What the trial that failed last had to say."""
    failed = [row for row in views.table(store.read(), "max", alive=False) if row.error]
    last = max(failed, key=lambda row: row.ended or 0.0, default=None)
    return "" if last is None else f"; the last was trial {last.id}, {last.error}"


class StopNow(Exception):  # noqa: N818 (no error: somebody wants it)
    """The controller is to end at once, and what runs with it."""


class Watch:
    """Looks on while the loop runs: limits, signals, signs of life, and who wants to see."""

    def __init__(
        self,
        config: Config,
        runner: ScriptRunner,
        store: SqliteStore,
        observer: Observer,
        log: Callable[[str, str], None],
        before_s: float,
    ) -> None:
        self.interrupted = False
        self._config, self._runner, self._store = config, runner, store
        self._observer, self._log = observer, log
        self._began = time.monotonic() - before_s
        self._now = False
        self._told = False
        self._beat = 0.0
        self._seen = (-1, -1)

    def __call__(self, tuner: Tuner) -> str | None:
        """Why no further trial may begin, or None.

        Raises:
            StopNow: nor may those go on that run.
        """
        population = tuner.population
        now, seen = time.monotonic(), (len(population.trials), len(population.running))
        if seen != self._seen or now > self._beat + HEARTBEAT_S:
            waiting = self._runner.waiting_for or waits_for(tuner)
            if now > self._beat + HEARTBEAT_S:
                self._store.seen()
                self._store.set_meta("waiting", waiting)
                self._beat = now
            self._observer.changed(tuner, waiting)
            self._seen = seen
        if self._now:
            raise StopNow("interrupted; what was running will be run again")
        why = self._limit(tuner, now)
        if why is not None and not self._told:
            self._told = True
            self._log("info", f"{why}: no new trials; {len(population.running)} still run")
        return why

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Let Ctrl-C end the run in order, a second one at once, and so SIGTERM and SIGHUP."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._stop) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._now = self._now or self.interrupted or number != signal.SIGINT
        self.interrupted = True
        self._runner.wake()

    def _limit(self, tuner: Tuner, now: float) -> str | None:
        config, best = self._config, tuner.population.best
        if self.interrupted:
            return "interrupted"
        if config.max_duration is not None and now - self._began >= config.max_duration:
            return f"the time limit of {config.max_duration:g} s was reached"
        if config.target is not None and best is not None:
            objective = Objective(config.metric, config.mode)
            if best.score >= objective.score(config.target):
                return f"the target of {config.target:g} was reached"
        return None


def waits_for(tuner: Tuner) -> str:
    """What keeps an experiment from being further than it is."""
    running = tuner.population.running
    if not running:
        return ""
    steps = sorted({trial.step for trial in running.values()})
    which = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    many = "1 trial" if len(running) == 1 else f"{len(running)} trials"
    return f"{many} of {which} to end"
