"""The population as a fold over records: what it knows, what it refuses."""

from copy import deepcopy

import pytest

from shoal.core.population import Population, ProtocolError, Ranking
from shoal.core.records import Failed, Finished, Record, Result, Trial


def trial(id: int, member: int, step: int, parent: int | None = None, attempt: int = 1) -> Trial:
    return Trial(id, member, step, {"x": float(id)}, parent, attempt)


def population(*records: Record, size: int = 2) -> Population:
    made = Population(size)
    for record in records:
        made.apply(record)
    return made


def state(of: Population) -> dict[str, object]:
    """Everything that a record could change."""
    return {
        "trials": list(of.trials),
        "running": dict(of.running),
        "failures": dict(of.failures),
        "best": of.best,
        "latest": list(of.latest),
        "newest": [of.newest(m) for m in range(of.size)],
        "last": [of.last(m) for m in range(of.size)],
        "at": [list(of.at(step)) for step in range(5)],
    }


GENERATION = (
    trial(0, 0, 0),
    trial(1, 1, 0),
    Finished(0, 0.5),
    Finished(1, 0.75),
)


def test_it_knows_where_everybody_is() -> None:
    half = population(*GENERATION[:3])
    assert half.running == {1: trial(1, 1, 0)}
    assert half.newest(0) == Result(trial(0, 0, 0), 0.5)
    assert half.newest(1) is None
    assert half.last(1) == trial(1, 1, 0)
    assert [half.next_step(m) for m in (0, 1)] == [1, 1]
    assert population().next_step(0) == 0


def test_the_best_is_the_highest_and_of_equals_the_first_decided() -> None:
    equals = population(trial(0, 0, 0), trial(1, 1, 0), Finished(1, 0.5), Finished(0, 0.5))
    assert equals.best == Result(trial(0, 0, 0), 0.5)
    later = population(*GENERATION, trial(2, 0, 1, 1), Finished(2, 0.1))
    assert later.best == Result(trial(1, 1, 0), 0.75)


def test_results_of_zero_and_below_count() -> None:
    assert population(trial(0, 0, 0), Finished(0, 0.0)).best is not None
    assert population(trial(0, 0, 0), Finished(0, -3.0)).newest(0) is not None


def test_a_lineage_goes_through_parents_root_first() -> None:
    made = population(*GENERATION, trial(2, 0, 1, 1), Finished(2, 1.0), trial(3, 0, 2, 2))
    assert made.lineage(made.trials[3]) == [trial(1, 1, 0), trial(2, 0, 1, 1), trial(3, 0, 2, 2)]


def test_a_retry_takes_the_place_of_the_attempt_before() -> None:
    again = trial(0, 0, 0, attempt=2)
    made = population(trial(0, 0, 0), Failed(0, "crash", ""), again)
    assert made.trials == [again]
    assert made.running == {0: again}
    assert made.failures == {0: 1}
    made.apply(Finished(0, 1.0, attempt=2))
    assert made.failures == {}


def test_a_lost_attempt_is_no_failure() -> None:
    made = population(trial(0, 0, 0), trial(0, 0, 0, attempt=2))
    assert made.failures == {}
    with pytest.raises(ProtocolError):  # the first process was given up
        made.apply(Finished(0, 1.0, attempt=1))


@pytest.mark.parametrize(
    "record",
    [
        trial(3, 0, 1),  # 2 is next
        trial(1, 1, 0),  # the same attempt again
        trial(1, 1, 0, attempt=3),  # 2 is next
        trial(-1, 0, 1),
        Finished(0, 1.0),  # has ended
        Failed(0, "crash", ""),
        Finished(7, 1.0),
        Finished(1, 1.0, attempt=2),
        Failed(1, "crash", "", attempt=0),
    ],
)
def test_what_cannot_follow_is_refused_and_changes_nothing(record: Record) -> None:
    made = population(*GENERATION[:3])
    before = deepcopy(state(made))
    with pytest.raises(ProtocolError):
        made.apply(record)
    assert state(made) == before


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_is_finite(score: float) -> None:
    with pytest.raises(ValueError, match="is a Failed"):
        Finished(0, score)


def test_a_steps_results_stay_until_nobody_can_ask_for_them() -> None:
    made = population(*GENERATION)
    made.apply(trial(2, 0, 1, 0))
    made.apply(Finished(2, 1.0))
    assert len(made.at(0)) == 2  # member 1 has not begun step 1
    made.apply(trial(3, 1, 1, 1))
    made.apply(Finished(3, 1.0))
    made.apply(trial(4, 0, 2, 2))
    made.apply(Finished(4, 1.0))
    assert len(made.at(0)) == 0
    assert len(made.at(1)) == 2


def test_a_ranking_is_worst_first_and_forgets_what_is_removed() -> None:
    results = [Result(trial(i, i, 0), score) for i, score in enumerate((0.2, 0.9, 0.5))]
    ranking = Ranking()
    for result in results:
        ranking.add(result)
    assert [r.score for r in ranking] == [0.2, 0.5, 0.9]
    assert [ranking.rank(r) for r in results] == [0, 2, 1]
    assert ranking[2] is results[1]
    ranking.remove(results[2])
    assert [r.score for r in ranking] == [0.2, 0.9]
    assert len(ranking) == 2
