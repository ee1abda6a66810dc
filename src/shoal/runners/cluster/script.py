"""The user's command as a host runs it: one trial at a time, and each a process of its own."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from shoal.core.population import Population
from shoal.core.records import LOST, Finished, Measured, Report, Saved, Seen, Started, Trial
from shoal.durable import make_last
from shoal.home import Folder
from shoal.runners.base import Log
from shoal.runners.crew import Event, Gone, Said
from shoal.runners.gpus import Gpus
from shoal.runners.launch import Launch, environment
from shoal.runners.outcome import Objective
from shoal.runners.script import ScriptRunner


@dataclass(frozen=True, slots=True)
class Script:
    """What the trials of an experiment are, where they are a command.

    Attributes:
        command: the command line; or
        train: a function, `module:name`.
        warm: whether Python begins warm.
        metric: which of the numbers that come back counts, and
        mode: which way.
        seed: of the experiment.
        timeout_s: how long a trial may run.
        preload: libraries to share.
    """

    command: str | None
    train: str | None
    warm: bool
    metric: str
    mode: Literal["max", "min"]
    seed: int
    timeout_s: float | None
    preload: Sequence[str]


class Named:
    """The folders of one trial at a time, as whoever leads us names them."""

    def __init__(self) -> None:
        self.population = Population(1)  # we know of no other trial
        self._load: Path | None = None
        self._save = Path()

    def name(self, load: str | None, save: str) -> None:
        """Take in what the next trial starts from and saves to."""
        self._load, self._save = None if load is None else Path(load), Path(save)

    def load(self, trial: Trial) -> Path | None:
        return self._load

    def save(self, trial: Trial) -> Path:
        return self._save

    def prepare(self, trial: Trial) -> None:
        self._save.parent.mkdir(parents=True, exist_ok=True)

    def lost(self, trial: Trial) -> bool:
        return False  # whoever leads us has looked

    def last(self, trial: Trial, then: Callable[[OSError | None], None]) -> None:
        try:
            make_last(self._save, self._save.parent.parent)
        except OSError as error:
            then(error)
        else:
            then(None)


class ScriptCrew:
    """A crew of one, which runs a command.

    Args:
        script: that command.
        folder: where trials read and write.
        directory: in which they run.
        env: variables for them.
        gpus: what they see of the GPUs.
        log: is told what the user should know.
    """

    waiting_for = None

    def __init__(
        self,
        script: Script,
        *,
        folder: Folder,
        directory: Path,
        env: Mapping[str, str],
        gpus: Gpus,
        log: Log,
    ) -> None:
        env = environment(folder, directory, env)
        launch = Launch.wanted(script.command, script.train, directory, env, warm=script.warm)
        self._objective = Objective(script.metric, script.mode)
        self._named = Named()
        self._make: Callable[[], ScriptRunner] = partial(
            ScriptRunner,
            launch,
            folder,
            self._named,
            self._objective,
            slots=1,
            directory=directory,
            env=env,
            gpus=gpus,
            seed=script.seed,
            timeout_s=script.timeout_s,
            preload=script.preload,
            log=log,
        )
        self._runner = self._make()
        self._key: str | None = None
        self._began: dict[int, float] = {}  # by trial
        self._telling = False  # whether to say that it has begun
        self._jobs: list[Mapping[str, Any]] = []  # not yet begun: one at a time
        self._events: list[Event] = []

    @property
    def can_start(self) -> bool:
        return self._key is None

    def want(self, workers: int) -> None:
        pass

    def start(self, key: str) -> None:
        self._key = key
        self._events.append(Said(key, {"ready": 0, "holds states": False}))

    def send(self, key: str, message: Mapping[str, Any]) -> None:
        if "train" in message:
            self._jobs.append(message["train"])

    def end(self, key: str) -> None:
        if self._key == key:
            self._runner.close()
            self._runner, self._key = self._make(), None
            self._jobs.clear()
            self._began.clear()
            self._events.append(Gone(key, LOST, "it was ended"))

    def dismiss(self, key: str) -> None:
        self._key = None

    def wait(self, seconds: float) -> Sequence[Event]:
        if self._jobs and not self._began:
            self._submit(self._jobs.pop(0))
        if not self._events:
            for event in self._runner.wait():
                self._hear(event)
        events, self._events = self._events, []
        return events

    def wake(self) -> None:
        self._runner.wake()

    def close(self) -> None:
        self._runner.close()

    def _submit(self, job: Mapping[str, Any]) -> None:
        (told,) = job["steps"]
        self._named.name(job["load"], job["save"])
        # whose folder it loads from is the affair of whoever leads us
        trial = Trial(
            told["id"], told["member"], told["step"], told["hparams"], None, told["attempt"]
        )
        self._began[trial.id] = time.monotonic()
        self._telling = job["tell"]
        self._runner.submit(trial)

    def _hear(self, event: Report | Seen) -> None:
        if isinstance(event, Saved) or self._key is None:
            return
        key = f"{event.trial}/{event.attempt}"
        match event:
            case Started(trial):
                self._began[trial] = time.monotonic()
                if not self._telling:
                    return
                message: dict[str, Any] = {"begun": key}
            case Measured(_, _, value):
                message = {"reported": key, "value": value}
            case Finished(trial):
                spent = time.monotonic() - self._began.pop(trial)
                value = event.metrics or self._objective.score(event.score)
                message = {"done": key, "value": value, "seconds": spent, "spent": spent}
            case _:
                self._began.pop(event.trial)
                message = {"failed": key, "kind": event.kind, "reason": event.reason}
        self._events.append(Said(self._key, message))
