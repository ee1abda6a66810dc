"""Shift and Perturb over a whole space: what is moved, what is drawn afresh."""

from random import Random

import pytest

from shoal.core.explore import Explore, Perturb, Shift
from shoal.core.space import Choice, Fixed, Float, Int, Space

SPACE = Space({"x": Float(0, 10), "n": Int(0, 1000), "c": Choice(["a", "b", "c"]), "k": Fixed(7)})
START = {"x": 5.0, "n": 500, "c": "b", "k": 7}


def results(explore: Explore, count: int = 300) -> list[dict[str, object]]:
    return [dict(explore(START, SPACE, Random(seed))) for seed in range(count)]


def test_shift_moves_everything_both_ways() -> None:
    after = results(Shift(0.2, resample=0))
    assert {result["x"] for result in after} == {3.0, 7.0}
    assert {result["n"] for result in after} == {499, 501}
    assert {result["c"] for result in after} == {"a", "c"}
    assert {result["k"] for result in after} == {7}
    # each on its own: every combination turns up
    assert len({(r["x"], r["n"], r["c"]) for r in after}) == 8


def test_perturb_multiplies_by_each_factor() -> None:
    after = results(Perturb((0.5, 1.2, 1.5), resample=0))
    assert {result["x"] for result in after} == {2.5, 6.0, 7.5}
    assert {result["n"] for result in after} == {250, 600, 750}


@pytest.mark.parametrize("explore", [Shift(0.2, resample=0.25), Perturb(resample=0.25)])
def test_each_is_resampled_with_its_own_chance(explore: Explore) -> None:
    after = results(explore, 2000)
    moved = {3.0, 7.0, 4.0, 6.0}
    fresh_x = [result["x"] not in moved for result in after]
    fresh_n = [result["n"] not in {499, 501, 400, 600} for result in after]
    assert sum(fresh_x) / 2000 == pytest.approx(0.25, abs=0.04)
    assert sum(fresh_n) / 2000 == pytest.approx(0.25, abs=0.04)
    both = sum(x and n for x, n in zip(fresh_x, fresh_n, strict=True))
    assert both / 2000 == pytest.approx(0.0625, abs=0.03)


def test_resampling_everything_follows_the_prior() -> None:
    values = [result["n"] for result in results(Shift(resample=1), 1000)]
    assert len(set(values)) > 500


def test_the_start_is_left_alone() -> None:
    before = dict(START)
    results(Shift())
    assert before == START


def test_the_default_numbers_are_nnis_and_the_papers() -> None:
    assert Shift() == Shift(factor=0.2, resample=0.25)
    assert Perturb() == Perturb(factors=(0.8, 1.2), resample=0.25)


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf")])
def test_a_shift_has_a_length(factor: float) -> None:
    with pytest.raises(ValueError, match="factor must be a number above 0"):
        Shift(factor)


@pytest.mark.parametrize(
    "factors", [(), (1.0,), (0.0, 2.0), (-1.0,), (float("nan"),), (float("inf"),)]
)
def test_a_perturbation_changes_something(factors: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="factors must be numbers above 0 and not 1"):
        Perturb(factors)


@pytest.mark.parametrize("strategy", [Shift, Perturb])
@pytest.mark.parametrize("resample", [-0.1, 1.1, float("nan")])
def test_resampling_is_a_probability(strategy: type[Shift | Perturb], resample: float) -> None:
    with pytest.raises(ValueError, match="resample must be between 0 and 1"):
        strategy(resample=resample)
