"""A world in which everything that may happen to a run happens when the test says so.

The loop, the tuner and the retention of checkpoints are the real ones; simulated is the life of the
controller. What runs the trials is `crew.py`'s or `slots.py`'s. What happens is read off a list of
numbers, or drawn. Where that ends, all goes well: the shortest list is the simplest story.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from random import Random
from typing import Any, Self

from hypothesis import note

from shoal.checkpoints import Checkpoints
from shoal.controller import waits_for
from shoal.core.records import Finished, Record, Trial
from shoal.core.space import Float, Space
from shoal.core.tuner import Tuner
from shoal.loop import run
from shoal.runners.base import Runner
from shoal.stores.memory import MemoryStore

SPACE = Space({"h": Float(0, 1)})
PATIENCE = 1500  # turns of the loop in a row in which nothing comes


def untrainable(h: float) -> bool:
    """Whether nobody can train under this."""
    return int(1e4 * h) % 13 == 0


class Script:
    """What happens, by number; 0 once the numbers are used up."""

    def __init__(self, numbers: Sequence[int] | Random = ()) -> None:
        self._drawn = numbers if isinstance(numbers, Random) else None
        self._numbers = iter(() if isinstance(numbers, Random) else numbers)

    def pick(self, many: int) -> int:
        """One of so many."""
        if many <= 1:
            return 0
        return next(self._numbers, 0) % many if self._drawn is None else self._drawn.randrange(many)


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


@dataclass
class Simulation:
    """A run in such a world, and what holds of it at every moment.

    Args:
        folder: where its checkpoints are.
        numbers: what happens.
        mishaps: how often something may go wrong, in each life of the controller.
        deaths: how often the controller may die.
        orders: how often the user may pause the run, or change how many run at a time.
    """

    folder: Path
    numbers: Sequence[int] | Random = ()
    mishaps: int = 0
    deaths: int = 0
    orders: int = 0
    population: int = 4
    steps: int = 4
    synchronous: bool = True
    retries: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        self.script = Script(self.numbers)
        self.store = Store(self.script, self.deaths)
        self.lives = self.turns = 0
        self.log: list[str] = []

    def life(self, tuner: Tuner, checkpoints: Checkpoints) -> AbstractContextManager[Runner]:
        """What runs trials in one life of the controller, and ends as it should after it."""
        raise NotImplementedError

    def run(self) -> Self:
        """Run to the end, through all lives of the controller."""
        try:
            while not self._live():
                self.store.die()
            self._check_journal()
        except AssertionError:
            note(f"the story, to be kept in golden/: {json.dumps(self.story())}")
            raise
        return self

    def story(self) -> dict[str, Any]:
        """How to tell this run again, and its journal."""
        how = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "folder"}
        how["numbers"] = [] if isinstance(self.numbers, Random) else list(self.numbers)
        journal: list[Any] = [[type(record).__name__, asdict(record)] for record in self.records]
        for _, record in journal:
            if "reason" in record:  # without where it happened, which is this machine's
                record["reason"] = record["reason"].partition("\n")[0]
        return {"world": type(self).__name__, "how": how, "journal": journal}

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

    def tuner(self, journal: Sequence[Record] | None = None) -> Tuner:
        """A tuner that knows the journal."""
        return Tuner(
            SPACE, population=self.population, steps=self.steps, seed=self.seed,
            synchronous=self.synchronous, retries=self.retries,
            journal=self.records if journal is None else journal,
        )  # fmt: skip

    def _live(self) -> bool:
        """One life of the controller; whether it came to the end."""
        self.lives += 1
        tuner = self.tuner()
        checkpoints = Checkpoints(self.folder, tuner.population)
        seen, paused = 0, False

        def watch(tuner: Tuner) -> str | None:
            nonlocal seen, paused
            trials = tuner.population.trials
            self._check(tuner, runner, trials[seen:])
            seen = len(trials)
            if not paused and self.orders and (what := self.script.pick(12)) > 9:
                self.orders -= 1
                if what == 10:
                    runner.resize(1 + self.script.pick(2 * self.population))
                else:
                    paused = True
                    runner.withdraw()
            return "paused" if paused else None

        try:
            going = True
            while going:
                paused = False
                with self.life(tuner, checkpoints) as runner:
                    run(tuner, runner, self.store, checkpoints, watch)
                going = paused and not (tuner.done or tuner.stuck)
        except Died:
            return False
        assert tuner.done or tuner.stuck, "nobody stops before the end"
        checkpoints.retain(tuner.live)
        there = self._on_disk()
        assert there <= len(tuner.live), "at the end there is only what can be needed"
        return True

    def note(self, level: str, text: str) -> None:
        """Take in a line of the log."""
        self.log.append(f"{level}: {text}")

    def _check(self, tuner: Tuner, runner: Runner, decided: Sequence[Trial]) -> None:
        """What holds at every turn of the loop."""
        running = tuner.population.running.values()
        assert len({trial.member for trial in running}) == len(running) <= self.population
        assert all(0 <= trial.member < self.population for trial in decided)
        assert all(SPACE.contains(trial.hparams) for trial in decided)
        assert not running or runner.waiting_for or waits_for(tuner), "who waits knows for what"
        self.turns += 1
        if self.turns % max(1, self.population // 20) == 0:  # it walks, where the loop does not
            # whose turn it was, whom they started from, what failed just now; and the best
            assert self._on_disk() <= 3 * self.population + 1, "what is kept does not grow"

    def _on_disk(self) -> int:
        if not self.folder.is_dir():
            return 0
        members = [member.path for member in os.scandir(self.folder) if member.is_dir()]
        return sum(step.name.isdecimal() for member in members for step in os.scandir(member))

    def _check_journal(self) -> None:
        """What holds of the journal at the end."""
        tuner = self.tuner()
        ends = Counter((r.trial, r.attempt) for r in self.records if not isinstance(r, Trial))
        assert set(ends.values()) <= {1}, "each attempt is reported once"
        finished = [r for r in self.records if isinstance(r, Finished)]
        assert len({r.trial for r in finished}) == len(finished), "and nobody finishes twice"
        assert not tuner.population.running
        for report in finished:
            line = tuner.population.lineage(tuner.population.trials[report.trial])
            trained = sum(trial.hparams["h"] for trial in line)
            assert abs(report.metrics["trained"] - trained) < 1e-9, "in the state of its lineage"
