"""Randomness as a function of (seed, member, step): nothing is stored, so nothing can be lost.

What a member draws at a step depends neither on who asked first, nor on the number of slots or
members, nor on how often the run was resumed.
"""

from random import Random

_MASK = (1 << 64) - 1


def stream(seed: int, member: int, step: int) -> Random:
    """The generator of one decision. Seeded by text: CPython promises the same stream for ever."""
    return Random(f"{seed}/{member}/{step}")


def number(seed: int, member: int, step: int) -> int:
    """One draw of 64 bits, for a fraction of what a generator costs.

    Each of the three goes through the finaliser of splitmix64 (Steele et al., 2014).
    """
    x = 0
    for part in (seed, member, step):
        x = (x ^ part & _MASK) + 0x9E3779B97F4A7C15 & _MASK
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
        x ^= x >> 31
    return x
