"""The search space: what each hyperparameter may be, and how it moves.

Every domain knows how to draw a value, how to tell one, and how to move one in two ways:

    shift(value, factor, up, rng)   by `factor` x its range, in its own scale (NNI's move)
    scale(value, factor, rng)       by `x factor` (the paper's move)

The law of both, held by property tests: the result is in the domain, of its type and on its grid,
and differs from `value` wherever the domain has another value to offer. A move that a bound
forbids goes the other way.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil, exp, floor, inf, isfinite, log, nextafter
from random import Random
from sys import float_info
from typing import Protocol

from shoal.core.records import Hparams, Value

# Where `x factor` moves a value by less than `|factor - 1|` of this share of the range, it moves by
# that instead: a pure product can never leave 0, and all but stands still beside it.
LEAST_MOVE = 0.1

LOG_LARGEST = 700  # e^700 is a float, e^710 is not
INT_LARGEST = 2**63 - 1

# How many steps a value may be away from 0: beyond some 10^15 floats cannot tell multiples apart.
MULTIPLE_LARGEST = 10**14

# How many sd a normal value may walk away from its mean. Nothing is drawn there; without an end,
# x 1.2 would reach values beside which sd is nothing, and then infinity.
FAR = 10**6

NAME = "_name"  # the key that tells which branch of a nested choice was taken


class SpaceError(ValueError):
    """A domain or space that cannot be: the message says what was expected and what came."""


class Domain(Protocol):
    """The values one hyperparameter may take."""

    @property
    def moves(self) -> bool:
        """Whether there is more than one value."""
        ...

    def sample(self, rng: Random) -> Value:
        """A value drawn from the prior."""
        ...

    def contains(self, value: Value) -> bool:
        """Whether `value` is one that this domain can give, type included."""
        ...

    def shift(self, value: Value, factor: float, rng: Random) -> Value:
        """`value` moved up or down, one as likely as the other, by `factor` x the range.

        What stands at a bound and would leave the range stays there.
        """
        ...

    def scale(self, value: Value, factor: float, rng: Random) -> Value:
        """`value` moved to about `value x factor`."""
        ...


@dataclass(frozen=True, slots=True)
class Float:
    """A real number in [low, high], uniform there, or uniform in its logarithm.

    `step` rounds to multiples of it and clips to the bounds, in that order, as NNI's quniform and
    qloguniform do: clip(round(x / step) x step, low, high). So a bound that is no multiple of
    `step` is a value of the domain all the same.

    Raises:
        SpaceError: a bound is no number, low is not below high, a logarithmic range is not above 0,
            `step` is not above 0, or floats cannot tell its multiples apart.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _numbers(low=self.low, high=self.high)
        if not self.low < self.high:
            raise SpaceError(f"low must be below high, got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise SpaceError(f"a logarithmic range must be above 0, got low={self.low}")
        _numbers(**{"high - low": self.high - self.low})
        _step(self.step, max(abs(self.low), abs(self.high)))

    @property
    def moves(self) -> bool:
        return True

    def sample(self, rng: Random) -> float:
        if self.log:
            return self._clean(exp(rng.uniform(log(self.low), log(self.high))))
        return self._clean(rng.uniform(self.low, self.high))

    def contains(self, value: Value) -> bool:
        if not isinstance(value, float) or not self.low <= value <= self.high:
            return False
        return value == self._clean(value) or value in {self.low, self.high}

    def shift(self, value: float, factor: float, rng: Random) -> float:
        way = rng.choice((1, -1))
        if value == (self.high if way > 0 else self.low):
            return value
        if self.step is not None:
            return self._either(self._beside, value, way)
        if self.log:
            return self._either(
                lambda v, way: self._stretched(v, self._width * factor * way), value, way
            )
        return self._either(lambda v, way: self._clean(v + self._width * factor * way), value, way)

    def scale(self, value: float, factor: float, rng: Random) -> float:
        up = factor > 1
        if self.log:
            way, length = (1 if up else -1), abs(log(factor))
        else:  # x 1.2 takes -5 down to -6: what grows is the magnitude
            way = 1 if up == (value >= 0) else -1
            length = abs(factor - 1) * max(abs(value), LEAST_MOVE * self._width)

        def far(value: float, way: int) -> float:
            by = length * way
            return self._stretched(value, by) if self.log else self._clean(value + by)

        if self.step is not None and abs(far(value, way) - value) < self.step:  # rounded away
            return self._either(self._beside, value, way)
        return self._either(far, value, way)

    @property
    def _width(self) -> float:
        return log(self.high) - log(self.low) if self.log else self.high - self.low

    def _stretched(self, value: float, by: float) -> float:
        """`value` moved by `by` in the logarithm; a bound is met exactly, however exp rounds."""
        x = log(value) + by
        if x >= log(self.high):
            return float(self.high)
        return float(self.low) if x <= log(self.low) else self._clean(exp(x))

    def _beside(self, value: float, way: int) -> float:
        """The nearest multiple of `step` above or below, or the bound that lies before it."""
        assert self.step is not None
        exact = Decimal(repr(value)) / Decimal(repr(self.step))
        multiple = floor(exact) + 1 if way > 0 else ceil(exact) - 1
        return self._clip(_multiple(multiple, self.step))

    def _either(self, move: Callable[[float, int], float], value: float, way: int) -> float:
        moved = move(value, way)
        if moved == value:
            moved = move(value, -way)
        if moved != value:
            return moved
        # the range is finer than its floats can tell apart: the other end of it
        return float(self.high if value == self.low else self.low)

    def _clean(self, x: float) -> float:
        return self._clip(x if self.step is None else _multiple(round(x / self.step), self.step))

    def _clip(self, x: float) -> float:
        return float(min(max(x, self.low), self.high))


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number in [low, high], both included, uniform there or in its logarithm.

    Raises:
        SpaceError: a bound is not a whole number of 64 bits, low is above high, or a logarithmic
            range is not above 0.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        for name, value in (("low", self.low), ("high", self.high)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise SpaceError(f"{name} must be a whole number, got {value!r}")
            if abs(value) > INT_LARGEST:
                raise SpaceError(f"{name} must fit in 64 bits, got {value}")
        if self.low > self.high:
            raise SpaceError(f"low must not be above high, got low={self.low}, high={self.high}")
        if self.log and self.low < 1:
            raise SpaceError(f"a logarithmic range must be above 0, got low={self.low}")

    @property
    def moves(self) -> bool:
        return self.low < self.high

    def sample(self, rng: Random) -> int:
        if self.log:  # each whole number owns the half below and the half above it
            return self._clip(round(exp(rng.uniform(log(self.low - 0.5), log(self.high + 0.5)))))
        return rng.randint(self.low, self.high)

    def contains(self, value: Value) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high

    def shift(self, value: int, factor: float, rng: Random) -> int:
        way = rng.choice((1, -1))
        if value == (self.high if way > 0 else self.low):
            return value
        ratio = exp((log(self.high) - log(self.low)) * min(factor, 1)) if self.log else 1.0
        return self._either(value, ratio, way)

    def scale(self, value: int, factor: float, rng: Random) -> int:
        ratio = max(factor, 1 / factor)
        return self._either(value, ratio, 1 if (factor > 1) == (value >= 0) else -1)

    def _either(self, value: int, ratio: float, way: int) -> int:
        moved = self._far(value, ratio, way)
        return moved if moved != value else self._far(value, ratio, -way)

    def _far(self, value: int, ratio: float, way: int) -> int:
        """`value` x or / `ratio`, at least one away: rounding must not hold a small number."""
        far = value * ratio if (way > 0) == (value >= 0) else value / ratio
        moved = self._clip(far)
        return self._clip(max(moved, value + 1) if way > 0 else min(moved, value - 1))

    def _clip(self, x: float) -> int:
        return round(min(max(x, self.low), self.high))  # in this order: x may be infinite


@dataclass(frozen=True, slots=True)
class Normal:
    """A real number around `mean` with standard deviation `sd`, without bounds that matter.

    With `log` it is its logarithm that is normal. `step` rounds to multiples of it; a rounded
    lognormal may be 0, as NNI's formula has it. Moves keep off where floats lose `sd` or `step`.

    Raises:
        SpaceError: a number is none, `sd` or `step` is not above 0, or floats cannot hold or tell
            apart what is drawn.
    """

    mean: float
    sd: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _numbers(mean=self.mean, sd=self.sd)
        if self.sd <= 0:
            raise SpaceError(f"sd must be above 0, got sd={self.sd}")
        if self.mean + self.sd == self.mean:
            raise SpaceError(f"sd is lost beside mean, got mean={self.mean}, sd={self.sd}")
        if self.log and abs(self.mean) + 8 * self.sd > LOG_LARGEST:
            raise SpaceError(f"e^(mean +- 8 sd) overflows, got mean={self.mean}, sd={self.sd}")
        _numbers(**{"mean + a million sd": abs(self.mean) + FAR * self.sd})
        # five sd: one draw in two million of a rounded lognormal may be cut
        _step(self.step, exp(self.mean + 5 * self.sd) if self.log else abs(self.mean) + 8 * self.sd)

    @property
    def moves(self) -> bool:
        return True

    def sample(self, rng: Random) -> float:
        x = rng.gauss(self.mean, self.sd)
        return self._clean(exp(x) if self.log else x)

    def contains(self, value: Value) -> bool:
        return isinstance(value, float) and value == self._clean(value)

    def shift(self, value: float, factor: float, rng: Random) -> float:
        way = rng.choice((1, -1))
        if self.step is not None:
            return self._either(self._beside, value, way)
        length = self.sd * factor
        if self.log:
            return self._either(lambda v, way: self._stretched(v, length * way), value, way)
        return self._either(lambda v, way: self._clean(v + length * way), value, way)

    def scale(self, value: float, factor: float, rng: Random) -> float:
        way = 1 if (factor > 1) == (value >= 0) else -1
        if self.log and self.step is None:
            by = abs(log(factor))
            return self._either(lambda v, way: self._stretched(v, by * way), value, way)
        length = abs(factor - 1) * max(abs(value), LEAST_MOVE * self.sd)
        if self.step is not None and length < self.step:  # rounded away, or back
            return self._either(self._beside, value, way)
        return self._either(lambda v, way: self._clean(v + length * way), value, way)

    @property
    def _ends(self) -> tuple[float, float]:
        """Where a walk turns round."""
        if self.step is not None:
            high = _multiple(MULTIPLE_LARGEST, self.step)
            return (0.0 if self.log else -high), high
        if self.log:
            return exp(-LOG_LARGEST), exp(LOG_LARGEST)
        return self.mean - FAR * self.sd, self.mean + FAR * self.sd

    def _stretched(self, value: float, by: float) -> float:
        """`value` moved by `by` in the logarithm."""
        return self._clean(exp(min(max(log(value) + by, -LOG_LARGEST), LOG_LARGEST)))

    def _beside(self, value: float, way: int) -> float:
        assert self.step is not None
        return self._clean(_multiple(round(value / self.step) + way, self.step))

    def _either(self, move: Callable[[float, int], float], value: float, way: int) -> float:
        moved = move(value, way)
        if moved == value:
            moved = move(value, -way)
        if moved != value:
            return moved
        # sd is finer than floats can tell apart there: the next of them
        return nextafter(value, inf if value <= self.mean else -inf)

    def _clean(self, x: float) -> float:
        low, high = self._ends
        x = float(min(max(x, low), high))
        return x if self.step is None else _multiple(round(x / self.step), self.step)


@dataclass(frozen=True, slots=True)
class Branch:
    """One option of a nested choice: a name, and hyperparameters that only exist under it.

    Its value is a dict, `{"_name": name, **hparams}`.
    """

    name: str
    space: "Space"

    def __post_init__(self) -> None:
        if NAME in self.space:
            raise SpaceError(
                f"{NAME!r} is the branch's own name and cannot be a hyperparameter of it"
            )

    def sample(self, rng: Random) -> Value:
        return {NAME: self.name, **self.space.sample(rng)}

    def contains(self, value: Value) -> bool:
        if not isinstance(value, dict) or value.get(NAME) != self.name:
            return False
        return self.space.contains({k: v for k, v in value.items() if k != NAME})


@dataclass(frozen=True, slots=True)
class Choice:
    """One of `options`, each as likely: values of any kind, lists too, or branches.

    The options are ordered, as the paper's lists are: a move goes to a neighbour.
    """

    options: Sequence[Value | Branch]

    @property
    def moves(self) -> bool:
        first, *others = self.options
        inside = isinstance(first, Branch) and first.space.moves
        return inside or any(not _is_option(first, other) for other in others)

    def __post_init__(self) -> None:
        if (
            isinstance(self.options, str)
            or not isinstance(self.options, Sequence)
            or not self.options
        ):
            raise SpaceError(f"a choice needs a list of at least one option, got {self.options!r}")
        object.__setattr__(self, "options", [_plain(option) for option in self.options])
        names = [option.name for option in self.options if isinstance(option, Branch)]
        if len(set(names)) < len(names):
            raise SpaceError(f"two options of a nested choice have the same {NAME}: {names}")

    def sample(self, rng: Random) -> Value:
        return _draw(rng.choice(self.options), rng)

    def contains(self, value: Value) -> bool:
        return any(_is(option, value) for option in self.options)

    def shift(self, value: Value, factor: float, rng: Random) -> Value:
        """A neighbour in the list; in a branch, as often its own hyperparameters, shifted."""
        way = rng.choice((1, -1))
        return self._move(value, way, rng, lambda d, v: d.shift(v, factor, rng), turn=False)

    def scale(self, value: Value, factor: float, rng: Random) -> Value:
        """The neighbour above or below; in a branch, as often its own hyperparameters, scaled."""
        way = 1 if factor > 1 else -1
        return self._move(value, way, rng, lambda d, v: d.scale(v, factor, rng), turn=True)

    def _move(
        self,
        value: Value,
        way: int,
        rng: Random,
        inside: Callable[[Domain, Value], Value],
        *,
        turn: bool,
    ) -> Value:
        here = next(i for i, option in enumerate(self.options) if _is(option, value))
        option = self.options[here]
        ahead = self.options[here + 1 :] if way > 0 else self.options[:here][::-1]
        behind = self.options[:here][::-1] if way > 0 else self.options[here + 1 :]
        reached = (*ahead, *behind) if turn or isinstance(option, Branch) else ahead
        others = [other for other in reached if not _is_option(option, other)]
        if isinstance(option, Branch) and option.space.moves and (not others or rng.random() < 0.5):
            return {NAME: option.name, **option.space.map(value, inside)}
        return _draw(others[0], rng) if others else value


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always `value`: a constant that trials get among their hyperparameters."""

    value: Value

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _plain(self.value))

    @property
    def moves(self) -> bool:
        return False

    def sample(self, rng: Random) -> Value:
        return self.value

    def contains(self, value: Value) -> bool:
        return _same(self.value, value)

    def shift(self, value: Value, factor: float, rng: Random) -> Value:
        return self.value

    def scale(self, value: Value, factor: float, rng: Random) -> Value:
        return self.value


class Space(Mapping[str, Domain]):
    """The domains of all hyperparameters, by name, in the order in which they are drawn."""

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self._domains = dict(domains)

    def __getitem__(self, name: str) -> Domain:
        return self._domains[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    def __repr__(self) -> str:
        return f"Space({self._domains!r})"

    @property
    def moves(self) -> bool:
        """Whether any hyperparameter can be moved at all."""
        return any(domain.moves for domain in self.values())

    def sample(self, rng: Random) -> Hparams:
        """A value for every name, each drawn on its own."""
        return {name: domain.sample(rng) for name, domain in self._domains.items()}

    def contains(self, hparams: Hparams) -> bool:
        """Whether `hparams` has exactly this space's names, each with a value of its domain."""
        return hparams.keys() == self.keys() and all(
            d.contains(hparams[n]) for n, d in self._domains.items()
        )

    def map(self, hparams: Hparams, move: Callable[[Domain, Value], Value]) -> Hparams:
        """`hparams` with `move(domain, value)` in the place of each value."""
        return {name: move(domain, hparams[name]) for name, domain in self._domains.items()}


def _multiple(count: int, step: float) -> float:
    """`count * step` as the decimal number a person would write: 0.3, not 0.30000000000000004."""
    return float(count * Decimal(repr(step)))


def _draw(option: Value | Branch, rng: Random) -> Value:
    return option.sample(rng) if isinstance(option, Branch) else option


def _is(option: Value | Branch, value: Value) -> bool:
    """Whether `value` is what `option` gives."""
    return option.contains(value) if isinstance(option, Branch) else _same(option, value)


def _is_option(option: Value | Branch, other: Value | Branch) -> bool:
    """Whether two options are one: a list may name an option twice to make it likelier."""
    if isinstance(option, Branch) or isinstance(other, Branch):
        return option is other
    return _same(option, other)


def _same(a: Value, b: Value) -> bool:
    """Equal and of one type: 1, 1.0 and True are three options."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)


def _plain(value: Value | Branch) -> Value | Branch:
    """`value` as JSON would give it back, so that a resumed run knows it again."""
    if value is None or isinstance(value, Branch | bool | int | str):
        return value
    if isinstance(value, float) and isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise SpaceError(
        f"expected a number, text, true, false, null, or a list or mapping of these, got {value!r}"
    )


def _numbers(**values: Value) -> None:
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) <= float_info.max:  # nan, infinite, or an int beyond floats
            raise SpaceError(f"{name} must be a number, got {value!r}")


def _step(step: Value, largest: float) -> None:
    """Check a step for values up to `largest`."""
    if step is not None:
        _numbers(step=step)
        if step <= 0:
            raise SpaceError(f"step must be above 0, got step={step}")
        if largest / step > MULTIPLE_LARGEST:
            raise SpaceError(f"step is too fine beside values of {largest}, got step={step}")
