"""A damaged journal made whole again, as far as that can be done.

Each record that can still be read is kept. What is missing between them is taken from the files of
the trials themselves, where they are scripts: `trial.json` has what was decided, `metrics.jsonl`
what was reported. Where nothing tells it, the journal ends there: what came after is decided again.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from shoal.config import Config, ConfigError
from shoal.core.population import Population, ProtocolError
from shoal.core.records import LOST, Failed, Finished, Record, Report, Trial
from shoal.core.tuner import again
from shoal.home import ExperimentError, Folder, is_experiment, locked
from shoal.runners.outcome import Objective, Reported, measure
from shoal.stores.base import Entry
from shoal.stores.salvage import Salvage, rebuilt, salvage
from shoal.stores.sqlite import StoreError

MOST_ATTEMPTS = 10_000  # who says more is damaged
GONE = "what became of it was lost with the journal"


class Untold(Exception):  # noqa: N818 (nothing is wrong: it is where the journal ends)
    """A record that is missing, and that no file tells of."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair has come to, or would come to.

    Args:
        sound: whether there was nothing to repair.
        readable: how many records of the journal can be read.
        filled: how many more the trials' own files tell of.
        dropped: how many that can be read come after something that nothing tells of.
        trials: of how many trials it knows in the end.
        kept: where the damaged file is now; None while nothing was done.
    """

    sound: bool
    readable: int
    filled: int
    dropped: int
    trials: int
    kept: Path | None = None


def repair(folder: Folder, agreed: Callable[[Repair], bool]) -> Repair:
    """Make the journal of the experiment in `folder` whole again, if it is not.

    Args:
        folder: the experiment's.
        agreed: is told what would come of it; whether to do it.

    Raises:
        ExperimentError: it runs, or nothing can be recovered.
    """
    with locked(folder):
        try:
            found = salvage(folder.journal)
            config = _config(folder, found)
            mended = Mended(folder, config, found)
            plan = mended.repair
            if plan.sound or not agreed(plan):
                return plan
            with TemporaryDirectory(dir=folder.path, prefix=".repaired-") as name:
                whole = Path(name) / folder.journal.name
                rebuilt(whole, found, mended.entries)
                return replace(plan, kept=_swap(whole, folder.journal))
        except StoreError as error:
            raise ExperimentError(f"experiment {folder.id}: {error}") from error


def _config(folder: Folder, found: Salvage) -> Config:
    if not is_experiment(found.meta):
        raise ExperimentError(
            f"experiment {folder.id} cannot be repaired: what it is, its configuration, cannot be "
            f"read any more. `shoal rm {folder.id}` deletes it; its checkpoints are in "
            f"{folder.checkpoints}, if it named no other folder."
        )
    try:
        return Config.restore(json.loads(found.meta["config"]))
    except ConfigError as error:
        raise ExperimentError(f"experiment {folder.id} cannot be repaired: {error}") from error


def _swap(new: Path, old: Path) -> Path:
    """Put `new` in the place of the journal `old`: where that is now."""
    number = 1
    while (kept := old.with_name(f"{old.name}.damaged-{number}")).exists():
        number += 1
    os.link(old, kept)
    with suppress(FileNotFoundError):  # what was not in the file yet
        Path(f"{old}-wal").rename(f"{kept}-wal")
    Path(f"{old}-shm").unlink(missing_ok=True)
    new.replace(old)
    return kept


class Mended:
    """The records of a damaged journal, with what was missing between them."""

    def __init__(self, folder: Folder, config: Config, found: Salvage) -> None:
        self.entries: list[Entry] = []
        self._folder, self._config, self._at = folder, config, 0.0
        self._population = Population(config.population, config.seed, config.control)
        self._ids: dict[tuple[str, str], int] = {}  # by member and step
        self._failed: dict[int, Failed] = {}  # by trial: its newest failure
        self._objective = Objective(config.metric, config.mode)
        records = [record for _, record in found.entries.values()]
        self._told = {(r.trial, r.attempt) for r in records if not isinstance(r, Trial)}
        self._retried = {(r.id, r.attempt - 1) for r in records if isinstance(r, Trial)}
        used = self._take_in(found)
        self.repair = Repair(
            sound=found.sound and found.gaps == 0 and used == len(found.entries),
            readable=len(found.entries),
            filled=len(self.entries) - used,
            dropped=len(found.entries) - used,
            trials=len(self._population.trials),
        )

    def _take_in(self, found: Salvage) -> int:
        """How many of the records that were found have a place."""
        used = 0
        try:
            for _, (at, record) in sorted(found.entries.items()):
                self._at = at
                for missing in self._before(record):
                    self._put(missing)
                self._put(record)
                used += 1
            whole = found.sound and found.gaps == 0
            while not whole and self._attempts(len(self._population.trials)):
                for missing in self._whole(len(self._population.trials)):
                    self._put(missing)
        except (Untold, ProtocolError):
            pass
        return used

    def _put(self, record: Record) -> None:
        self._population.apply(record)
        self.entries.append(Entry(self._at, record))
        if isinstance(record, Failed):
            self._failed[record.trial] = record
        if isinstance(record, Trial):
            self._ids[str(record.member), str(record.step)] = record.id

    def _before(self, record: Record) -> Iterator[Record]:
        """What is missing between the records so far and `record`."""
        trials = self._population.trials
        id = record.id if isinstance(record, Trial) else record.trial
        member = record.member if isinstance(record, Trial) else 0
        if id < 0 or not 0 <= member < self._config.population or record.attempt > MOST_ATTEMPTS:
            raise Untold
        until = id if isinstance(record, Trial) and record.attempt == 1 else id + 1
        while len(trials) < until:
            yield from self._whole(len(trials))
        if isinstance(record, Trial) and record.attempt == 1:
            yield from self._end_of(record.member)
            return
        while trials[id].attempt < record.attempt - isinstance(record, Trial):
            yield replace(trials[id], attempt=trials[id].attempt + 1)

    def _whole(self, id: int) -> Iterator[Record]:
        """The trial `id` as its own files tell of it, as far as the journal does not."""
        attempts = self._attempts(id)
        if not attempts:
            raise Untold
        trial = self._trial(id, attempts[0])
        yield from self._end_of(trial.member)
        yield trial
        yield from self._rest(trial, attempts[-1])

    def _rest(self, trial: Trial, attempts: int) -> Iterator[Record]:
        """What came after `trial` was decided, of so many attempts, up to what the journal has."""
        while trial.attempt < attempts:
            if (trial.id, trial.attempt) in self._told or (
                trial.id,
                trial.attempt,
            ) in self._retried:
                return
            yield Failed(trial.id, LOST, GONE, trial.attempt)
            trial = replace(trial, attempt=trial.attempt + 1)
            yield trial
        if (trial.id, trial.attempt) not in self._told and (report := self._report(trial)):
            yield report

    def _end_of(self, member: int) -> Iterator[Record]:
        """How the newest trial of `member`, which has moved on, had come to an end."""
        last, population = self._population.last(member), self._population
        if last is None or self._has_settled(last.id):
            return
        attempts = self._attempts(last.id)
        if not attempts:
            raise Untold
        if last.id not in population.running:
            last = replace(last, attempt=last.attempt + 1)
            yield last
        yield from self._rest(last, attempts[-1])
        while not self._has_settled(last.id):  # it had failed for good
            last = population.trials[last.id]
            if last.id in population.running:
                yield Failed(last.id, "no result", GONE, last.attempt)
            else:
                yield replace(last, attempt=last.attempt + 1)

    def _has_settled(self, id: int) -> bool:
        failures = self._population.failures
        if id in self._population.running:
            return False
        if id not in failures:
            return True
        return not again(self._failed[id], failures[id], self._config.retries)

    def _attempts(self, id: int) -> list[int]:
        """The attempts at the trial `id` that have a folder."""
        folder = self._folder.trial(id, 1).parent
        names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
        return sorted(int(name) for name in names if name.isdecimal())

    def _trial(self, id: int, attempt: int) -> Trial:
        try:
            told = json.loads((self._folder.trial(id, attempt) / "trial.json").read_text())
            trial = Trial(id, told["member"], told["step"], told["hparams"], self._parent(told))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Untold from error
        known = isinstance(trial.member, int) and 0 <= trial.member < self._config.population
        if not (known and self._config.space.contains(trial.hparams)):
            raise Untold
        return trial

    def _parent(self, told: Mapping[str, Any]) -> int | None:
        if told["load"] is None:
            return None
        load = Path(told["load"])
        return self._ids[load.parent.name, load.name]

    def _report(self, trial: Trial) -> Report | None:
        """What `trial` has reported at its end, if it was a result."""
        reported = Reported(self._folder.trial(trial.id, trial.attempt) / "metrics.jsonl")
        reported.read()
        if not reported.finals or reported.problem is not None:
            return None
        metric, metrics = measure(reported.finals[0], self._objective.metric)
        try:
            return Finished(
                trial.id, self._objective.score(metric), metrics, attempt=trial.attempt
            ) if metric is not None else None  # fmt: skip
        except ValueError:  # NaN
            return None
