"""How a user is told of trials that failed for good."""

from shoal.core.records import Failed, Trial
from shoal.failures import AT_ONCE, PAUSE_S, Failures, summary


def test_the_first_are_told_one_by_one_and_the_others_now_and_then() -> None:
    said: list[str] = []
    failures = Failures(said.append)

    def fail(id: int, at: float) -> None:
        trial = Trial(id, id % 4, id // 4, {}, None)
        failures.failed(trial, Failed(id, "crash", f"ValueError: {id}\nTraceback ..."), at)

    for id in range(AT_ONCE):
        fail(id, 0.0)
    assert said[1] == "trial 1 (member 1, step 0) failed: crash: ValueError: 1"
    for id in range(AT_ONCE, 50):
        fail(id, 1.0)
    assert len(said) == AT_ONCE
    fail(50, PAUSE_S)
    last = "trial 50 (member 2, step 12) failed: crash: ValueError: 50"
    assert said[AT_ONCE:] == [f"{51 - AT_ONCE} more trials failed, the last: {last}"]
    fail(51, PAUSE_S + 1)
    failures.settle()
    failures.settle()
    assert said[AT_ONCE + 1 :] == ["trial 51 (member 3, step 12) failed: crash: ValueError: 51"]


def test_a_reason_of_any_length_is_a_line() -> None:
    said: list[str] = []
    Failures(said.append).failed(Trial(0, 0, 0, {}, None), Failed(0, "crash", "x" * 10**6), 0.0)
    assert len(said[0]) < 300


def test_a_summary_counts_causes() -> None:
    assert summary([]) == ""
    assert summary(["nan: its final result is nan"] * 3) == "nan"
    errors = ["nan: x"] * 3 + ["timeout: y"] * 2 + [f"crash: ValueError: {n}" for n in range(4)]
    assert summary(errors) == "nan (3), timeout (2), ValueError: 0 (1), others (3)"
