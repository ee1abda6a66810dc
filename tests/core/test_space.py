"""Each domain: what it draws (by NNI's formulas), refuses, and how it moves where that is hard."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from math import exp, log
from random import Random
from statistics import NormalDist
from typing import Any

import pytest

from shoal.core.explore import Perturb, Shift
from shoal.core.space import (
    Branch,
    Choice,
    Domain,
    Fixed,
    Float,
    Int,
    Normal,
    Space,
    SpaceError,
)

DRAWS = 4000
# Kolmogorov and Smirnov: a right formula is farther off than this once in 100,000 seeds
FARTHEST = 2.5 / DRAWS**0.5


def drawn(domain: Domain, count: int = DRAWS) -> list[Any]:
    rng = Random(7)
    return [domain.sample(rng) for _ in range(count)]


def farthest(values: list[float], cdf: Callable[[float], float]) -> float:
    """How far the share of values below a point is from what it should be, at most."""
    ordered = sorted(values)
    return max(abs((i + 0.5) / len(ordered) - cdf(x)) for i, x in enumerate(ordered))


@pytest.mark.parametrize(
    ("domain", "cdf"),
    [
        (Float(-2, 6), lambda x: (x + 2) / 8),
        (Float(1e-4, 1, log=True), lambda x: (log(x) - log(1e-4)) / -log(1e-4)),
        (Normal(3, 2), NormalDist(3, 2).cdf),
        (Normal(-1, 0.5, log=True), lambda x: NormalDist(-1, 0.5).cdf(log(x))),
    ],
)
def test_continuous_draws_follow_their_formula(
    domain: Domain, cdf: Callable[[float], float]
) -> None:
    assert farthest(drawn(domain), cdf) < FARTHEST


@pytest.mark.parametrize(
    ("domain", "cdf", "grid", "edges"),
    [
        (
            Float(0, 1, step=0.25),
            lambda x: x,
            [0, 0.25, 0.5, 0.75, 1],
            [n / 8 for n in (1, 3, 5, 7)],
        ),
        (
            Float(1, 100, log=True, step=25),
            lambda x: log(x) / log(100),
            [1, 25, 50, 75, 100],  # what is rounded to 0 is clipped to 1
            [12.5, 37.5, 62.5, 87.5],
        ),
    ],
)
def test_rounded_draws_follow_their_formula(
    domain: Domain, cdf: Callable[[float], float], grid: list[float], edges: list[float]
) -> None:
    counts = Counter(drawn(domain))
    assert set(counts) == set(grid)
    for x, (below, above) in zip(grid, pairwise([0, *map(cdf, edges), 1]), strict=True):
        assert counts[x] / DRAWS == pytest.approx(above - below, abs=0.04)


def test_rounding_clips_to_a_bound_that_is_no_multiple() -> None:
    assert set(drawn(Float(0.1, 1, step=0.3))) == {0.1, 0.3, 0.6, 0.9}
    assert set(drawn(Float(0.2, 0.7, step=0.5))) == {0.2, 0.5}
    assert set(drawn(Float(0.2, 0.8, step=0.5))) == {0.2, 0.5, 0.8}


def test_rounded_normals_follow_their_formula() -> None:
    counts = Counter(drawn(Normal(0, 1, step=0.5)))
    assert all(value == round(value / 0.5) * 0.5 for value in counts)
    for value in (-0.5, 0.0, 1.0):
        expected = NormalDist().cdf(value + 0.25) - NormalDist().cdf(value - 0.25)
        assert counts[value] / DRAWS == pytest.approx(expected, abs=0.03)
    # round(lognormal / 1) gives 0 below one half
    zeros = Counter(drawn(Normal(0, 1, log=True, step=1)))[0.0]
    assert zeros / DRAWS == pytest.approx(NormalDist().cdf(log(0.5)), abs=0.03)


def test_whole_numbers_are_drawn_evenly_with_both_bounds() -> None:
    counts = Counter(drawn(Int(2, 5)))
    assert sorted(counts) == [2, 3, 4, 5]
    assert all(count / DRAWS == pytest.approx(0.25, abs=0.04) for count in counts.values())


def test_logarithmic_whole_numbers_favour_small_ones() -> None:
    counts = Counter(drawn(Int(1, 4, log=True)))
    assert sorted(counts) == [1, 2, 3, 4]
    width = log(4.5) - log(0.5)
    assert counts[1] / DRAWS == pytest.approx((log(1.5) - log(0.5)) / width, abs=0.04)
    assert counts[4] / DRAWS == pytest.approx((log(4.5) - log(3.5)) / width, abs=0.04)


def test_options_are_drawn_evenly_whatever_they_are() -> None:
    options = [1, 1.0, True, "1", None, [1, 2], [3]]
    counts = Counter(map(repr, drawn(Choice(options))))
    assert sorted(counts) == sorted(map(repr, options))
    assert all(count / DRAWS == pytest.approx(1 / 7, abs=0.03) for count in counts.values())


def test_a_branch_is_drawn_with_its_own_hyperparameters() -> None:
    sgd = Branch("sgd", Space({"momentum": Float(0, 1)}))
    domain = Choice([sgd, Branch("adam", Space({}))])
    values = drawn(domain, 100)
    assert {value["_name"] for value in values} == {"sgd", "adam"}
    assert all(v.keys() == {"_name", "momentum"} for v in values if v["_name"] == "sgd")
    assert all(v == {"_name": "adam"} for v in values if v["_name"] == "adam")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Float(1, 0.1), "low must be below high, got low=1, high=0.1"),
        (lambda: Float(1, 1), "low must be below high"),
        (lambda: Float(0, 1, log=True), "a logarithmic range must be above 0, got low=0"),
        (lambda: Float(0, "1"), "high must be a number, got '1'"),  # type: ignore[arg-type]
        (lambda: Float(True, 2), "low must be a number, got True"),
        (lambda: Float(0, float("nan")), "high must be a number, got nan"),
        (lambda: Float(0, 10**400), "high must be a number"),
        (lambda: Float(-1.7e308, 1.7e308), "high - low must be a number, got inf"),
        (lambda: Float(0, 1, step=0), "step must be above 0, got step=0"),
        (lambda: Float(0, 1e9, step=1e-7), "step is too fine"),
        (lambda: Int(3, 2), "low must not be above high"),
        (lambda: Int(1.0, 2), "low must be a whole number, got 1.0"),  # type: ignore[arg-type]
        (lambda: Int(0, 2, log=True), "a logarithmic range must be above 0"),
        (lambda: Int(0, 2**64), "high must fit in 64 bits"),
        (lambda: Normal(0, 0), "sd must be above 0"),
        (lambda: Normal(0, 100, log=True), "overflows"),
        (lambda: Normal(1e9, 1e-9), "sd is lost beside mean"),
        (lambda: Normal(0, 1e305), "mean + a million sd must be a number, got inf"),
        (lambda: Normal(0, 1e9, step=1e-7), "step is too fine"),
        (lambda: Choice([]), "at least one option"),
        (lambda: Choice("abc"), "at least one option, got 'abc'"),
        (lambda: Choice([{1}]), "got {1}"),
        (lambda: Choice([Branch("a", Space({})), Branch("a", Space({}))]), "the same _name"),
        (lambda: Branch("a", Space({"_name": Fixed(1)})), "cannot be a hyperparameter"),
        (lambda: Fixed(float("inf")), "got inf"),
    ],
)
def test_an_impossible_domain_is_refused(make: Callable[[], Domain], complaint: str) -> None:
    with pytest.raises(SpaceError) as caught:
        make()
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        (Float(0, 1), 1),
        (Float(0, 1), True),
        (Float(0, 1), 1.5),
        (Float(0, 1), float("nan")),
        (Float(0, 1, step=0.1), 0.30000000000000004),
        (Int(0, 3), 1.0),
        (Int(0, 3), True),
        (Int(0, 3), 4),
        (Normal(0, 1), float("inf")),
        (Normal(0, 1), float("nan")),
        (Normal(0, 1, log=True), 0.0),
        (Normal(0, 1, step=0.5), 0.3),
        (Choice([1, 2]), True),
        (Choice([1, 2]), 1.0),
        (Choice([[1, 2]]), [1]),
        (Fixed(1), 1.0),
        (Choice([Branch("a", Space({"x": Int(0, 1)}))]), {"_name": "a"}),
        (Choice([Branch("a", Space({"x": Int(0, 1)}))]), {"_name": "a", "x": 2}),
        (Choice([Branch("a", Space({"x": Int(0, 1)}))]), "a"),
    ],
)
def test_what_a_domain_does_not_give_it_does_not_contain(domain: Domain, value: Any) -> None:
    assert not domain.contains(value)


def reached(domain: Domain, value: Any, factor: float = 0.2) -> set[Any]:
    """Everything that one shift makes of `value`."""
    return {domain.shift(value, factor, Random(seed)) for seed in range(20)}


@pytest.mark.parametrize(
    ("domain", "value", "expected"),
    [
        # the table of NNI's moves, section 1.6 of its description
        (Int(1, 5), 3, {2, 4}),
        (Float(0, 10), 5.0, {3.0, 7.0}),
        (Float(0, 1, step=0.1), 0.2, {0.1, 0.3}),
        (Float(1, 100, log=True, step=5), 50.0, {45.0, 55.0}),
        (Normal(0, 2, step=0.5), 0.5, {0.0, 1.0}),
        (Choice(["a", "b", "c"]), "b", {"a", "c"}),
        (Fixed("a"), "a", {"a"}),
        # what a bound forbids is not done; what is beyond it ends there
        (Int(1, 5), 5, {4, 5}),
        (Int(1, 5), 1, {1, 2}),
        (Float(0, 10), 10.0, {8.0, 10.0}),
        (Float(0, 10), 9.0, {10.0, 7.0}),
        (Float(0, 1, step=0.3), 1.0, {0.9, 1.0}),
        (Float(1, 10, log=True), 10.0, {10**0.8, 10.0}),
        (Choice(["a", "b", "c"]), "c", {"b", "c"}),
        (Normal(0, 1, log=True, step=1), 0.0, {1.0}),
        # an option named twice is one neighbour, not a way to stand still
        (Choice([1, 1, 2]), 1, {1, 2}),
        (Choice([1, 2, 2, 3]), 2, {1, 3}),
        (Choice([1, 1.5]), 1.5, {1, 1.5}),
    ],
)
def test_a_shift_goes_where_nni_goes(domain: Domain, value: Any, expected: set[Any]) -> None:
    assert reached(domain, value) == expected


@pytest.mark.parametrize(
    ("domain", "bound"),
    [(Float(0, 1), 0.0), (Int(0, 9), 9), (Choice(["a", "b"]), "a"), (Float(0, 1, step=0.3), 1.0)],
)
def test_at_a_bound_half_of_the_shifts_stay(domain: Domain, bound: Any) -> None:
    stayed = sum(domain.shift(bound, 0.2, Random(seed)) == bound for seed in range(1000))
    assert 450 <= stayed <= 550


def test_logarithmic_shifts_are_in_the_logarithm() -> None:
    low, high = sorted(reached(Float(1e-4, 1, log=True), 1e-2))
    assert low == pytest.approx(exp(log(1e-2) - 0.2 * log(1e4)))
    assert high == pytest.approx(exp(log(1e-2) + 0.2 * log(1e4)))
    low, high = sorted(reached(Normal(0, 2, log=True), 1.0))
    assert (low, high) == pytest.approx((exp(-0.4), exp(0.4)))
    assert sorted(reached(Normal(0, 2), 1.0)) == pytest.approx([0.6, 1.4])


@pytest.mark.parametrize(
    ("domain", "value", "factor", "expected"),
    [
        (Float(0, 10), 5.0, 1.2, 6.0),
        (Float(0, 10), 5.0, 0.8, 4.0),
        (Float(-10, 10), -5.0, 1.2, -6.0),
        (Float(1, 100, log=True), 50.0, 0.8, 40.0),
        (Int(1, 100), 50, 1.2, 60),
        (Int(-100, 100), -50, 0.8, -40),
        (Float(0, 1, step=0.1), 0.5, 1.2, 0.6),
        (Normal(0, 1), 2.0, 1.2, 2.4),
        # never stuck: at 0, at a small whole number, between two steps, at a bound
        (Float(0, 1), 0.0, 1.2, 0.02),
        (Float(0, 1), 0.0, 0.8, 0.02),
        (Int(0, 10), 0, 1.2, 1),
        (Int(1, 10), 1, 1.2, 2),
        (Int(1, 10), 2, 0.8, 1),
        (Int(1, 10), 1, 0.8, 2),
        (Float(0, 1, step=0.1), 0.1, 1.2, 0.2),
        (Float(0, 1, step=0.25), 0.5, 1.2, 0.75),
        (Float(0, 1, step=0.25), 0.5, 0.8, 0.25),
        (Float(1, 100, log=True, step=10), 50.0, 1.05, 60.0),
        (Float(0, 1), 1.0, 1.2, 0.8),
        (Choice([1, 2, 3]), 2, 1.2, 3),
        (Choice([1, 2, 3]), 2, 0.8, 1),
        (Choice([1, 2, 3]), 3, 1.2, 2),
    ],
)
def test_scaling_is_a_product_that_never_sticks(
    domain: Domain, value: Any, factor: float, expected: Any
) -> None:
    moved = domain.scale(value, factor, Random(0))
    assert moved == pytest.approx(expected)
    assert type(moved) is type(value)


@pytest.mark.parametrize(
    "domain",
    [
        Float(1.0, 1.0000000000000002),  # two floats
        Float(1e15, 1e15 + 1),
        Float(-8e307, 8e307),
        Float(5e-324, 1e-320),
        Float(1e-300, 1e300, log=True),
        Float(1e-9, 1e-8, step=1e-9),
        Int(2**62, 2**63 - 1),
        Int(1, 2**63 - 1, log=True),
        Normal(1e6, 1e-9),
        Normal(0, 1e-300),
        Normal(0, 1e300),
        Normal(0, 80, log=True),
        Normal(10, 2, log=True, step=0.1),
    ],
)
@pytest.mark.parametrize(
    "explore", [Shift(1.0, 0), Shift(1e6, 0), Perturb((5,), 0), Perturb((0.01,), 0)]
)
def test_long_walks_at_the_edge_of_floats(domain: Domain, explore: Shift | Perturb) -> None:
    space, rng = Space({"x": domain}), Random(1)
    ends = () if isinstance(domain, Normal) else (domain.low, domain.high)  # type: ignore[attr-defined]
    hparams = space.sample(rng)
    for _ in range(500):
        after = explore(hparams, space, rng)
        assert space.contains(after)
        stays = isinstance(explore, Shift) and hparams["x"] in ends
        assert after != hparams or stays
        hparams = after


def test_steps_are_the_decimals_that_people_write() -> None:
    domain = Float(0, 1, step=0.1)
    assert set(drawn(domain)) == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0}
    assert reached(domain, 0.2) == {0.1, 0.3}  # not 0.30000000000000004


def test_a_branch_moves_inside_as_often_as_to_a_neighbour() -> None:
    a = Branch("a", Space({"x": Int(0, 100)}))
    domain = Choice([a, Branch("b", Space({}))])
    moves = [domain.shift({"_name": "a", "x": 50}, 0.2, Random(seed)) for seed in range(200)]
    inside = [move for move in moves if move["_name"] == "a"]
    assert {move["x"] for move in inside} == {49, 51}
    assert 70 < len(inside) < 130


def test_a_space_draws_in_the_order_of_its_names() -> None:
    x, y = Float(0, 1), Float(0, 1)
    one, other = (
        Space({"x": x, "y": y}).sample(Random(0)),
        Space({"y": y, "x": x}).sample(Random(0)),
    )
    assert one["x"] == other["y"]


def test_a_space_contains_exactly_its_names() -> None:
    space = Space({"x": Int(0, 1)})
    assert space.contains({"x": 1})
    assert not space.contains({})
    assert not space.contains({"x": 1, "y": 1})
    assert space.moves
    assert not Space({"x": Fixed(1), "y": Int(1, 1), "z": Choice([2])}).moves
