"""Each decision is explained as it was made."""

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given

from shoal.core.exploit import Cohort, Move, Truncation
from shoal.core.records import Record, Result, Trial
from shoal.core.space import Float, Space
from shoal.core.tuner import Tuner
from shoal.explain import Undecided, explain
from tests.play import Luck, Play
from tests.properties.test_tuner_laws import Setting, orders, settings, slots


@given(settings(), slots, orders)
def test_every_decision_of_a_run_is_explained(
    setting: Setting, slots: int, order: Random | None
) -> None:
    play = Play(setting.tuner(), setting.luck, slots, order).run(limit=40)
    trials = play.tuner.population.trials
    for trial in trials:
        told = explain(setting.tuner_after, play.journal, trial.member, trial.step)
        assert (told.trial.id, told.again) == (trial.id, True)
        if trial.parent is None:
            assert (told.what, told.cohort, told.changes) == ("began", (), {})
            continue
        parent = trials[trial.parent]
        assert told.what == "was refilled" or (
            (told.what == "went on") == (parent.member == trial.member)
        )
        assert [place.rank for place in told.cohort] == [*range(1, len(told.cohort) + 1)]
        scores = [place.result.score for place in told.cohort]
        assert scores == sorted(scores, reverse=True)
        if setting.synchronous:
            assert told.at == trial.step - 1
        if told.what == "went on":
            assert told.donor is None
            assert told.changes == {}
            continue
        assert told.donor is not None
        assert told.donor.start.trial.id == trial.parent
        assert told.bottom is not None
        assert told.donor.rank <= max(told.bottom, 1)
        assert told.before == parent.hparams
        if told.what == "copied" and told.own is not None and setting.synchronous:
            assert told.own.rank > len(told.cohort) - told.bottom


def test_what_was_not_decided_is_not_explained() -> None:
    space = Space({"x": Float(0, 1)})

    def make(journal: Iterable[Record]) -> Tuner:
        return Tuner(space, population=2, steps=3, journal=journal)

    play = Play(make([]), Luck()).run(limit=4)
    for member, step, said in (
        (2, 0, "there is no member 2: there are 2, 0 to 1"),
        (0, 7, "member 0 has not begun step 7: its latest is step 0"),
    ):
        with pytest.raises(Undecided, match=said):
            explain(make, play.journal, member, step)
    with pytest.raises(Undecided, match="it has done nothing yet"):
        explain(make, [], 1, 0)


class Best:
    """Everybody copies the best."""

    def __call__(self, own: Result | None, cohort: Cohort, rng: Random) -> Move:
        best = cohort[len(cohort) - 1]
        return Move(best, best.trial.hparams, explore=True)


def test_a_decision_of_another_strategy_is_said_to_be_one() -> None:
    space = Space({"x": Float(0, 1)})

    def make(journal: Iterable[Record], exploit: object = Truncation()) -> Tuner:
        return Tuner(space, population=4, steps=3, journal=journal, exploit=exploit)  # type: ignore[arg-type]

    play = Play(make([], Best()), Luck()).run()
    copies = [t for t in play.tuner.population.trials if isinstance(t, Trial) and t.step == 1]
    told = [explain(make, play.journal, trial.member, 1) for trial in copies]
    assert not all(decision.again for decision in told)
    own = [explain(lambda j: make(j, Best()), play.journal, t.member, 1) for t in copies]
    assert all(decision.again and decision.bottom is None for decision in own)
