"""Hypothesis strategies: every kind of domain, spaces of them, and generators to draw with."""

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import strategies as st

from shoal.core.explore import Explore, Perturb, Shift
from shoal.core.space import Branch, Choice, Domain, Fixed, Float, Int, Normal, Space, SpaceError

characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])  # see unwritable
names = st.text(characters, min_size=1, max_size=6).filter(
    lambda name: name not in {"_name", "load_checkpoint_dir", "save_checkpoint_dir"}
)
steps = st.sampled_from((None, 0.1, 0.05, 0.3, 0.25, 1e-4, 0.7, 1.0, 3, 1e-7, 250.0))
reals = st.one_of(
    st.integers(-1000, 1000),
    st.floats(-1e6, 1e6),
    st.decimals(-100, 100, places=3).map(float),
)
positive = st.one_of(st.integers(1, 1000), st.floats(1e-12, 1e12))
rngs = st.integers(0, 2**32).map(Random)
factors = st.one_of(st.sampled_from((0.2, 0.5, 1.2, 0.8)), st.floats(1e-3, 5)).filter(
    lambda factor: factor != 1
)

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
) | st.text(characters, max_size=5)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(characters, max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def _pair(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
    return st.tuples(numbers, numbers).filter(lambda pair: pair[0] != pair[1]).map(_sorted)


def _sorted(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return min(pair), max(pair)


def _possible(
    make: Callable[..., Domain], *arguments: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    """The domains that `make` gives, without the arguments that it refuses."""

    def made(given: tuple[Any, ...]) -> Domain | None:
        try:
            return make(*given)
        except SpaceError:
            return None

    return st.tuples(*arguments).map(made).filter(lambda domain: domain is not None)


yes, no = st.just(True), st.just(False)
floats: st.SearchStrategy[Domain] = st.one_of(
    _possible(lambda pair, log, step: Float(pair[0], pair[1], log, step), _pair(reals), no, steps),
    _possible(
        lambda pair, log, step: Float(pair[0], pair[1], log, step), _pair(positive), yes, steps
    ),
)
whole = st.one_of(st.integers(-9, 9), st.integers(-(2**63) + 1, 2**63 - 1))
ints: st.SearchStrategy[Domain] = st.one_of(
    st.tuples(whole, whole).map(_sorted).map(lambda pair: Int(*pair)),
    st.tuples(st.integers(1, 99), st.integers(1, 10**6)).map(lambda p: Int(*_sorted(p), log=True)),
)
normals: st.SearchStrategy[Domain] = st.one_of(
    _possible(Normal, reals, positive, no, steps),
    _possible(Normal, st.floats(-20, 20), st.floats(1e-3, 5), yes, steps),
)
fixed: st.SearchStrategy[Domain] = st.builds(Fixed, values)


def _choices(inner: st.SearchStrategy[Space]) -> st.SearchStrategy[Domain]:
    plain = st.lists(values, min_size=1, max_size=5)
    nested = st.lists(st.text(characters, max_size=3), min_size=1, max_size=3, unique=True).flatmap(
        lambda labels: st.tuples(*(st.builds(Branch, st.just(label), inner) for label in labels))
    )
    mixed = st.tuples(plain, nested).map(lambda pair: [*pair[0], *pair[1]])
    return st.one_of(plain, nested.map(list), mixed).map(Choice)


leaves: st.SearchStrategy[Domain] = st.one_of(floats, ints, normals, fixed)


def _spaces(domains: st.SearchStrategy[Domain], least: int) -> st.SearchStrategy[Space]:
    return st.dictionaries(names, domains, min_size=least, max_size=3).map(Space)


choices: st.SearchStrategy[Domain] = _choices(_spaces(leaves | _choices(_spaces(leaves, 0)), 0))
domains: st.SearchStrategy[Domain] = st.one_of(floats, ints, normals, fixed, choices)
spaces: st.SearchStrategy[Space] = _spaces(domains, 1)

shifts: st.SearchStrategy[Explore] = st.builds(Shift, st.floats(0.01, 2), st.floats(0, 1))
perturbs: st.SearchStrategy[Explore] = st.builds(
    Perturb, st.lists(factors, min_size=1, max_size=3).map(tuple), st.floats(0, 1)
)
explores: st.SearchStrategy[Explore] = shifts | perturbs
