"""A world in which everything that may happen to a run happens when the test says so.

The loop, the tuner, the runner of workers, the workers themselves and the retention of checkpoints
are the real ones. Simulated are time, the processes of the workers, and the life of the controller.
What happens is read off a list of numbers. Where that ends, all goes well: the shortest list is the
simplest story.
"""

import json
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from shoal.checkpoints import Checkpoints
from shoal.controller import waits_for
from shoal.core.records import LOST, Failed, Finished, Hparams, Record
from shoal.core.space import Float, Space
from shoal.core.tuner import Tuner
from shoal.home import Folder
from shoal.loop import run
from shoal.runners.crew import Event, Gone, Said
from shoal.runners.outcome import Objective
from shoal.runners.worker.worker import Worker
from shoal.runners.workers import WorkerRunner
from shoal.stores.memory import MemoryStore

SPACE = Space({"h": Float(0, 1)})
TIMEOUT_S = 60.0


class Script:
    """What happens, by number; 0 once the numbers are used up."""

    def __init__(self, numbers: Sequence[int] = ()) -> None:
        self._numbers = iter(numbers)

    def pick(self, many: int) -> int:
        """One of so many."""
        return next(self._numbers, 0) % many if many > 1 else 0


class Clock:
    """In the place of the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Died(BaseException):
    """The controller was killed."""


class Store(MemoryStore):
    """A journal whose controller may die before and after each commit."""

    def __init__(self, script: Script, deaths: int) -> None:
        super().__init__()
        self._script, self._deaths = script, deaths

    def commit(self) -> None:
        self._perhaps_die()
        super().commit()
        self._perhaps_die()

    def die(self) -> None:
        """Forget what was not committed."""
        self._pending.clear()

    def _perhaps_die(self) -> None:
        if self._deaths and self._script.pick(8) == 1:
            self._deaths -= 1
            raise Died


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
        if int(1e4 * h) % 13 == 0:
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


class SimulatedCrew:
    """Workers that do their next thing, hang and die when the script says so.

    `mishaps` is how many of them may hang or die.
    """

    waiting_for = None

    def __init__(self, script: Script, clock: Clock, mishaps: int) -> None:
        self._script, self._clock, self.mishaps = script, clock, mishaps
        self._mates: dict[str, Mate] = {}
        self._gone: list[Event] = []
        self._idle = 0  # how often in a row nobody had anything to do

    @property
    def can_start(self) -> bool:
        return True

    def start(self, key: str) -> None:
        assert key not in self._mates
        self._mates[key] = Mate()

    def send(self, key: str, message: Mapping[str, Any]) -> None:
        if key in self._mates:
            self._mates[key].inbox.append(json.loads(json.dumps(message)))

    def end(self, key: str) -> None:
        if key in self._mates:
            self._lose(key, "killed")

    def wait(self, seconds: float) -> Sequence[Event]:
        if self._gone:
            gone, self._gone = self._gone, []
            return gone
        able = [key for key in self._mates if self._able(self._mates[key])]
        what = self._script.pick(10) if self.mishaps else 0
        if not able or what == 9:
            self._clock.now += max(seconds, 1e-3)
            self._idle += 1
            assert self._idle < 1500, "everybody waits, and nothing will come"
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
                    self._gone.append(Said(key, mate.outbox.popleft()))
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
        return [Said(key, json.loads(json.dumps(mate.outbox.popleft())))]

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


@dataclass
class Simulation:
    """A run in such a world, and what holds of it at every moment.

    Args:
        folder: where its checkpoints are.
        numbers: what happens.
        mishaps: how many workers may hang or die, in each life of the controller.
        deaths: how often the controller may die.
    """

    folder: Path
    numbers: Sequence[int] = ()
    mishaps: int = 0
    deaths: int = 0
    population: int = 4
    steps: int = 4
    workers: int = 2
    synchronous: bool = True
    hold: bool = True
    every: Any = "auto"
    retries: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        self.script, self.clock = Script(self.numbers), Clock()
        self.store = Store(self.script, self.deaths)
        self.lives = 0
        self.log: list[str] = []

    def run(self) -> "Simulation":
        """Run to the end, through all lives of the controller."""
        with clocked(self.clock):
            while not self._live():
                self.store.die()
        self._check_journal()
        return self

    @property
    def records(self) -> list[Record]:
        return [entry.record for entry in self.store.read()]

    def decided(self) -> list[Any]:
        """Every trial as it was decided, and its score."""
        scores = {r.trial: (r.score, r.metrics) for r in self.records if isinstance(r, Finished)}
        return [
            (trial.id, trial.member, trial.step, trial.hparams, trial.parent, scores.get(trial.id))
            for trial in self.tuner().population.trials
        ]

    def tuner(self) -> Tuner:
        """A tuner that knows the journal."""
        return Tuner(
            SPACE, population=self.population, steps=self.steps, seed=self.seed,
            synchronous=self.synchronous, retries=self.retries, journal=self.records,
        )  # fmt: skip

    def _live(self) -> bool:
        """One life of the controller; whether it came to the end."""
        self.lives += 1
        tuner = self.tuner()
        checkpoints = Checkpoints(self.folder, tuner.population)
        crew = SimulatedCrew(self.script, self.clock, self.mishaps)
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
            log=self._log,
        )

        def watch(tuner: Tuner) -> None:
            self._check(tuner, runner)

        try:
            run(tuner, runner, self.store, checkpoints, watch)
            left = crew.mishaps
            runner.settle(float("inf"))
            well = crew.mishaps == left
            checkpoints.retain(tuner.live)
        except Died:
            return False
        finally:
            runner.close()
        assert tuner.done or tuner.stuck, "nobody stops before the end"
        for id in tuner.live if well else ():  # what dies at it is not tried for ever
            assert checkpoints.way(id) == (id, []), "all that can go on is on disk at the end"
        self._check_disk(tuner)
        return True

    def _log(self, level: str, text: str) -> None:
        self.log.append(f"{level}: {text}")

    def _check(self, tuner: Tuner, runner: WorkerRunner) -> None:
        """What holds at every turn of the loop."""
        population = tuner.population
        running = population.running.values()
        assert len({trial.member for trial in running}) == len(running) <= self.population
        assert all(trial.member < self.population for trial in running)
        assert all(SPACE.contains(trial.hparams) for trial in running)
        assert not running or runner.waiting_for or waits_for(tuner), "who waits knows for what"
        self._check_disk(tuner)

    def _check_disk(self, tuner: Tuner) -> None:
        needed = len(tuner.live)
        there = [path for path in self.folder.glob("*/*") if path.name.isdecimal()]
        assert len(there) <= 2 * needed + 1, "what is kept does not grow with the steps"

    def _check_journal(self) -> None:
        """What holds of the journal at the end."""
        tuner = self.tuner()
        ends: dict[tuple[int, int], int] = {}
        for record in self.records:
            if isinstance(record, Finished | Failed):
                ends[record.trial, record.attempt] = ends.get((record.trial, record.attempt), 0) + 1
        assert set(ends.values()) <= {1}, "each attempt is reported once"
        finished = [r for r in self.records if isinstance(r, Finished)]
        assert len({r.trial for r in finished}) == len(finished), "and nobody finishes twice"
        assert not tuner.population.running
        for report in finished:
            line = tuner.population.lineage(tuner.population.trials[report.trial])
            trained = sum(trial.hparams["h"] for trial in line)
            assert abs(report.metrics["trained"] - trained) < 1e-9, "in the state of its lineage"


@contextmanager
def clocked(clock: Clock) -> Iterator[None]:
    """Let the runner and its workers live by `clock`."""
    with (
        mock.patch("shoal.runners.workers.time", clock),
        mock.patch("shoal.runners.worker.worker.time", clock),
    ):
        yield
