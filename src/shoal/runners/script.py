"""Run trials as the user's own command, one process for one step of one member."""

import json
import os
import re
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import shoal
from shoal.checkpoints import Checkpoints, saved
from shoal.core.chance import number
from shoal.core.records import LOST, Failed, Measured, Report, Trial
from shoal.home import Folder
from shoal.runners.base import RunnerError
from shoal.runners.gpus import Gpus
from shoal.runners.outcome import Objective, Reported, judge

NNI_PATH = Path(shoal.__file__).parent / "compat" / "nni" / "path"  # where `import nni` finds ours
TICK_S = 1.0  # how long a wait lasts at most
GRACE_S = 5.0  # between asking a process to end and ending it
PRELOAD_S = 300.0  # after which we go on without preloaded imports
DEATHS = 3  # of the fork server, after which something must be wrong with the machine
EXPERIMENT = "SHOAL_EXPERIMENT"  # in the environment of whatever an experiment has started

Log = Callable[[str, str], None]  # (level, text)


@dataclass(frozen=True, slots=True)
class Launch:
    """How a trial is started: by a shell, or in a fork that has the script's imports ready."""

    command: str | None  # for the shell; None: warm
    argv: Sequence[str] = ()
    module: str | None = None
    unbuffered: bool = False
    script: Path | None = None  # what to read the imports from
    folder: Path = Path()  # where the script looks for its own modules

    @classmethod
    def of(cls, command: str, directory: Path, env: Mapping[str, str]) -> "Launch":
        """Warm where that can be the same thing, by a shell everywhere else.

        It can for `python [-u] script.py ...` and `python [-u] -m module ...` with this very
        interpreter, and nothing that only a shell understands.
        """
        cold = cls(command)
        if re.search(r"[^\w\s./:=@%+,'\"-]", command):
            return cold
        try:
            python, *rest = shlex.split(command)
        except ValueError:
            return cold
        if not is_this_interpreter(python, directory, env):
            return cold
        unbuffered = rest[:1] == ["-u"]
        rest = rest[unbuffered:]
        if rest[:1] == ["-m"] and len(rest) > 1:
            module, *others = rest[1:]
            file = directory.joinpath(*module.split(".")).with_suffix(".py")
            script = file if file.is_file() else None
            return cls(None, ["-m", *others], module, unbuffered, script, directory)
        if not rest or rest[0].startswith("-") or not (directory / rest[0]).is_file():
            return cold
        script = (directory / rest[0]).resolve()
        return cls(None, rest, None, unbuffered, script, script.parent)

    @classmethod
    def function(cls, train: str, directory: Path) -> "Launch":
        """Warm: the function `train`, which is written `module:name`."""
        file = directory.joinpath(*train.partition(":")[0].split(".")).with_suffix(".py")
        script = file if file.is_file() else None
        return cls(None, ["-m", train], "shoal.trial", script=script, folder=directory)

    @property
    def cold(self) -> "Launch":
        """The same by a shell."""
        if self.command is not None:
            return self
        what = self.argv if self.module is None else ["-m", self.module, *self.argv[1:]]
        flags = ["-u"] if self.unbuffered else []
        return Launch(shlex.join([sys.executable, *flags, *what]))


def is_this_interpreter(python: str, directory: Path, env: Mapping[str, str]) -> bool:
    """Whether the command `python` starts the interpreter, and the environment, that we run in."""
    if not re.fullmatch(r"python(\d(\.\d+)?)?", Path(python).name):
        return False
    if "/" in python:
        found: str | None = str(directory / python)
    else:
        found = shutil.which(python, path=env.get("PATH"))
    if found is None or not Path(found).exists():
        return False
    same = Path(found).resolve() == Path(sys.executable).resolve()
    return same and Path(found).absolute().parent.samefile(Path(sys.executable).parent)


def environment(folder: Folder, directory: Path) -> dict[str, str]:
    """What all trials of an experiment find in their environment."""
    env = dict(os.environ)
    env["PYTHONPATH"] = os.pathsep.join([str(NNI_PATH), *filter(None, [env.get("PYTHONPATH")])])
    env["PATH"] = search_path(env)
    return env | {
        EXPERIMENT: str(folder.path),
        "NNI_PLATFORM": "local",
        "NNI_EXP_ID": folder.id,
        "NNI_CODE_DIR": str(directory),
        "MULTI_PHASE": "false",
        "REUSE_MODE": "false",
    }


def search_path(env: Mapping[str, str]) -> str:
    """Where commands are looked for: first in our own virtual environment, if it is the user's.

    `.venv/bin/shoal run` without activating the environment means its `python` too. An activated
    one is on the path already; one that pipx or uv made for shoal alone is not the user's.
    """
    path = env.get("PATH", os.defpath)
    activated = env.get("VIRTUAL_ENV") or env.get("CONDA_PREFIX")
    private = any(
        (Path(sys.prefix) / mark).exists() for mark in ("pipx_metadata.json", "uv-receipt.toml")
    )
    if sys.prefix == sys.base_prefix or activated or private:
        return path
    return os.pathsep.join([str(Path(sys.executable).parent), path])


def end_leftovers(folder: Folder) -> int:
    """End what a controller that died may have left running; how many processes that were."""
    left = []
    for process in psutil.process_iter(["environ"]):
        environ = process.info["environ"] or {}
        if environ.get(EXPERIMENT) == str(folder.path) and process.pid != os.getpid():
            with suppress(psutil.Error):
                process.kill()
                left.append(process)
    psutil.wait_procs(left, timeout=GRACE_S)
    return len(left)


@dataclass(slots=True)
class Running:
    """A trial that was submitted, and what is known of it."""

    trial: Trial
    folder: Path
    gpus: list[int] | None = None
    reported: Reported = field(init=False)
    deadline: float | None = None  # on the monotonic clock
    asked_to_end: bool = False
    timed_out: bool = False

    def __post_init__(self) -> None:
        self.reported = Reported(self.folder / "metrics.jsonl")


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
        preload: modules to have ready for warm starts; None: what the script imports.
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
        preload: Sequence[str] | None = None,
        log: Log,
    ) -> None:
        if not directory.is_dir():
            raise RunnerError(f"trials are to run in {directory}, which is not a folder")
        self._launch, self._folder, self._checkpoints = launch, folder, checkpoints
        self._objective, self._slots, self._directory = objective, slots, directory
        self._env, self._gpus, self._seed = dict(env), gpus, seed
        self._timeout_s, self._preload, self._log = timeout_s, preload, log
        self._waiting: deque[Running] = deque()
        self._running: dict[str, Running] = {}  # by key
        self._events: list[Report | Measured] = []
        self._deaths = 0
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._start_server(preload=launch.command is None)

    @property
    def free(self) -> int:
        room = self._slots - len(self._running) - len(self._waiting)
        gpus = self._gpus.free
        return room if gpus is None else min(room, gpus - len(self._waiting))

    @property
    def waiting_for(self) -> str | None:
        """What keeps submitted trials from running, if anything does."""
        if not self._ready:
            return "the imports that trials share to be loaded"
        return None

    def submit(self, trial: Trial) -> None:
        self._waiting.append(Running(trial, self._folder.trial(trial.id, trial.attempt)))
        self._fill()

    def wait(self) -> Sequence[Report | Measured]:
        if not self._events:
            for key, _ in self._selector.select(self._until_next()):
                if key.fileobj is self._link:
                    self._receive()
                else:
                    self._drain()
        self._keep_time()
        for running in self._running.values():
            self._measure(running)
        self._fill()
        events, self._events = self._events, []
        return events

    def wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def close(self) -> None:
        self._waiting.clear()
        until = time.monotonic() + GRACE_S
        for key in self._running:
            self._send(signal=key, number=signal.SIGTERM)
        while self._running and (left := until - time.monotonic()) > 0:
            for ready, _ in self._selector.select(left):
                if ready.fileobj is self._link:
                    self._receive()
                else:
                    self._drain()
        self._running.clear()
        self._events.clear()
        self._link.close()  # ends the server, and with it whatever still runs
        self._server.wait()
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake)

    # ------------------------------------------------------------------ the fork server

    def _start_server(self, *, preload: bool) -> None:
        self._link, theirs = socket.socketpair()
        self._buffer = b""
        self._ready, self._started_at = not preload, time.monotonic()
        with theirs, (self._folder.path / "forkserver.log").open("ab") as output:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "shoal.runners.forkserver", str(theirs.fileno())],
                cwd=self._folder.path,  # where no module of the user's hides one that it needs
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C is for the controller alone
            )
        self._selector.register(self._link, selectors.EVENT_READ)
        if preload:
            script = self._launch.script
            self._send(
                cwd=str(self._directory),
                folder=str(self._launch.folder),
                script=None if script is None else str(script),
                preload=self._preload,
                skip={},
            )

    def _send(self, **message: Any) -> None:
        with suppress(OSError):  # a server that is gone is seen when we receive
            self._link.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self) -> None:
        try:
            data = self._link.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            self._server_died()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            match json.loads(line):
                case {"ready": loaded, "left": left}:
                    self._now_ready(loaded, left)
                case {"started": key}:
                    if self._timeout_s is not None and (started := self._running.get(key)):
                        started.deadline = time.monotonic() + self._timeout_s
                case {"ended": key, "status": status, "left": left}:
                    self._ended(key, status, left)

    def _now_ready(self, loaded: Sequence[str], left: Mapping[str, str]) -> None:
        self._ready = True
        seconds = time.monotonic() - self._started_at
        if loaded:
            names = ", ".join(loaded)
            self._log("info", f"warm start: {names} imported once for all trials ({seconds:.1f} s)")
        for name, why in left.items():
            self._log("warning", f"warm start: {name} is left to each trial, {why}")

    def _server_died(self) -> None:
        """What ran is lost, which is not its fault; a new server, that imports nothing, goes on."""
        self._selector.unregister(self._link)
        self._link.close()
        code = self._server.wait()
        end_leftovers(self._folder)
        self._deaths += 1
        if self._deaths > DEATHS:
            raise RunnerError(
                f"the fork server, which starts the trials, died {self._deaths} times, last with "
                f"exit code {code}: see {self._folder.path / 'forkserver.log'}"
            )
        self._log("warning", f"the fork server died (exit code {code}); trials now start cold")
        for running in self._running.values():
            trial = running.trial
            self._gpus.give_back(running.gpus)
            reason = "its process was lost with the fork server"
            self._events.append(Failed(trial.id, LOST, reason, trial.attempt))
        self._running.clear()
        self._launch = self._launch.cold
        self._start_server(preload=False)

    # ------------------------------------------------------------------ a trial's life

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._slots and self._gpus.free != 0:
            self._begin(self._waiting.popleft())

    def _begin(self, running: Running) -> None:
        trial = running.trial
        if self._checkpoints.lost(trial):
            load = self._checkpoints.load(trial)
            reason = f"it was to start from {load}, which is gone"
            self._events.append(Failed(trial.id, "lost checkpoint", reason, trial.attempt))
            return
        self._checkpoints.prepare(trial)
        shutil.rmtree(running.folder, ignore_errors=True)
        running.folder.mkdir(parents=True)
        message = json.dumps(self._describe(trial))
        (running.folder / "trial.json").write_text(message + "\n")
        running.gpus = self._gpus.take()
        key = f"{trial.id}/{trial.attempt}"
        self._running[key] = running
        launch = self._launch
        self._send(
            start=key,
            command=launch.command,
            argv=list(launch.argv),
            module=launch.module,
            unbuffered=launch.unbuffered,
            cwd=str(self._directory),
            env=self._trial_env(running),
            out=str(running.folder / "stdout"),
            err=str(running.folder / "stderr"),
        )

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
        return self._env | gpus | {
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
        if not self._ready and now > self._started_at + PRELOAD_S:
            self._server.kill()  # seen as a death, after which trials start cold
        for key, running in self._running.items():
            if running.deadline is not None and now >= running.deadline:
                number = signal.SIGKILL if running.asked_to_end else signal.SIGTERM
                self._send(signal=key, number=number)
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


def job(trial: Trial) -> str:
    """The id of `trial` as NNI's trials know theirs: text of five characters, or more."""
    return f"{trial.id:05d}"
