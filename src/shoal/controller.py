"""The one process that drives an experiment: lock, limits, signals, signs of life."""

import gc
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from json import dumps
from types import FrameType
from typing import Any, Literal, TypeAlias

from shoal import views
from shoal.buckets import Bucket
from shoal.checkpoints import Checkpoints
from shoal.config import LIMITS, Config, ConfigError, changed
from shoal.core.population import ProtocolError
from shoal.core.records import Failed, Record, Seen
from shoal.core.tuner import Tuner
from shoal.documents import shown
from shoal.durable import InThread
from shoal.failures import Failures
from shoal.home import ExperimentError, Folder, locked, trouble
from shoal.loop import run as loop
from shoal.orders import taken
from shoal.result import Result, checkpoint_root, findings_of
from shoal.runners.base import Log, Runner, RunnerError
from shoal.runners.paced import PacedRunner
from shoal.stores.base import Entry
from shoal.stores.sqlite import DAMAGE, SqliteStore, StoreError, unreadable, why

Outcome = Literal["done", "stopped", "failed"]
ORDERS_S = 0.2  # between two looks at what the user wants
HEARTBEAT_S = 1.0
HEALTH_S = 10.0
GRACE_S = 3.0  # for an end in order after a SIGTERM or SIGHUP: often a SIGKILL comes 10 s later

# makes what is to run the trials: whose checkpoints are in the one, and who tells the user of it
MakeRunner: TypeAlias = Callable[[Checkpoints, Log], Runner]


class Observer:
    """Whoever wants to see an experiment run; sees nothing by itself.

    Called from the controller: be quick. One that raises is told no more, and the run goes on.

    Attributes:
        shows: whether the user sees what it is told. Where nobody does, `run` warns at the end of
            what has failed.
    """

    shows = False

    def began(self, folder: Folder, config: Config) -> None:
        """The experiment is about to run, or to go on."""

    def changed(self, tuner: Tuner, waiting: str) -> None:
        """About once a second, and whenever a trial has begun or ended."""

    def said(self, level: str, text: str) -> None:
        """A line was written to the log."""

    def ended(self) -> None:
        """Nothing more comes: the experiment has ended, or cannot go on."""


class ObserverError(Exception):
    """Whoever watches cannot go on with it: the message says why."""


def drive(
    folder: Folder,
    config: Config,
    make_runner: MakeRunner,
    observers: Sequence[Observer],
    notes: Sequence[str],
) -> None:
    """Run the experiment in `folder` until it is done, stuck or stopped.

    Args:
        folder: the experiment's, made before.
        config: what it now is: it may have new limits.
        make_runner: makes what runs its trials.
        observers: whoever wants to watch. One that raises is told no more, and the run goes on.
        notes: what the user should know about the configuration.

    Raises:
        ExperimentError: another controller drives it, or it cannot be driven any further.
    """
    with locked(folder), signals() as interrupt:
        try:
            store = SqliteStore(folder.journal)
        except StoreError as error:
            raise ExperimentError(str(error)) from error
        controller = Controller(folder, config, make_runner, store, observers, interrupt)
        try:
            controller.run(notes)
        except (RunnerError, StoreError, sqlite3.Error, OSError) as error:
            reason = trouble(error) if isinstance(error, OSError) else str(error)
            if isinstance(error, sqlite3.Error):
                reason = why(error, folder.journal)
            with suppress(StoreError):  # what went wrong may be the journal itself
                store.end("failed", reason)
            raise ExperimentError(f"experiment {folder.id} cannot go on: {reason}") from error
        finally:
            with suppress(StoreError):
                controller.show(lambda observer: observer.ended())
                store.close()


class Told:
    """The journal, from which the user is told of trials that fail for good."""

    def __init__(self, store: SqliteStore, tuner: Tuner, failures: Failures) -> None:
        self._store, self._tuner, self._failures = store, tuner, failures

    def append(self, record: Record | Seen) -> None:
        """Write down what the tuner has decided, or was told."""
        self._store.append(record)
        if isinstance(record, Failed) and self._tuner.gave_up(record):
            trial = self._tuner.population.trials[record.trial]
            self._failures.failed(trial, record, time.monotonic())

    def commit(self) -> None:
        """Make all of it last."""
        self._store.commit()

    def read(self) -> Iterator[Entry]:
        """What was written down."""
        return self._store.read()


class StopNow(Exception):  # noqa: N818 (no error: somebody wants it)
    """The controller is to end at once, and what runs with it."""


class Interrupt:
    """What the user has asked for with signals: nothing, an end in order, or an end at once."""

    def __init__(self) -> None:
        self.wanted = False
        self.until = float("inf")  # on the monotonic clock: when an end in order is too late
        self.runner: Runner | None = None  # to be woken

    @property
    def now(self) -> bool:
        """Whether nothing more is to be waited for."""
        return time.monotonic() >= self.until

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: the first is for an end in order, and a second for one at once.

        Whoever sends anything but a Ctrl-C kills soon after it.
        """
        self.stop(self.until if number == signal.SIGINT else time.monotonic() + GRACE_S)

    def stop(self, until: float = float("inf")) -> None:
        """End in order, not later than `until` on the monotonic clock; if told again, at once."""
        self.until = 0.0 if self.wanted else until
        self.wanted = True
        if self.runner is not None:
            self.runner.wake()


@contextmanager
def signals() -> Iterator[Interrupt]:
    """Catch Ctrl-C, SIGTERM and SIGHUP, where this is the thread that may."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Controller:
    """Runs the loop of one experiment, and looks on."""

    def __init__(  # noqa: PLR0917 (what a controller brings together)
        self,
        folder: Folder,
        config: Config,
        make_runner: MakeRunner,
        store: SqliteStore,
        observers: Sequence[Observer],
        interrupt: Interrupt,
    ) -> None:
        self._folder, self._config, self._make_runner = folder, config, make_runner
        self._store, self._observers, self._interrupt = store, list(observers), interrupt
        self._began = time.monotonic()  # as if it had run without a break
        self._beat, self._asked, self._looked = 0.0, 0.0, time.monotonic()
        self._failures = Failures(lambda text: self._log("warning", text))
        self._lost = ""  # why nothing that was trained could be saved
        self._found: set[str] = set()  # what was said of its health
        self._seen: object = None
        self._stopping: str | None = None
        self._pausing = False

    def run(self, notes: Sequence[str]) -> None:
        """Drive the experiment to an end, and record which one.

        Raises:
            RunnerError: trials cannot be started.
        """
        store, config = self._store, self._config
        tuner = tuner_of(config, store)  # a journal that cannot be read is left as it is
        store.set_meta("config", dumps(config.dump()))
        self._begin()
        self.show(lambda observer: observer.began(self._folder, config))
        for note in notes:
            self._log("warning", note)
        self._train(tuner)
        while self._pausing and not (self._interrupt.wanted or tuner.done or tuner.stuck):
            self._rest(tuner)
            if not self._interrupt.wanted:
                self._begin()
                self._train(tuner)
        self.show(lambda observer: observer.changed(tuner, ""))
        outcome, reason = self._conclude(tuner)
        level = "error" if outcome == "failed" else "info"
        store.log(level, f"{outcome}: {reason}" if reason else outcome)  # the result says it, too
        store.end(outcome, reason)

    def _begin(self) -> None:
        """Take the experiment over, or go on with it."""
        before_s = sum(session.seconds for session in self._store.sessions())
        self._began = time.monotonic() - before_s
        self._store.set_meta("pausing", "")
        self._store.begin(os.getpid(), os.uname().nodename)

    def _train(self, tuner: Tuner) -> None:
        """Drive the experiment until nothing runs any more.

        Raises:
            RunnerError: trials cannot be started.
        """
        store, config = self._store, self._config
        later, sending = InThread(), InThread(gives_up=True)
        checkpoints = Checkpoints(
            checkpoint_root(self._folder, config.checkpoints),
            tuner.population,
            config.keep,
            later,
            store=Bucket(config.checkpoints) if isinstance(config.checkpoints, str) else None,
            sending=sending,
            here=config.execution is None,
        )
        runner = PacedRunner(self._make_runner(checkpoints, self._log))
        runner.resize(config.workers)  # it may have changed since whoever makes it was told
        self._interrupt.runner = runner
        try:
            told = Told(store, tuner, self._failures)
            loop(tuner, runner, told, checkpoints, lambda tuner: self._watch(tuner, runner))
            self._failures.settle()
            runner.settle(self._interrupt.until)
            checkpoints.retain(tuner.live)
            checkpoints.settle()
            if (best := tuner.population.best) is not None and best.trial.id in tuner.live:
                checkpoints.bring(best.trial.id)
            self._lost = "" if self._interrupt.wanted else checkpoints.unsaved(tuner.live)
        except StopNow:
            self._stopping = "interrupted; what was running will be run again"
        finally:
            self._interrupt.runner = None
            runner.close()
            later.close()
            sending.close()

    def _rest(self, tuner: Tuner) -> None:
        """Pause: return once the user wants it to go on, or to end."""
        again = f"`shoal resume {self._folder.id}`"
        self._log("info", f"paused: {again} goes on")
        self._store.end("paused", "")
        self.show(lambda observer: observer.changed(tuner, again))
        while self._pausing and not self._interrupt.wanted:
            time.sleep(ORDERS_S)
            self._obey(tuner, None)
        if self._interrupt.wanted:
            self._stopping = "interrupted"
        else:
            self._log("info", "it goes on")

    def _log(self, level: str, text: str) -> None:
        self._store.log(level, text)
        self.show(lambda observer: observer.said(level, text))

    def show(self, what: Callable[[Observer], None]) -> None:
        """Tell whoever watches; who raises is told no more."""
        for observer in list(self._observers):
            try:
                what(observer)
            except Exception as error:  # noqa: BLE001 (training does not depend on who looks on)
                self._observers.remove(observer)
                kind = "" if isinstance(error, ObserverError) else f"{type(error).__name__}: "
                self._log("warning", f"{type(observer).__name__} is told no more: {kind}{error}")

    def _watch(self, tuner: Tuner, runner: Runner) -> str | None:
        """Why no further trial may begin, or None; called each time round the loop.

        Raises:
            StopNow: nor may those go on that run.
        """
        population, now = tuner.population, time.monotonic()
        if now > self._asked + ORDERS_S:
            self._asked = now
            self._obey(tuner, runner)
        seen, beat = (len(population.trials), len(population.running)), now > self._beat
        if beat or seen != self._seen:
            waiting = runner.waiting_for or waits_for(tuner)
            if self._pausing:
                waiting += ", before it pauses"
            if beat:
                self._store.seen()
                self._store.set_meta("waiting", waiting)
                self._beat = now + HEARTBEAT_S
                self._look_after(tuner, now)
            self.show(lambda observer: observer.changed(tuner, waiting))
            self._seen = seen
        hurried = self._interrupt.until < float("inf")
        if self._interrupt.now or (hurried and not runner.holds):
            raise StopNow
        open_ = self._stopping is None or self._interrupt.wanted
        why = self._limit(tuner, now) if open_ else None
        if why is not None and why != self._stopping:
            self._stopping = why
            runner.withdraw()
            hint = "" if not self._interrupt.wanted else " (Ctrl-C again ends them)"
            if hurried:
                hint = f", and have {GRACE_S:g} s"
            self._log("info", f"{why}: no new trials; {len(population.running)} still run{hint}")
        return self._stopping

    def _obey(self, tuner: Tuner, runner: Runner | None) -> None:
        """Do what the user has ordered."""
        for order in taken(self._folder):
            match order.wanted:
                case "stop":
                    self._interrupt.stop()
                case "stop now":
                    self._interrupt.stop(0.0)
                case "pause" | "go on":
                    self._pausing = order.wanted == "pause"
                    self._store.set_meta("pausing", "yes" if self._pausing else "")
            if order.changes:
                self._change(tuner, runner, order.changes)
            if not self._interrupt.wanted:
                self._stopping = None  # what there is to be stopped for has changed
            self._store.commit()  # whoever ordered it will look
            self._beat = 0.0  # what it waits for may be something else

    def _change(self, tuner: Tuner, runner: Runner | None, changes: Mapping[str, Any]) -> None:
        """Go on under other limits."""
        try:
            config = changed(self._config, {name: changes.get(name) for name in LIMITS})
        except ConfigError as error:  # whoever ordered it had been told
            self._log("warning", f"an order cannot be carried out: {error}")
            return
        tuner.limit(config.steps, config.max_trials)
        if runner is not None:
            runner.resize(config.workers)
        for name in LIMITS:
            before, after = getattr(self._config, name), getattr(config, name)
            if before != after:
                self._log("info", f"{name}: {shown(before)} → {shown(after)}")
        self._config = config
        self._store.set_meta("config", dumps(config.dump()))

    def _look_after(self, tuner: Tuner, now: float) -> None:
        """Say what may be wrong with the run, once each."""
        if now < self._looked + HEALTH_S:
            return
        self._looked = now
        with suppress(ExperimentError):  # nobody is in need of it
            for finding in findings_of(Result(self._folder), len(tuner.population.trials)):
                if finding.key not in self._found:
                    self._found.add(finding.key)
                    self._log("warning", finding.text)

    def _limit(self, tuner: Tuner, now: float) -> str | None:
        config, best = self._config, tuner.population.best
        if self._interrupt.wanted:
            return "interrupted"
        if self._pausing:
            return "to be paused"
        if config.max_duration is not None and now - self._began >= config.max_duration:
            return f"the time limit of {config.max_duration:g} s was reached"
        if config.target is None or best is None:
            return None
        reached = best.score >= (config.target if config.mode == "max" else -config.target)
        return f"the target of {config.target:g} was reached" if reached else None

    def _conclude(self, tuner: Tuner) -> tuple[Outcome, str]:
        """(outcome, reason) after the loop has returned."""
        if (stuck := tuner.stuck) is not None:
            return "failed", stuck + last_failure(self._store)
        if tuner.done and tuner.population.best is None:
            return "failed", "no trial has finished" + last_failure(self._store)
        if self._lost:
            return "failed", f"nothing that was trained could be saved: {self._lost}"
        if tuner.done:
            return "done", ""
        return "stopped" if self._interrupt.wanted else "done", self._stopping or ""


def tuner_of(config: Config, journal: SqliteStore) -> Tuner:
    """The tuner of `config`, as far as `journal` has come.

    Raises:
        StoreError: it is damaged.
    """
    gc.disable()  # all that is read stays: looking for garbage among it would take a while
    try:
        return made(config, journal.records())
    except (ProtocolError, LookupError, TypeError, *DAMAGE) as error:
        raise StoreError(unreadable(journal.path, error)) from error
    finally:
        gc.enable()


def made(config: Config, records: Iterable[Record]) -> Tuner:
    """The tuner of `config`, after `records`."""
    return Tuner(
        config.space,
        population=config.population,
        steps=config.steps,
        trials=config.max_trials,
        control=config.control,
        initial=config.initial,
        exploit=config.exploit,
        explore=config.explore,
        synchronous=config.synchronous,
        seed=config.seed,
        retries=config.retries,
        journal=records,
    )


def last_failure(store: SqliteStore) -> str:
    """What the trial that failed last had to say."""
    failed = [row for row in views.table(store.read(), "max", alive=False) if row.error]
    last = max(failed, key=lambda row: row.ended or 0.0, default=None)
    return "" if last is None else f"; the last was trial {last.id}, {last.error}"


def waits_for(tuner: Tuner) -> str:
    """What keeps an experiment from being further than it is."""
    running = tuner.population.running
    if not running:
        return ""
    steps = sorted({trial.step for trial in running.values()})
    which = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    many = "1 trial" if len(running) == 1 else f"{len(running)} trials"
    return f"{many} of {which} to end"
