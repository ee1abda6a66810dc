"""Workers of a simulated world: real ones, but for their processes and the time that passes."""

import json
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from shoal.checkpoints import Checkpoints, remove
from shoal.core.records import LOST, Hparams
from shoal.core.tuner import Tuner
from shoal.home import Folder
from shoal.runners.crew import Event, Gone, Said, Sent
from shoal.runners.outcome import Objective
from shoal.runners.worker.worker import Worker
from shoal.runners.workers import WorkerRunner
from tests.simulation.world import PATIENCE, Script, Simulation, untrainable

TIMEOUT_S = 60.0


class Clock:
    """In the place of the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Toy:
    """Its state is what it was trained under; what it draws is part of its score."""

    def __init__(self, script: Script, clock: Clock) -> None:
        self._script, self._clock = script, clock

    def pass_time(self) -> None:
        self._clock.now += (0.01, 0.0001, 0.2, 5.0)[self._script.pick(4)]

    def init(self, hparams: Hparams, seed: int) -> list[float]:
        return [random.random()]

    def step(self, state: list[float], hparams: Hparams) -> tuple[list[float], Mapping[str, float]]:
        self.pass_time()
        h = hparams["h"]
        if untrainable(h):
            raise ArithmeticError("a hyperparameter that nobody can train under")
        state += [h, random.random()]
        return state, {"default": sum(state), "trained": sum(state[1::2])}

    def save(self, state: list[float], path: Path) -> None:
        self.pass_time()
        random.random()
        (path / "state.json").write_text(json.dumps(state))

    def load(self, path: Path) -> list[float]:
        self.pass_time()
        state: list[float] = json.loads((path / "state.json").read_text())
        return state


@dataclass
class Mate:
    """A worker, and what is on its way to it and from it."""

    worker: Worker | None = None  # None: it has not begun
    inbox: deque[Mapping[str, Any]] = field(default_factory=deque)
    outbox: deque[Mapping[str, Any]] = field(default_factory=deque)
    hangs: bool = False
    saves: dict[str, Path] = field(default_factory=dict)  # by what it is to save: to where
    trains: set[str] = field(default_factory=set)  # the attempts that it was told to


class SimulatedCrew:
    """Workers that do their next thing, hang and die when the script says so.

    `mishaps` is how many of them may hang or die. If they are `far`, what they save has to be sent,
    which takes a while, in which they go on; it is lost if their machine is.
    """

    waiting_for = None

    def __init__(self, script: Script, clock: Clock, mishaps: int, *, far: bool = False) -> None:
        self._script, self._clock, self.mishaps, self._far = script, clock, mishaps, far
        self._sending: dict[str, tuple[str, Path]] = {}  # by what it is: by whom, and to where
        self._mates: dict[str, Mate] = {}
        self._gone: list[Event] = []
        self._idle = 0  # how often in a row nobody had anything to do

    @property
    def can_start(self) -> bool:
        return True

    def want(self, workers: int) -> None:
        pass

    def start(self, key: str) -> None:
        assert key not in self._mates
        self._mates[key] = Mate()

    def send(self, key: str, message: Mapping[str, Any]) -> None:
        if (mate := self._mates.get(key)) is None:
            return
        mate.inbox.append(json.loads(json.dumps(message)))
        if attempt := message.get("train", {}).get("key"):
            assert not any(attempt in other.trains for other in self._mates.values()), "only once"
            mate.trains.add(attempt)
        match message:
            case {"train": {"save": str(to), "key": what}} | {"save": what, "to": str(to)}:
                mate.saves[str(what)] = Path(to)

    def end(self, key: str) -> None:
        if key in self._mates:
            self._lose(key, "killed")

    def dismiss(self, key: str) -> None:
        assert not [what for what, (by, _) in self._sending.items() if by == key], "it is all there"
        if (mate := self._mates.pop(key, None)) is not None:
            assert all("drop" in message for message in mate.inbox), "it has nothing to do"

    def wait(self, seconds: float) -> Sequence[Event]:
        if self._gone:
            gone, self._gone = self._gone, []
            return gone
        if self._sending and self._script.pick(3) == 0:
            arrived, (_, to) = self._sending.popitem()
            sent(to).rename(to)
            return [Sent(arrived)]
        able = [key for key in self._mates if self._able(self._mates[key])]
        what = self._script.pick(10) if self.mishaps else 0
        if not able or what == 9:
            self._clock.now += max(seconds, 1e-3)
            self._idle += 1
            assert self._idle < PATIENCE, "everybody waits, and nothing will come"
            return []
        self._idle = 0
        key = able[self._script.pick(len(able))]
        mate = self._mates[key]
        if what in {7, 8}:
            self.mishaps -= 1
            if what == 7:
                mate.hangs = True
            else:
                kind = (LOST, "killed")[self._script.pick(2)]
                while mate.outbox and self._script.pick(2):  # the last it was heard to say
                    self._gone.append(self._said(key, mate))
                self._lose(key, kind)
            return []
        del self._mates[key]
        self._mates[key] = mate  # its turn comes last now
        if mate.worker is None:
            mate.worker = Worker(Toy(self._script, self._clock), mate.outbox.append)
            return [Said(key, {"ready": 1, "holds states": True})]
        if not mate.outbox:
            mate.worker.do({k: v for k, v in mate.inbox.popleft().items() if k != "folder"})
            mate.worker._put_down()  # random generators are a process's own
        if not mate.outbox:
            return []
        return [self._said(key, mate)]

    def _said(self, key: str, mate: Mate) -> Said:
        message = json.loads(json.dumps(mate.outbox.popleft()))
        mate.trains.discard(message.get("done", message.get("failed")))
        what = str(message.get("done", message.get("saved")))
        to = mate.saves.pop(what, None)
        if to is None or not self._far or "error" in message:
            return Said(key, message)
        remove(sent(to))
        to.rename(sent(to))
        self._sending[what] = key, to
        return Said(key, {**message, "sending": True})

    def wake(self) -> None:
        pass

    def close(self) -> None:
        self._mates.clear()

    @staticmethod
    def _able(mate: Mate) -> bool:
        return not mate.hangs and bool(mate.worker is None or mate.inbox or mate.outbox)

    def _lose(self, key: str, kind: str) -> None:
        del self._mates[key]
        self._gone.append(Gone(key, kind, "as the script says"))
        if kind == LOST:  # with its machine
            for what in [what for what, (by, _) in self._sending.items() if by == key]:
                del self._sending[what]
                self._gone.append(Sent(what, "lost on its way"))


def sent(to: Path) -> Path:
    """Where that is before it is there."""
    return to.with_name(f"{to.name}.sent")


@dataclass
class Workers(Simulation):
    """A run by workers that hold states.

    Args:
        workers: how many there are.
        hold: whether states are held, and not saved at each step.
        every: how often they are saved all the same.
        far: whether what is saved has to be sent to another machine.
    """

    workers: int = 2
    hold: bool = True
    every: Any = "auto"
    far: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.clock = Clock()

    @contextmanager
    def life(self, tuner: Tuner, checkpoints: Checkpoints) -> Iterator[WorkerRunner]:
        crew = SimulatedCrew(self.script, self.clock, self.mishaps, far=self.far)
        runner = WorkerRunner(
            crew,
            folder=Folder(self.folder / "experiment"),
            checkpoints=checkpoints,
            objective=Objective("default", "max"),
            workers=self.workers,
            population=self.population,
            seed=self.seed,
            timeout_s=TIMEOUT_S,
            every=self.every,
            hold=self.hold,
            synchronous=self.synchronous,
            log=self.note,
        )
        with clocked(self.clock):
            try:
                yield runner
                left = crew.mishaps
                runner.settle(float("inf"))
            finally:
                runner.close()
        checkpoints.retain(tuner.live)
        for id in (
            tuner.live if crew.mishaps == left else ()
        ):  # what dies at it is not tried for ever
            assert checkpoints.way(id) == (id, []), "all that can go on is on disk at the end"


@contextmanager
def clocked(clock: Clock) -> Iterator[None]:
    """Let the runner and its workers live by `clock`."""
    with (
        mock.patch("shoal.runners.workers.time", clock),
        mock.patch("shoal.runners.worker.worker.time", clock),
    ):
        yield
