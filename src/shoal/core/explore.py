"""Explore: which hyperparameters should a member try that has just copied somebody?

A strategy is a callable value. Each hyperparameter is drawn afresh from its prior with probability
`resample`, and moved otherwise; how a value moves is its domain's affair.
"""

from dataclasses import dataclass
from math import inf
from random import Random
from typing import Protocol

from shoal.core.records import Hparams, Value
from shoal.core.space import Domain, Space


class Explore(Protocol):
    """A strategy: (hyperparameters to start from, space, generator) -> hyperparameters."""

    def __call__(self, hparams: Hparams, space: Space, rng: Random) -> Hparams:
        """Hyperparameters of `space`, near `hparams` or far from them."""
        ...


@dataclass(frozen=True, slots=True)
class Shift:
    """NNI's move: +- `factor` x the range in the domain's own scale, or a neighbour.

    Additive in the range (in its logarithm, where that is the scale), +-1 for whole numbers, the
    next option of a choice, +- `factor` x sd for normals, +- one step where values have steps.
    What stands at a bound and would leave the range stays, as in NNI.

    Raises:
        ValueError: `factor` is not above 0, or `resample` is outside [0, 1].
    """

    factor: float = 0.2
    resample: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.factor < inf:
            raise ValueError(f"factor must be a number above 0, got {self.factor}")
        _probability(self.resample)

    def __call__(self, hparams: Hparams, space: Space, rng: Random) -> Hparams:
        def move(domain: Domain, value: Value) -> Value:
            if rng.random() < self.resample:
                return domain.sample(rng)
            return domain.shift(value, self.factor, rng)

        return space.map(hparams, move)


@dataclass(frozen=True, slots=True)
class Perturb:
    """The paper's move: x one of `factors`, each as likely.

    Jaderberg et al., 2017, section 4.1.1: https://arxiv.org/abs/1711.09846. Unlike there, a value
    keeps to its domain and always moves: see `LEAST_MOVE` in `space`.

    Raises:
        ValueError: there is no factor, one is not above 0 or is 1, or `resample` is outside [0, 1].
    """

    factors: tuple[float, ...] = (0.8, 1.2)
    resample: float = 0.25

    def __post_init__(self) -> None:
        if not self.factors or not all(0 < f < inf and f != 1 for f in self.factors):
            raise ValueError(f"factors must be numbers above 0 and not 1, got {self.factors}")
        _probability(self.resample)

    def __call__(self, hparams: Hparams, space: Space, rng: Random) -> Hparams:
        def move(domain: Domain, value: Value) -> Value:
            if rng.random() < self.resample:
                return domain.sample(rng)
            return domain.scale(value, rng.choice(self.factors), rng)

        return space.map(hparams, move)


def _probability(resample: float) -> None:
    if not 0 <= resample <= 1:
        raise ValueError(f"resample must be between 0 and 1, got {resample}")
