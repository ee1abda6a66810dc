"""The tuner on cases that can be told in a sentence; the laws are in properties/test_tuner_laws."""

from collections.abc import Callable
from random import Random
from statistics import median
from typing import Any

import pytest

from shoal.core.exploit import Truncation
from shoal.core.explore import Explore, Perturb, Shift
from shoal.core.population import ProtocolError
from shoal.core.records import Failed, Finished, Hparams, Trial
from shoal.core.space import Float, Normal, Space
from shoal.core.tuner import Tuner
from tests.play import Luck, Play, decisions

SPACE = Space({"x": Float(0, 1)})


def fail(trial: Trial) -> Failed:
    return Failed(trial.id, "crash", "exit code 1", trial.attempt)


def asked(tuner: Tuner) -> list[Trial]:
    """All that can be started now."""
    trials = []
    while trial := tuner.ask():
        trials.append(trial)
    return trials


def test_a_whole_run_ends_with_everybody_at_the_last_step() -> None:
    tuner = Tuner(SPACE, population=4, steps=3)
    Play(tuner, Luck()).run()
    assert tuner.done
    assert tuner.stuck is None
    assert [(t.step, t.member) for t in tuner.population.trials] == [
        (step, member) for step in range(3) for member in range(4)
    ]
    assert tuner.ask() is None


def test_generations_wait_for_the_last() -> None:
    tuner = Tuner(SPACE, population=3, steps=2)
    first = asked(tuner)
    assert [trial.step for trial in first] == [0, 0, 0]
    for trial in first[:2]:
        tuner.tell(Finished(trial.id, 1.0))
        assert tuner.ask() is None
    tuner.tell(Finished(first[2].id, 1.0))
    assert [trial.step for trial in asked(tuner)] == [1, 1, 1]


def test_the_worst_goes_on_from_the_best() -> None:
    space = Space({"x": Normal(0, 1)})
    tuner = Tuner(space, population=5, steps=2, explore=Shift(0.2, resample=0))
    for trial in asked(tuner):
        tuner.tell(Finished(trial.id, float(trial.member)))
    second = asked(tuner)
    assert [trial.parent for trial in second] == [4, 1, 2, 3, 4]
    best = tuner.population.trials[4]
    assert [t.hparams for t in second[1:]] == [t.hparams for t in tuner.population.trials[1:5]]
    assert abs(second[0].hparams["x"] - best.hparams["x"]) == pytest.approx(0.2)


def test_the_control_arm_is_copied_and_neither_ranked_nor_refilled() -> None:
    tuner = Tuner(SPACE, population=6, control=2, steps=4, exploit=Truncation(0.25), retries=0)
    for trial in asked(tuner):  # the controls, 4 and 5, are the best and the worst
        tuner.tell(Finished(trial.id, {4: 9.0, 5: -9.0}.get(trial.member, float(trial.member))))
    second = asked(tuner)
    assert [trial.parent for trial in second] == [4, 1, 2, 3, 4, 5], "one of four copies"
    assert [t.hparams for t in second[4:]] == [t.hparams for t in tuner.population.trials[4:6]]
    for trial in second:
        free = Finished(trial.id, 1.0)
        tuner.tell(fail(trial) if trial.member == 4 else free)
    third = asked(tuner)
    assert third[4].parent == 4, "it goes on from what it had"
    for trial in third:
        tuner.tell(Finished(trial.id, 1.0) if trial.member > 3 else fail(trial))
    refilled = asked(tuner)
    assert {t.parent for t in refilled[:4]} <= {t.id for t in third[4:]}, "nothing else is left"
    assert [t.parent for t in refilled[4:]] == [t.id for t in third[4:]]


def test_a_control_that_has_never_finished_begins_anew() -> None:
    tuner = Tuner(SPACE, population=2, control=1, steps=2, retries=0)
    first = asked(tuner)
    tuner.tell(Finished(0, 1.0))
    tuner.tell(fail(first[1]))
    again = asked(tuner)[1]
    assert (again.member, again.step, again.parent) == (1, 1, None)
    assert again.hparams != first[1].hparams


@pytest.mark.parametrize("control", [-1, 4])
def test_a_control_arm_is_no_larger_than_the_population(control: int) -> None:
    with pytest.raises(ValueError, match=f"control must be at .*, got {control}"):
        Tuner(SPACE, population=3, steps=1, control=control)


def test_a_failing_trial_is_retried_and_then_its_member_refilled() -> None:
    tuner = Tuner(SPACE, population=3, steps=2, retries=2)
    first = asked(tuner)
    for trial in first[:2]:
        tuner.tell(Finished(trial.id, 0.5))
    attempts = [first[2]]
    for _ in range(2):
        tuner.tell(fail(attempts[-1]))
        again = tuner.ask()
        assert again is not None
        attempts.append(again)
        assert tuner.ask() is None  # the others wait for it
    assert [t.attempt for t in attempts] == [1, 2, 3]
    assert {(t.id, t.member, t.hparams["x"], t.parent) for t in attempts} == {
        (2, 2, first[2].hparams["x"], None)
    }
    tuner.tell(fail(attempts[-1]))
    refilled = asked(tuner)[2]
    assert refilled.parent in {0, 1}
    assert refilled.hparams != tuner.population.trials[refilled.parent].hparams
    assert (refilled.step, refilled.attempt) == (1, 1)


def test_a_retry_that_succeeds_is_as_if_nothing_had_been() -> None:
    lucky, unlucky = (Tuner(SPACE, population=4, steps=5) for _ in range(2))
    Play(lucky, Luck()).run()
    Play(unlucky, Luck(failing=0.4)).run()
    assert decisions(lucky) == decisions(unlucky)
    assert any(trial.attempt == 2 for trial in unlucky.population.trials)


def test_a_generation_that_fails_as_a_whole_ends_the_run_and_says_so() -> None:
    tuner = Tuner(SPACE, population=2, steps=2, retries=0)
    for trial in asked(tuner):
        assert tuner.stuck is None
        tuner.tell(fail(trial))
    assert tuner.ask() is None
    assert not tuner.done
    assert tuner.stuck == "all 2 trials of step 0 failed"
    again = tuner.recover()  # somebody mended something
    assert [(t.id, t.attempt) for t in again] == [(0, 2), (1, 2)]
    assert tuner.stuck is None
    for trial in again:
        tuner.tell(Finished(trial.id, 1.0, attempt=2))
    assert len(asked(tuner)) == 2


def test_a_member_alone_goes_on_by_itself() -> None:
    tuner = Tuner(SPACE, population=1, steps=3)
    Play(tuner, Luck()).run()
    assert [trial.parent for trial in tuner.population.trials] == [None, 0, 1]
    assert len({trial.hparams["x"] for trial in tuner.population.trials}) == 1


@pytest.mark.parametrize(("trials", "ended"), [(1, 1), (4, 4), (10, 10), (999, 12)])
def test_the_number_of_trials_can_be_limited(trials: int, ended: int) -> None:
    tuner = Tuner(SPACE, population=4, steps=3, trials=trials)
    Play(tuner, Luck(failing=0.3), slots=3).run()
    assert tuner.done
    assert len(tuner.population.trials) == ended


def test_a_run_without_steps_goes_on_until_its_trials_are_spent() -> None:
    tuner = Tuner(SPACE, population=4, steps=None, trials=30)
    Play(tuner, Luck()).run()
    assert tuner.done
    assert max(trial.step for trial in tuner.population.trials) == 7


def test_asynchronous_members_do_not_wait() -> None:
    tuner = Tuner(SPACE, population=4, steps=None, synchronous=False)
    first = asked(tuner)
    for step in range(1, 10):  # one member runs ahead of three that take for ever
        last = tuner.population.last(0)
        assert last is not None
        tuner.tell(Finished(last.id, 1.0))
        (trial,) = asked(tuner)
        assert (trial.member, trial.step) == (0, step)
    assert [trial.member for trial in first] == [0, 1, 2, 3]


def test_asynchronous_members_are_compared_at_equal_step() -> None:
    """One far ahead is not better for having trained longer; half at the same step decide."""
    tuner = Tuner(SPACE, population=4, steps=None, synchronous=False, exploit=Truncation(0.25))
    first = asked(tuner)
    scores = {0: 0.4, 1: 0.3, 2: 0.2}
    for trial in first[:1]:
        for step in range(4):  # member 0 trains on, ever better
            last = tuner.population.last(0)
            assert last is not None
            tuner.tell(Finished(last.id, scores[0] + step))
            tuner.ask()
        assert trial.member == 0
    tuner.tell(Finished(1, scores[1]))
    one = tuner.ask()
    assert one is not None
    # with two of four at step 0 the lower of them is the bottom, and copies member 0 as it is now
    assert one.member == 1
    newest = tuner.population.newest(0)
    assert newest is not None
    assert one.parent == newest.trial.id


@pytest.mark.parametrize("report", [Finished(0, 1.0), Failed(0, "crash", ""), Finished(9, 1.0)])
def test_a_report_of_what_does_not_run_is_refused(report: Finished | Failed) -> None:
    tuner = Tuner(SPACE, population=2, steps=2)
    tuner.ask()
    tuner.tell(Finished(0, 0.5))
    with pytest.raises(ProtocolError):
        tuner.tell(report)
    assert tuner.population.best is not None
    assert tuner.population.best.score == 0.5
    assert [trial.id for trial in asked(tuner)] == [1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"population": 0}, "population must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
    ],
)
def test_impossible_numbers_are_refused(arguments: dict[str, int], complaint: str) -> None:
    given: dict[str, Any] = {"population": 2, "steps": 2} | arguments
    with pytest.raises(ValueError, match=complaint):
        Tuner(SPACE, **given)


def test_another_seed_is_another_run() -> None:
    runs = []
    for seed in (0, 0, 1):
        tuner = Tuner(SPACE, population=4, steps=3, seed=seed)
        Play(tuner, Luck()).run()
        runs.append(decisions(tuner))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


# The toy of figure 2 (Jaderberg et al., 2017): maximise 1.2 - (a^2 + b^2) by the gradient of
# 1.2 - (h0 a^2 + h1 b^2), from a = b = 0.9, with two members that see one half each.

TOY = Space({"h0": Float(0, 1), "h1": Float(0, 1)})
HALVES = (
    Trial(0, 0, 0, {"h0": 1.0, "h1": 0.0}, None),
    Trial(1, 1, 0, {"h0": 0.0, "h1": 1.0}, None),
)
GRID = 1.2 - 0.9**2  # what either half alone can reach: 0.39


def toy(
    exploit: Truncation = Truncation(0.5),
    explore: Explore = Shift(0.2, resample=0.5),
    seed: int = 0,
    synchronous: bool = True,
) -> float:
    """The highest score of 50 steps of 4 updates at a rate of 0.01."""
    tuner = Tuner(
        TOY,
        population=2,
        steps=50,
        exploit=exploit,
        explore=explore,
        synchronous=synchronous,
        seed=seed,
        journal=HALVES,
    )
    theta: dict[int | None, tuple[float, float]] = {None: (0.9, 0.9)}

    def train(trial: Trial, _failed: int) -> Finished:
        a, b = theta[trial.parent]
        for _ in range(4):
            a -= 0.02 * trial.hparams["h0"] * a
            b -= 0.02 * trial.hparams["h1"] * b
        theta[trial.id] = a, b
        return Finished(trial.id, 1.2 - a**2 - b**2)

    Play(tuner, train, slots=2).run()
    assert tuner.population.best is not None
    return tuner.population.best.score


def typical(run: Callable[[int], float]) -> float:
    return median(run(seed) for seed in range(31))


def keep(hparams: Hparams, space: Space, rng: Random) -> Hparams:
    return hparams


def test_toy_without_copies_is_a_grid_search() -> None:
    assert typical(lambda seed: toy(Truncation(0), seed=seed)) == pytest.approx(0.3897, abs=1e-4)


def test_toy_pbt_reaches_the_top() -> None:
    assert typical(lambda seed: toy(explore=Shift(0.2, resample=1), seed=seed)) >= 1.19
    assert typical(lambda seed: toy(explore=Shift(0.2, resample=0.5), seed=seed)) >= 1.19
    assert typical(lambda seed: toy(seed=seed, synchronous=False)) > GRID + 0.5


def test_toy_trap_1_equal_scores_are_no_reason_not_to_copy() -> None:
    """By symmetry both members score the same at first: "strictly better" never copies anybody."""
    for seed in range(10):
        assert toy(seed=seed) > GRID + 0.5


def test_toy_trap_2_factors_can_leave_0() -> None:
    assert typical(lambda seed: toy(explore=Perturb(resample=0), seed=seed)) > GRID + 0.5


def test_toy_trap_3_copying_without_exploring_gains_nothing() -> None:
    assert typical(lambda seed: toy(explore=keep, seed=seed)) == pytest.approx(0.39, abs=2e-2)


def test_toy_trap_4_two_members_are_a_population_with_and_without_generations() -> None:
    assert typical(lambda seed: toy(seed=seed, synchronous=True)) > GRID + 0.5
    assert typical(lambda seed: toy(seed=seed, synchronous=False)) > GRID + 0.5


def test_new_limits_leave_what_was_decided_alone() -> None:
    tuner = Tuner(SPACE, population=2, steps=1)
    play = Play(tuner, Luck()).run()
    assert tuner.done
    tuner.limit(3, None)
    assert not tuner.done
    play.run()
    whole = Tuner(SPACE, population=2, steps=3)
    Play(whole, Luck()).run()
    assert tuner.population.trials == whole.population.trials
    with pytest.raises(ValueError, match="trials must be at least 1, got 0"):
        tuner.limit(1, 0)
    assert (tuner.steps, tuner.trials) == (3, None)
    tuner.limit(2, None)
    assert tuner.done, "there is more than is allowed now"
