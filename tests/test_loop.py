"""The loop, with a runner in this process and a journal in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shoal.checkpoints import Checkpoints
from shoal.core.records import Failed, Finished, Record, Report, Trial
from shoal.core.tuner import Tuner
from shoal.loop import run
from shoal.runners.inline import InlineRunner
from shoal.stores.memory import MemoryStore
from tests.lab import SPACE

Theta = tuple[float, float]


def toy(state: Theta | None, trial: Trial) -> tuple[Theta, float]:
    """The paper's toy: four updates of gradient ascent on a surrogate."""
    a, b = state or (0.9, 0.9)
    for _ in range(4):
        a, b = a - 0.02 * trial.hparams["h0"] * a, b - 0.02 * trial.hparams["h1"] * b
    return (a, b), 1.2 - a * a - b * b


def tuned(store: MemoryStore, **fields: Any) -> Tuner:
    given = {"population": 4, "steps": 5, "seed": 3, **fields}
    return Tuner(SPACE, journal=(entry.record for entry in store.read()), **given)


def records(store: MemoryStore) -> list[Record]:
    return [entry.record for entry in store.read()]


def never(tuner: Tuner) -> str | None:
    return None


def driven(
    folder: Path, step: Any = toy, slots: int = 2, **fields: Any
) -> tuple[Tuner, MemoryStore]:
    store = MemoryStore()
    tuner = tuned(store, **fields)
    checkpoints = Checkpoints(folder, tuner.population)
    assert run(tuner, InlineRunner(step, slots), store, checkpoints, never) is None
    return tuner, store


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("synchronous", [True, False])
def test_it_ends_and_its_journal_is_its_state(
    tmp_path: Path, slots: int, synchronous: bool
) -> None:
    tuner, store = driven(tmp_path, slots=slots, synchronous=synchronous)
    assert tuner.done
    again = tuned(store, synchronous=synchronous)
    assert again.done
    assert again.population.trials == tuner.population.trials
    assert again.population.best == tuner.population.best


class Strict(InlineRunner):
    """Refuses a trial that is not in the journal yet."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(toy, slots=3)
        self._store = store

    def submit(self, trial: Trial) -> None:
        assert trial in records(self._store), "acted on before it was recorded"
        decided_by = [r for r in records(self._store) if not isinstance(r, Trial)]
        ended = {report.trial for report in decided_by}
        assert trial.parent is None or trial.parent in ended, "used before it was recorded"
        super().submit(trial)


def test_there_is_room_before_a_trial_begins(tmp_path: Path) -> None:
    counts = []

    class Watched(InlineRunner):
        def submit(self, trial: Trial) -> None:
            counts.append(len(list(tmp_path.glob("*/*"))))
            checkpoints.prepare(trial)
            checkpoints.save(trial).mkdir()
            super().submit(trial)

    store = MemoryStore()
    tuner = tuned(store)
    checkpoints = Checkpoints(tmp_path, tuner.population)
    run(tuner, Watched(toy, 4), store, checkpoints, never)
    assert len(counts) == 20
    assert max(counts) <= 2 * 4, "its parents, the best, and what the others of its step made"


def test_nothing_is_acted_on_before_it_is_recorded(tmp_path: Path) -> None:
    store = MemoryStore()
    tuner = tuned(store)
    run(tuner, Strict(store), store, Checkpoints(tmp_path, tuner.population), never)
    assert tuner.done


def test_who_is_stopped_finishes_what_runs_and_begins_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    tuner = tuned(store)

    def after_six(tuner: Tuner) -> str | None:
        return "enough" if len(tuner.population.trials) >= 6 else None

    checkpoints = Checkpoints(tmp_path, tuner.population)
    assert run(tuner, InlineRunner(toy, 3), store, checkpoints, after_six) == "enough"
    assert not tuner.population.running
    assert 6 <= len(tuner.population.trials) < 9


def test_what_a_dead_controller_left_running_runs_again(tmp_path: Path) -> None:
    _, whole = driven(tmp_path, slots=1)
    for cut in range(1, len(records(whole))):
        store = MemoryStore()
        for record in records(whole)[:cut]:
            store.append(record)
        store.commit()
        tuner = tuned(store)
        runner = InlineRunner(toy)
        for record in records(store):  # checkpoints survive
            if isinstance(record, Finished):
                trial = tuner.population.trials[record.trial]
                start = None if trial.parent is None else runner.states[trial.parent]
                runner.states[trial.id], _ = toy(start, trial)
        run(tuner, runner, store, Checkpoints(tmp_path, tuner.population), never)
        ended = {r.trial: r.score for r in records(store) if isinstance(r, Finished)}
        expected = {r.trial: r.score for r in records(whole) if isinstance(r, Finished)}
        assert ended == expected
        assert [(t.id, t.member, t.step, t.hparams, t.parent) for t in tuner.population.trials] == [
            (t.id, t.member, t.step, t.hparams, t.parent)
            for t in records(whole)
            if isinstance(t, Trial)
        ]


def test_a_run_in_which_everybody_fails_returns(tmp_path: Path) -> None:
    def broken(state: object, trial: Trial) -> tuple[object, float]:
        raise RuntimeError("no data")

    tuner, store = driven(tmp_path, broken)
    assert tuner.stuck == "all 4 trials of step 0 failed"
    assert sum(isinstance(record, Failed) for record in records(store)) == 8


class Confused(InlineRunner):
    """Says everything twice, and has more to say of attempts that were given up."""

    def wait(self) -> Sequence[Report]:
        said = super().wait()
        late = [Finished(report.trial, 99.0, attempt=report.attempt + 1) for report in said]
        return [*late, *said, *[Finished(report.trial, 99.0) for report in said], *said]


@pytest.mark.parametrize("synchronous", [True, False])
def test_each_trial_is_reported_once_whoever_else_speaks(tmp_path: Path, synchronous: bool) -> None:
    store, quiet = MemoryStore(), MemoryStore()
    for runner, journal in ((Confused(toy, 2), store), (InlineRunner(toy, 2), quiet)):
        tuner = tuned(journal, synchronous=synchronous)
        run(tuner, runner, journal, Checkpoints(tmp_path, tuner.population), never)
    assert records(store) == records(quiet)
