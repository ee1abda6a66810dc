"""Run trials as the user's own command, one process for one step of one member."""

import errno
import json
import os
import selectors
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from shoal.checkpoints import Checkpoints, remove, saved
from shoal.core.chance import number
from shoal.core.records import LOST, Failed, Measured, Report, Seen, Started, Trial
from shoal.home import Folder
from shoal.runners import written
from shoal.runners.base import Log, RunnerError, withdrawn
from shoal.runners.forkserver import ForkServer, Imports
from shoal.runners.gpus import Gpus
from shoal.runners.launch import EXPERIMENT, Launch, as_a_shell_has_it
from shoal.runners.outcome import Objective, Reported, judge
from shoal.runners.preload import imports_of
from shoal.runners.warm.libraries import shared
from shoal.trial import rank

TICK_S = 1.0  # how long a wait lasts at most
GRACE_S = 5.0  # between asking a process to end and ending it
WAIT_S = 30.0  # for shared imports, after which trials start without
DEATHS = 4  # of servers in a row, with no trial ending in between: something is wrong here
LOSSES = 3  # of a trial with its server, after which it is taken for the cause
RENEWALS = 12  # of what is shared, in one run
NOTE_BYTES = 1 << 20
# what an earlier trial may have done to the place of a folder
IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP}
OURS = "SHOAL_TRIAL_DIR"
OWN = {"nni", "shoal"}


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
    server: ForkServer | None = None
    pid: int = 0  # known once it has started, as that of its keeper
    keeper: int = 0
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
        checkpoints: Checkpoints,
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
        self._launch, self._folder, self._checkpoints = launch, folder, checkpoints
        self._objective, self._slots, self._directory = objective, slots, directory
        self._env, self._gpus, self._seed = as_a_shell_has_it(env, launch, directory), gpus, seed
        self._timeout_s, self._log = timeout_s, log
        self._waiting: deque[Running] = deque()
        self._running: dict[str, Running] = {}  # by key
        self._events: list[Report | Seen] = []
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._imports = first_guess(launch, preload)  # what the next server will load
        self._unshared: set[str] = set()
        self._told: set[str] = set()
        self._renewals = self._deaths = 0
        self._losses: Counter[int] = Counter()
        self._servers: set[ForkServer] = set()
        self._serving: ForkServer | None = None  # starts trials
        self._next: ForkServer | None = None  # is to take over when it is ready
        self._began = time.monotonic()
        self._renew()

    @property
    def free(self) -> int:
        room = self._slots - len(self._running) - len(self._waiting)
        gpus = self._gpus.free
        return room if gpus is None else min(room, gpus - len(self._waiting))

    @property
    def waiting_for(self) -> str | None:
        """What keeps submitted trials from running, if anything does."""
        if self._serving is not None or self._next is None:
            return None
        return f"the imports that trials share to be loaded ({self._next.loading or 'starting'})"

    def submit(self, trial: Trial) -> None:
        self._waiting.append(
            Running(trial, self._folder.trial(trial.id, trial.attempt), rank(self._env))
        )
        self._fill()

    def wait(self) -> Sequence[Report | Seen]:
        if not self._events:
            self._look(self._until_next())
        self._keep_time()
        for running in self._running.values():
            self._measure(running)
        self._fill()
        events, self._events = self._events, []
        return events

    def wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def withdraw(self) -> None:
        self._events += [withdrawn(running.trial) for running in self._waiting]
        self._waiting.clear()

    def close(self) -> None:
        self._waiting.clear()
        until = time.monotonic() + GRACE_S
        for running in self._running.values():
            self._signal(running, signal.SIGTERM)
        while self._running and (left := until - time.monotonic()) > 0:
            self._look(left)
        self._running.clear()
        self._events.clear()
        for server in self._servers:
            server.close()  # ends what still runs
        end_leftovers(self._folder)
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake)

    # ------------------------------------------------------------------ the fork servers

    def _look(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if isinstance(key.fileobj, ForkServer):
                self._receive(key.fileobj)
            else:
                self._drain()

    def _start_server(self, imports: Imports) -> ForkServer:
        server = ForkServer(
            self._launch,
            imports,
            self._env,
            self._directory,
            self._folder.path / "forkserver.log",
        )
        self._servers.add(server)
        self._selector.register(server, selectors.EVENT_READ)
        return server

    def _renew(self) -> None:
        """Load what is now to be shared in a new server, which takes over when it is ready."""
        if self._next is None:
            self._next = self._start_server(self._imports)

    def _let_go(self, server: ForkServer) -> int:
        self._selector.unregister(server)
        self._servers.discard(server)
        return server.close()

    def _receive(self, server: ForkServer) -> None:
        messages = server.receive()
        if messages is None:
            self._died(server, "died")
            return
        for message in messages:
            match message:
                case {"unfit": name, "why": why}:
                    self._leave_to_trials(name, why)
                case {"loaded": loaded, "failed": failed}:
                    self._loaded(server, loaded, failed)
                case {"started": key, "pid": pid, "keeper": keeper}:
                    self._started(key, pid, keeper)
                case {"ended": key, "status": status, "left": left}:
                    self._deaths = 0
                    self._ended(key, status, left)
                case {"lost": key, "status": status}:
                    self._keeper_died(key, status)

    def _loaded(self, server: ForkServer, loaded: Sequence[str], failed: Mapping[str, str]) -> None:
        if server is self._next:
            self._next = None
        elif self._serving is not None:
            return  # it was to help out, and is not needed any more
        before, self._serving = self._serving, server
        for name, why in failed.items():
            self._leave_to_trials(name, why)
        seconds = time.monotonic() - self._began
        tops = dict.fromkeys(name.partition(".")[0] for name in loaded)
        names = [top for top in tops if top not in sys.stdlib_module_names | OWN]
        if before is not None:
            self._retire(before)
        if names and before is None:
            text = ", ".join(names)
            self._log("info", f"warm start: {text} imported once for all trials ({seconds:.1f} s)")
        if server.imports != self._imports:
            self._renew()

    def _retire(self, server: ForkServer) -> None:
        """Let go of a server that starts no more trials, once those it has started have ended."""
        if server is not self._serving and not any(
            running.server is server for running in self._running.values()
        ):
            self._let_go(server)

    def _leave_to_trials(self, name: str, why: str) -> None:
        """Share `name` no longer."""
        top = name.partition(".")[0]
        kept = tuple(n for n in self._imports.load if n.partition(".")[0] != top)
        self._imports = replace(self._imports, load=kept)
        if top not in self._unshared:
            self._unshared.add(top)
            self._log("warning", f"warm start: {name} is left to each trial, {why}")

    def _died(self, server: ForkServer, how: str) -> None:
        """What a server ran is lost, which is not its fault; a new one goes on."""
        code = self._let_go(server)
        was_next, was_serving = server is self._next, server is self._serving
        self._next = None if was_next else self._next
        self._serving = None if was_serving else self._serving
        self._lose([r for r in self._running.values() if r.server is server])
        if not server.ready:
            self._died_loading(server, how, code)
        elif was_serving:
            self._deaths += 1
            self._log("warning", f"the fork server {how} (exit code {code}): a new one is started")
        self._check_deaths(code)
        if was_next or was_serving:
            self._renew()

    def _died_loading(self, server: ForkServer, how: str, code: int) -> None:
        culprit = server.loading
        if culprit and culprit.partition(".")[0] not in self._unshared:
            self._leave_to_trials(culprit, f"the server {how} as it imported it")
        elif not culprit:
            self._deaths += 1
            if self._launch.command is None:
                self._log("warning", f"trials are started by a shell: held, {how} (code {code})")
            self._launch = self._launch.cold

    def _check_deaths(self, code: int) -> None:
        if self._deaths > DEATHS:
            raise RunnerError(
                f"the fork server, which starts the trials, died {self._deaths} times, last with "
                f"exit code {code}: see {self._folder.path / 'forkserver.log'}"
            )

    def _lose(self, lost: Sequence[Running]) -> None:
        """Tell of trials that have ended with their server."""
        for running in lost:
            with suppress(psutil.Error):
                if running.keeper:  # which ends what it kept, and then itself
                    psutil.Process(running.keeper).wait(GRACE_S)
        if lost:
            end_with(OURS, (str(running.folder) for running in lost))
        for running in lost:
            trial = running.trial
            self._running.pop(key_of(trial), None)
            self._gpus.give_back(running.gpus)
            self._losses[trial.id] += 1
            kind, reason = LOST, "its process was lost with the fork server"
            if self._losses[trial.id] > LOSSES:
                kind = "killed"
                reason = f"each of the {LOSSES + 1} times that it ran, the fork server was ended"
            self._events.append(Failed(trial.id, kind, reason, trial.attempt))

    def _keeper_died(self, key: str, status: int) -> None:
        running = self._running.pop(key, None)
        if running is None:
            return
        self._gpus.give_back(running.gpus)
        self._measure(running)
        end_with(OURS, [str(running.folder)])
        trial, how = running.trial, os.waitstatus_to_exitcode(status)
        reason = f"the process that looks after it was ended (exit code {how})"
        self._events.append(Failed(trial.id, "killed", reason, trial.attempt))
        if running.server is not None:
            self._retire(running.server)

    def _learn(self, running: Running) -> None:
        """Share what a trial had to import by itself; tell the user what is slow."""
        note = read_note(running.folder / "imports.json")
        before = self._imports
        match note:
            case {"cold": str(why), "library": str(library), "variables": dict(variables)}:
                if "cold" not in self._told:
                    self._told.add("cold")
                    self._log("info", f"warm start: trial {running.trial.id} began anew, {why}")
                known = {k: v for k, v in self._imports.environ.items() if k in variables}
                if variables and known.items() <= variables.items():
                    environ = {**self._imports.environ, **variables}
                    self._imports = replace(self._imports, environ=environ)
                else:  # another path, or a variable that each trial sets to something else
                    self._leave_to_trials(library, why)
            case {"imports": list(names), "slow": dict(slow)}:
                new = (
                    str(name)
                    for name in names
                    if name.partition(".")[0] not in self._unshared
                    and name not in self._imports.load
                )
                self._imports = replace(self._imports, load=(*self._imports.load, *new))
                self._tell_slow(slow)
        if self._imports != before and self._renewals < RENEWALS:
            self._renewals += 1
            self._renew()

    def _tell_slow(self, slow: Mapping[str, float]) -> None:
        for name, seconds in slow.items():
            if name in self._told or name.partition(".")[0] in self._unshared:
                continue
            self._told.add(name)
            self._log(
                "info",
                f"each trial imports {name}, which takes {seconds:.1f} s; "
                f"`preload: [{name}]` in the experiment file shares it",
            )

    # ------------------------------------------------------------------ a trial's life

    def _fill(self) -> None:
        while (
            self._serving is not None
            and self._waiting
            and len(self._running) < self._slots
            and self._gpus.free != 0
        ):
            self._begin(self._waiting.popleft(), self._serving)

    def _begin(self, running: Running, server: ForkServer) -> None:
        trial = running.trial
        if self._checkpoints.lost(trial):
            load = self._checkpoints.load(trial)
            reason = f"it was to start from {load}, which is gone"
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
        running.gpus, running.server = self._gpus.take(), server
        key = key_of(trial)
        self._running[key] = running
        server.send(
            start=key,
            command=self._launch.command,
            argv=[self._launch.program, *self._launch.argv],
            cwd=str(self._directory),
            env=self._trial_env(running),
            out=str(running.folder / "stdout"),
            err=str(running.folder / "stderr"),
            note=str(running.folder / "imports.json"),
        )

    def _started(self, key: str, pid: int, keeper: int) -> None:
        running = self._running.get(key)
        if running is not None:
            running.pid, running.keeper = pid, keeper
            self._events.append(Started(running.trial.id, running.trial.attempt))
            if self._timeout_s is not None:
                running.deadline = time.monotonic() + self._timeout_s

    def _signal(self, running: Running, number: int) -> None:
        if running.pid and running.server is not None:
            running.server.send(signal=running.pid, number=number)

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
        if self._launch.command is None:
            self._learn(running)
        if running.server is not None:
            self._retire(running.server)
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
        self._events.append(report)
        if left:
            self._log("warning", f"{name} left {left} processes behind: they were ended")
        if isinstance(report, Failed):
            return
        if len(running.reported.finals) > 1:
            self._log("warning", f"{name} reported several final results: the first counts")
        if not report.saved:
            self._log("warning", f"{name} saved nothing to {save}: who goes on from it starts anew")

    def _keep_time(self) -> None:
        now = time.monotonic()
        for server in list(self._servers):
            if (why := server.silent()) is not None:
                server.kill()
                self._died(server, f"was ended, {why}")
        loading = self._next
        if (
            self._serving is None
            and loading is not None
            and loading.imports.load
            and now > self._began + WAIT_S
            and len(self._servers) == 1
        ):
            self._log("info", f"trials begin without shared imports: {loading.loading} is slow")
            self._start_server(Imports())
        for running in self._running.values():
            if running.deadline is not None and now >= running.deadline:
                number = signal.SIGKILL if running.asked_to_end else signal.SIGTERM
                self._signal(running, number)
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


def first_guess(launch: Launch, preload: Sequence[str]) -> Imports:
    """What to share before any trial has told: what the text of the script says it imports."""
    if launch.command is not None:
        return Imports()
    more = frozenset(name.partition(".")[0] for name in preload)
    text = [] if launch.script is None else imports_of(launch.script, launch.folder)
    names = dict.fromkeys([*preload, *(name for name in text if shared(name, more))])
    if "-m" in launch.argv:
        names["runpy"] = None
    return Imports(tuple(names), tuple(preload), launch.folder)


def read_note(file: Path) -> object:
    """What a trial has noted about its imports; None if nothing."""
    try:
        return json.loads(written.read(file, 0, NOTE_BYTES))
    except (ValueError, RecursionError):
        return None


def key_of(trial: Trial) -> str:
    """The name of an attempt in messages."""
    return f"{trial.id}/{trial.attempt}"


def job(trial: Trial) -> str:
    """The id of `trial` as NNI's trials know theirs: text of five characters, or more."""
    return f"{trial.id:05d}"
