"""Randomness as a function of (seed, member, step): nothing is stored, so nothing can be lost.

What a member draws at a step depends neither on who asked first, nor on the number of slots or
members, nor on how often the run was resumed.
"""

from random import Random
from typing import Any, cast

_MASK = (1 << 64) - 1


def stream(seed: int, member: int, step: int) -> Random:
    """The generator of one decision. Seeded by text: CPython promises the same stream for ever."""
    return cast(Random, _Unseeded(f"{seed}/{member}/{step}"))


class _Unseeded:
    """A generator that is seeded when something is drawn from it.

    Most decisions draw nothing, as a member that is not in the bottom just goes on; and seeding
    costs as much as the rest of such a decision.
    """

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._random: Random | None = None

    def __getattr__(self, name: str) -> Any:
        if self._random is None:
            self._random = Random(self._seed)
        method = getattr(self._random, name)
        setattr(self, name, method)  # the next time it is found without coming here
        return method


def number(seed: int, member: int, step: int) -> int:
    """One draw of 64 bits, for a fraction of what a generator costs.

    The three, spread by odd constants, go through splitmix64's finaliser (Steele et al., 2014).
    """
    x = 1 + seed * 0x9E3779B97F4A7C15 + member * 0xD1B54A32D192ED03 + step * 0x8CB92BA72F3D8DD7
    x &= _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31
