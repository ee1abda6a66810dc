"""What holds of every domain and both moves: a value never leaves, sticks or changes its kind."""

import json
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from shoal.core.explore import Explore
from shoal.core.space import LEAST_MOVE, Choice, Domain, Float, Int, Normal, Space
from tests import domains as any_


def lawful(domain: Domain, value: Any) -> None:
    """A value of the domain, of its type, on its grid, that JSON gives back as it is."""
    assert domain.contains(value), value
    back = json.loads(json.dumps(value))
    assert domain.contains(back)
    assert back == value
    if isinstance(domain, Float | Normal):
        assert type(value) is float
        if domain.step is not None and value not in bounds(domain):
            # exact in decimals: 0.3 is a multiple of 0.1, and 0.30000000000000004 is none
            assert Decimal(repr(value)) % Decimal(repr(domain.step)) == 0
    if isinstance(domain, Int):
        assert type(value) is int


def bounds(domain: Float | Normal) -> set[float]:
    return {domain.low, domain.high} if isinstance(domain, Float) else set()


def at_a_bound(domain: Domain, value: Any) -> bool:
    """Whether a shift of `value` may stay where it is."""
    if isinstance(domain, Float | Int):
        return value in {domain.low, domain.high}
    return isinstance(domain, Choice)  # it ends somewhere, too, and so do branches within


def moved(domain: Domain, value: Any, factor: float, rng: Random) -> Any:
    """`value` after one of the two moves, each as likely."""
    move = domain.shift if rng.random() < 0.5 else domain.scale
    return move(value, factor, rng)


@given(any_.domains, any_.rngs)
def test_a_sample_is_lawful(domain: Domain, rng: Random) -> None:
    lawful(domain, domain.sample(rng))


@given(any_.domains, any_.factors, any_.rngs)
def test_a_shift_stays_lawful_and_moves(domain: Domain, factor: float, rng: Random) -> None:
    value = domain.sample(rng)
    after = domain.shift(value, factor, rng)
    lawful(domain, after)
    assert text(after) == text(value) or domain.moves
    assert text(after) != text(value) or not domain.moves or at_a_bound(domain, value)


@given(any_.domains, any_.factors, any_.rngs)
def test_a_scaling_stays_lawful_and_moves(domain: Domain, factor: float, rng: Random) -> None:
    value = domain.sample(rng)
    after = domain.scale(value, factor, rng)
    lawful(domain, after)
    assert (text(after) != text(value)) == domain.moves


def text(value: Any) -> str:
    """The value such that 1, 1.0 and True differ, and the order of a mapping does not matter."""
    return json.dumps(value, sort_keys=True)


@given(st.one_of(any_.floats, any_.ints), any_.factors, any_.rngs)
def test_a_value_at_a_bound_is_not_stuck(domain: Domain, factor: float, rng: Random) -> None:
    assume(domain.moves)
    assert isinstance(domain, Float | Int)
    kind = float if isinstance(domain, Float) else int
    for bound in (kind(domain.low), kind(domain.high)):
        after = domain.scale(bound, factor, rng)  # type: ignore[arg-type]
        lawful(domain, after)
        assert after != bound
        ways = {domain.shift(bound, factor, rng) for _ in range(20)}  # type: ignore[arg-type]
        assert len(ways) == 2, "half of the shifts stay"


@given(any_.floats, any_.factors, any_.rngs)
def test_a_move_is_no_longer_than_asked_for(domain: Domain, factor: float, rng: Random) -> None:
    assert isinstance(domain, Float)
    assume(not domain.log)
    value, width, step = domain.sample(rng), domain.high - domain.low, domain.step or 0
    slack = step + 1e-9 * (width + abs(value))
    assert abs(domain.shift(value, factor, rng) - value) <= factor * width + slack
    length = abs(factor - 1) * max(abs(value), LEAST_MOVE * width)
    assert abs(domain.scale(value, factor, rng) - value) <= length + slack


@given(any_.domains, any_.rngs, st.lists(any_.factors, min_size=1, max_size=60))
def test_a_long_walk_stays_lawful(domain: Domain, rng: Random, factors: list[float]) -> None:
    value = domain.sample(rng)
    for factor in factors:
        before, value = value, moved(domain, value, factor, rng)
        lawful(domain, value)
        assert text(value) == text(before) or domain.moves


@given(any_.spaces, any_.explores, any_.rngs)
def test_exploring_a_space_stays_in_it(space: Space, explore: Explore, rng: Random) -> None:
    hparams = space.sample(rng)
    for _ in range(5):
        assert space.contains(hparams)
        assert list(hparams) == list(space)
        hparams = explore(json.loads(json.dumps(hparams)), space, rng)


@given(any_.domains, st.integers(0, 1000), any_.factors)
def test_draws_and_moves_depend_on_the_generator_alone(
    domain: Domain, seed: int, factor: float
) -> None:
    one, other = Random(seed), Random(seed)
    value = domain.sample(one)
    assert value == domain.sample(other)
    assert domain.shift(value, factor, one) == domain.shift(value, factor, other)
    assert domain.scale(value, factor, one) == domain.scale(value, factor, other)
