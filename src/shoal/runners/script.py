"""Run trials as the user's own command, one process for one step of one member."""

import errno
import json
import os
import selectors
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from shoal.checkpoints import lengths, remove, saved, shortened
from shoal.core.chance import number
from shoal.core.population import Population
from shoal.core.records import LOST, Failed, Finished, Measured, Report, Seen, Started, Trial
from shoal.home import Folder
from shoal.runners import written
from shoal.runners.base import Log, RunnerError, withdrawn
from shoal.runners.forkserver import ForkServer
from shoal.runners.gpus import Gpus
from shoal.runners.launch import EXPERIMENT, Launch, as_a_shell_has_it
from shoal.runners.outcome import Objective, Reported, judge
from shoal.runners.processes import GRACE_S, Began, Ended, Orphaned, Processes, first_guess
from shoal.trial import rank

TICK_S = 1.0  # how long a wait lasts at most
LOSSES = 3  # of a trial with its server, after which it is taken for the cause
# what an earlier trial may have done to the place of a folder
IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP}
OURS = "SHOAL_TRIAL_DIR"
SAVED = "saved.json"  # in a trial's folder: how long the files of its checkpoint are


def end_leftovers(folder: Folder) -> int:
    """End what a controller that died may have left running; how many processes that were."""
    return end_with(EXPERIMENT, {str(folder.path)})


def end_with(variable: str, values: Iterable[str]) -> int:
    """End the processes in whose environment `variable` is one of `values`, and their children.

    A keeper has all that its trial started below it, whatever environment that has.
    """
    values, left = set(values), dict[int, psutil.Process]()
    for process in psutil.process_iter(["environ"]):
        environ = process.info["environ"] or {}
        if environ.get(variable) in values and process.pid != os.getpid():
            with suppress(psutil.Error):
                for one in (process, *process.children(recursive=True)):
                    left[one.pid] = one
    for process in left.values():
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left.values(), timeout=GRACE_S)
    return len(left)


@dataclass(slots=True)
class Running:
    """A trial that was submitted, and what is known of it."""

    trial: Trial
    folder: Path
    rank: int | None = None  # of the controller itself, where a launcher has started that
    gpus: list[int] | None = None
    reported: Reported = field(init=False)
    deadline: float | None = None  # on the monotonic clock
    asked_to_end: bool = False
    timed_out: bool = False

    def __post_init__(self) -> None:
        self.reported = Reported(self.folder / "metrics.jsonl", self.rank)

    def problem(self, save: Path) -> str | None:
        """What is wrong with what it has written, `save` being its checkpoint; None if nothing."""
        for name in ("metrics.jsonl", "stdout", "stderr"):
            if (kind := written.kind(self.folder / name)) is not None:
                return f"its {name} is {kind}, where a file is expected"
        return self.reported.problem or written.unfit(save)


class Folders(Protocol):
    """Where trials load from and save to; see `Checkpoints`."""

    @property
    def population(self) -> Population: ...

    def load(self, trial: Trial) -> Path | None: ...

    def save(self, trial: Trial) -> Path: ...

    def prepare(self, trial: Trial) -> None: ...

    def lost(self, trial: Trial) -> bool: ...

    def last(self, trial: Trial, then: Callable[[OSError | None], None]) -> None: ...


class ScriptRunner:
    """Runs each trial as a process, `slots` at a time.

    Args:
        launch: how a trial is started.
        folder: the experiment's, where each attempt gets a folder of its own.
        checkpoints: where trials load from and save to.
        objective: which of the reported numbers counts, and which way.
        slots: how many trials run at a time.
        directory: in which trials run.
        env: their environment, see `environment`.
        gpus: what they see of the GPUs.
        seed: of the experiment; each trial gets one made of it.
        timeout_s: how long a trial may run.
        preload: libraries to share besides the well-known ones that the script imports.
        log: is told what the user should know.

    Raises:
        RunnerError: a trial can never be started.
    """

    def __init__(
        self,
        launch: Launch,
        folder: Folder,
        checkpoints: Folders,
        objective: Objective,
        *,
        slots: int,
        directory: Path,
        env: Mapping[str, str],
        gpus: Gpus,
        seed: int = 0,
        timeout_s: float | None = None,
        preload: Sequence[str] = (),
        log: Log,
    ) -> None:
        if not directory.is_dir():
            raise RunnerError(f"trials are to run in {directory}, which is not a folder")
        end_leftovers(folder)
        self._folder, self._checkpoints, self._objective = folder, checkpoints, objective
        self._slots, self._directory, self._env = slots, directory, env
        self._gpus, self._seed, self._timeout_s, self._log = gpus, seed, timeout_s, log
        self._waiting: deque[Running] = deque()
        self._running: dict[str, Running] = {}  # by key
        self._events: list[Report | Seen] = []
        self._unsure = 0  # have ended, and their checkpoints might not survive a power cut yet
        self._lasting: deque[Report] = deque()  # they do; filled by a thread
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._losses: Counter[int] = Counter()
        self._processes = Processes(
            launch,
            first_guess(launch, preload),
            env=as_a_shell_has_it(env, launch, directory),
            directory=directory,
            output=folder.path / "forkserver.log",
            selector=self._selector,
            log=log,
        )

    @property
    def free(self) -> int:
        room = self._slots - len(self._running) - len(self._waiting) - self._unsure
        gpus = self._gpus.free
        return room if gpus is None else min(room, gpus - len(self._waiting))

    @property
    def waiting_for(self) -> str | None:
        return self._processes.waiting_for

    def submit(self, trial: Trial) -> None:
        self._waiting.append(
            Running(trial, self._folder.trial(trial.id, trial.attempt), rank(self._env))
        )
        self._fill()

    def wait(self) -> Sequence[Report | Seen]:
        if not self._events:
            self._look(self._until_next())
        self._processes.keep_time()
        self._take_in()
        self._keep_time()
        for running in self._running.values():
            self._measure(running)
        self._fill()
        while self._lasting:
            self._unsure -= 1
            self._events.append(self._lasting.popleft())
        events, self._events = self._events, []
        return events

    def wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def resize(self, slots: int) -> None:
        self._slots = slots

    def withdraw(self) -> None:
        self._events += [withdrawn(running.trial) for running in self._waiting]
        self._waiting.clear()

    @property
    def holds(self) -> bool:
        return False

    def settle(self, until: float) -> None:
        pass

    def close(self) -> None:
        self._waiting.clear()
        until = time.monotonic() + GRACE_S
        for key in self._running:
            self._processes.signal(key, signal.SIGTERM)
        while self._running and (left := until - time.monotonic()) > 0:
            self._look(left)
            self._take_in()
        self._running.clear()
        self._events.clear()
        self._processes.close()
        end_leftovers(self._folder)
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake)

    def _look(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if isinstance(key.fileobj, ForkServer):
                self._processes.receive(key.fileobj)
            else:
                self._drain()

    def _take_in(self) -> None:
        """What has become of processes."""
        orphaned = []
        for event in self._processes.events():
            match event:
                case Began(key):
                    self._started(key)
                case Ended(key, status, left):
                    self._ended(key, status, left)
                case Orphaned():
                    orphaned.append(event)
        self._lose(orphaned)

    def _fill(self) -> None:
        while (
            self._processes.ready
            and self._waiting
            and len(self._running) < self._slots
            and self._gpus.free != 0
        ):
            self._begin(self._waiting.popleft())

    def _begin(self, running: Running) -> None:
        trial = running.trial
        if (missing := self._missing(trial)) is not None:
            reason = f"what it was to start from is not what was saved: {missing}"
            self._events.append(Failed(trial.id, "lost checkpoint", reason, trial.attempt))
            return
        try:
            self._checkpoints.prepare(trial)
            remove(running.folder)
            running.folder.mkdir(parents=True)
            message = json.dumps(self._describe(trial))
            (running.folder / "trial.json").write_text(message + "\n")
        except OSError as error:
            if error.errno not in IN_THE_WAY:  # a full disk is not this trial's
                raise
            reason = f"there is something in the place of its folder: {error}"
            self._events.append(Failed(trial.id, "bad files", reason, trial.attempt))
            return
        running.gpus = self._gpus.take()
        key = key_of(trial)
        self._running[key] = running
        self._processes.start(
            key,
            cwd=self._directory,
            env=self._trial_env(running),
            out=running.folder / "stdout",
            err=running.folder / "stderr",
            note=running.folder / "imports.json",
        )

    def _missing(self, trial: Trial) -> str | None:
        """What is missing of the checkpoint that `trial` starts from; None if nothing is."""
        load = self._checkpoints.load(trial)
        if load is None or trial.parent is None:
            return None
        if self._checkpoints.lost(trial):
            return f"{load} is gone"
        parent = self._checkpoints.population.trials[trial.parent]
        try:
            before = json.loads((self._folder.trial(parent.id, parent.attempt) / SAVED).read_text())
        except (OSError, ValueError):  # an earlier shoal wrote none
            return None
        return shortened(load, before) if isinstance(before, dict) else None

    def _started(self, key: str) -> None:
        running = self._running.get(key)
        if running is not None:
            self._events.append(Started(running.trial.id, running.trial.attempt))
            if self._timeout_s is not None:
                running.deadline = time.monotonic() + self._timeout_s

    def _lose(self, orphaned: Sequence[Orphaned]) -> None:
        """Tell of trials that are gone with who looked after them."""
        gone = [(self._running.pop(event.key), event.status) for event in orphaned]
        if gone:
            end_with(OURS, (str(running.folder) for running, _ in gone))
        for running, status in gone:
            trial = running.trial
            self._gpus.give_back(running.gpus)
            self._measure(running)
            kind, reason = LOST, "its process was lost with the fork server"
            if status is not None:
                code = os.waitstatus_to_exitcode(status)
                kind = "killed"
                reason = f"the process that looks after it was ended (exit code {code})"
            else:
                self._losses[trial.id] += 1
            if self._losses[trial.id] > LOSSES:
                kind = "killed"
                reason = f"each of the {LOSSES + 1} times that it ran, the fork server was ended"
            self._events.append(Failed(trial.id, kind, reason, trial.attempt))

    def _describe(self, trial: Trial) -> dict[str, Any]:
        load, save = self._checkpoints.load(trial), str(self._checkpoints.save(trial))
        return {
            "id": trial.id,
            "job": job(trial),
            "experiment": self._folder.id,
            "member": trial.member,
            "step": trial.step,
            "attempt": trial.attempt,
            "seed": number(self._seed, trial.member, trial.step) >> 32,
            "hparams": trial.hparams,
            # NNI's two more parameters; a fresh start loads from where it will save
            "parameters": {
                **trial.hparams,
                "load_checkpoint_dir": save if load is None else str(load),
                "save_checkpoint_dir": save,
            },
            "load": None if load is None else str(load),
            "save": save,
        }

    def _trial_env(self, running: Running) -> dict[str, str]:
        folder, trial = str(running.folder), running.trial
        visible = running.gpus
        gpus = {} if visible is None else {"CUDA_VISIBLE_DEVICES": ",".join(map(str, visible))}
        return gpus | {
            "SHOAL_TRIAL_DIR": folder,
            "NNI_SYS_DIR": folder,
            "NNI_OUTPUT_DIR": folder,
            "NNI_TRIAL_COMMAND_CHANNEL": f"file://{folder}",
            "NNI_TRIAL_JOB_ID": job(trial),
            "NNI_TRIAL_SEQ_ID": str(trial.id),
        }  # fmt: skip

    def _measure(self, running: Running) -> None:
        first, trial = running.reported.intermediate, running.trial
        for index, value in enumerate(running.reported.read(), first):
            self._events.append(Measured(trial.id, index, value, trial.attempt))

    def _ended(self, key: str, status: int, left: int) -> None:
        running = self._running.pop(key, None)
        if running is None:
            return
        trial, name = running.trial, f"trial {running.trial.id}"
        self._gpus.give_back(running.gpus)
        self._measure(running)
        save = self._checkpoints.save(trial)
        report = judge(
            trial,
            status,
            running.reported.finals,
            self._objective,
            saved=saved(save),
            timeout_s=self._timeout_s if running.timed_out else None,
            stderr=running.folder / "stderr",
            problem=running.problem(save),
        )
        if isinstance(report, Finished) and report.saved:  # said when it would survive a power cut
            self._unsure += 1
            self._checkpoints.last(trial, lambda error: self._lasts(report, running, save, error))
        else:
            self._events.append(report)
        if left:
            self._log("warning", f"{name} left {left} processes behind: they were ended")
        if isinstance(report, Failed):
            return
        if len(running.reported.finals) > 1:
            self._log("warning", f"{name} reported several final results: the first counts")
        if not report.saved:
            self._log("warning", f"{name} saved nothing to {save}: who goes on from it starts anew")

    def _lasts(self, report: Report, running: Running, save: Path, error: OSError | None) -> None:
        """Take in that a checkpoint lasts, or why it does not; in whatever thread that is."""
        with suppress(OSError):
            (running.folder / SAVED).write_text(json.dumps(lengths(save)))
        if error is not None:
            reason = f"its checkpoint could not be written to the disk: {error}"
            report = Failed(report.trial, "bad files", reason, report.attempt)
        self._lasting.append(report)
        self.wake()

    def _keep_time(self) -> None:
        now = time.monotonic()
        for key, running in self._running.items():
            if running.deadline is not None and now >= running.deadline:
                number = signal.SIGKILL if running.asked_to_end else signal.SIGTERM
                self._processes.signal(key, number)
                running.timed_out = running.asked_to_end = True
                running.deadline = now + GRACE_S

    def _until_next(self) -> float:
        deadlines = (r.deadline for r in self._running.values() if r.deadline is not None)
        next_deadline = min(deadlines, default=float("inf"))
        return max(0.0, min(TICK_S, next_deadline - time.monotonic()))

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._woken, 4096):
                pass


def key_of(trial: Trial) -> str:
    """The name of an attempt in messages."""
    return f"{trial.id}/{trial.attempt}"


def job(trial: Trial) -> str:
    """The id of `trial` as NNI's trials know theirs: text of five characters, or more."""
    return f"{trial.id:05d}"
