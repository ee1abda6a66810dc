"""How a space, a strategy and a length of time are written in an experiment file, and written back.

Each `parse_...` takes what YAML gave and reports every mistake at once, with keys relative to what
it was given; each `dump_...` gives what its `parse_...` turns into an equal value.
"""

import re
from collections.abc import Callable, Mapping
from sys import float_info
from typing import Any, TypeAlias, TypeGuard, TypeVar, cast

from shoal.core.exploit import Exploit, Truncation
from shoal.core.explore import Explore, Perturb, Shift
from shoal.core.space import (
    NAME,
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
from shoal.documents import ConfigError, Problem, not_text, shown, unknown

# Each kind of domain with the keys that may stand beside it.
KINDS: dict[str, tuple[str, ...]] = {
    "float": ("log", "step"),
    "int": ("log",),
    "normal": ("log", "step"),
    "choice": (),
    "fixed": (),
}

TRUNCATION, SHIFT, PERTURB, RESAMPLE = "truncation", "shift", "perturb", "resample"

TIME = r"(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*([smhd]?)"
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

Made = TypeVar("Made")
Parser: TypeAlias = Callable[[Mapping[str, Any], list[Problem]], Made | None]


def parse_space(raw: object) -> Space:
    """The space that `raw` describes, a mapping of names to domains (also ready ones) or constants.

    Raises:
        ConfigError: with every mistake, its key relative to the space.
    """
    problems: list[Problem] = []
    space = _space(raw, "", problems)
    if problems:
        raise ConfigError(problems)
    return space


def dump_space(space: Space) -> dict[str, Any]:
    """What `parse_space` turns into `space`, in the order of its names."""
    return {name: _written(domain) for name, domain in space.items()}


def parse_seconds(raw: object) -> float:
    """The seconds that `raw` is: a number of them, or text such as "90s", "10M", "0.5h", "1e3s".

    Raises:
        ValueError: It is neither, or not above 0.
    """
    seconds = raw
    if isinstance(raw, str) and (match := re.fullmatch(TIME, raw.strip().lower())):
        seconds = float(match[1] + (match[2] or "")) * SECONDS[match[3]]
    if not is_number(seconds) or not seconds > 0:
        raise ValueError(
            f"expected a time above 0 (seconds, or 30s, 10m, 0.5h, 1d), got {shown(raw)}"
        )
    return float(seconds)


def parse_exploit(raw: Any) -> Exploit:
    """The strategy that `raw` names: `truncation` or `{truncation: fraction}`; one made in Python.

    Raises:
        ConfigError: with every mistake.
    """
    if callable(raw) and not isinstance(raw, type):
        return cast(Exploit, raw)
    known: dict[str, Parser[Exploit]] = {TRUNCATION: _truncation}
    return _strategy(raw, known)


def dump_exploit(exploit: Exploit) -> dict[str, Any]:
    """What `parse_exploit` turns into `exploit`."""
    if isinstance(exploit, Truncation):
        return {TRUNCATION: exploit.fraction}
    return {"python": repr(exploit)}


def parse_explore(raw: Any) -> Explore:
    """The strategy that `raw` names: `shift` or `perturb`, alone or as a mapping; one from Python.

    Raises:
        ConfigError: with every mistake.
    """
    if callable(raw) and not isinstance(raw, type):
        return cast(Explore, raw)
    known: dict[str, Parser[Explore]] = {SHIFT: _shift, PERTURB: _perturb}
    return _strategy(raw, known)


def dump_explore(explore: Explore) -> dict[str, Any]:
    """What `parse_explore` turns into `explore`."""
    if isinstance(explore, Shift):
        return {SHIFT: explore.factor, RESAMPLE: explore.resample}
    if isinstance(explore, Perturb):
        return {PERTURB: list(explore.factors), RESAMPLE: explore.resample}
    return {"python": repr(explore)}


def _space(raw: object, path: str, problems: list[Problem]) -> Space:
    if not isinstance(raw, Mapping):
        problems.append(Problem(path, f"expected a mapping of names, got {shown(raw)}"))
        return Space({})
    domains: dict[str, Domain] = {}
    for name, value in raw.items():
        if not isinstance(name, str):
            problems.append(Problem(path, not_text(name)))
            continue
        domain = _domain(value, f"{path}.{name}" if path else name, problems)
        if domain is not None:
            domains[name] = domain
    return Space(domains)


def _domain(raw: Any, path: str, problems: list[Problem]) -> Domain | None:
    if isinstance(raw, Float | Int | Normal | Choice | Fixed):
        return raw  # made in Python
    if not isinstance(raw, Mapping):
        return attempt(lambda: Fixed(raw), path, problems)
    kinds = [kind for kind in KINDS if kind in raw]
    if len(kinds) != 1:
        message = f"expected one of {', '.join(KINDS)}, got {shown(raw)}; "
        message += "a constant that is a mapping is written {fixed: ...}"
        problems.append(Problem(path, message))
        return None
    (kind,) = kinds
    if strange := [key for key in raw if key != kind and key not in KINDS[kind]]:
        problems += [Problem(path, unknown(str(key), KINDS[kind])) for key in strange]
        return None
    value = raw[kind]
    if kind == "fixed":
        return attempt(lambda: Fixed(value), path, problems)
    if kind == "choice":
        return _choice(value, path, problems)
    return _range(kind, raw, path, problems)


def _range(kind: str, raw: Mapping[str, Any], path: str, problems: list[Problem]) -> Domain | None:
    log, step, pair = raw.get("log", False), raw.get("step"), raw[kind]
    if not isinstance(log, bool):
        problems.append(Problem(f"{path}.log", f"expected true or false, got {shown(log)}"))
        return None
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        form = "[mean, sd]" if kind == "normal" else "[low, high]"
        problems.append(Problem(path, f"expected {kind}: {form}, got {shown(pair)}"))
        return None
    first, second = pair
    if kind == "int":
        return attempt(lambda: Int(first, second, log), path, problems)
    domain = Normal if kind == "normal" else Float
    return attempt(lambda: domain(first, second, log, step), path, problems)


def _choice(raw: Any, path: str, problems: list[Problem]) -> Domain | None:
    if not isinstance(raw, list | tuple):
        problems.append(Problem(path, f"expected a list of options, got {shown(raw)}"))
        return None
    before = len(problems)
    options = [_option(o, f"{path}.choice[{i}]", problems) for i, o in enumerate(raw)]
    return attempt(lambda: Choice(options), path, problems) if len(problems) == before else None


def _option(raw: Any, path: str, problems: list[Problem]) -> Any:
    if not isinstance(raw, Mapping):
        return raw
    if raw.keys() == {"fixed"}:
        return raw["fixed"]
    name = raw.get(NAME)
    if not isinstance(name, str):
        message = f"expected an option with hyperparameters of its own to have a {NAME!r}, "
        message += f"got {shown(raw)}; an option that is a mapping is written {{fixed: ...}}"
        problems.append(Problem(path, message))
        return None
    return Branch(name, _space({k: v for k, v in raw.items() if k != NAME}, path, problems))


def _written(domain: Domain) -> dict[str, Any]:
    match domain:
        case Float(low, high, log, step):
            return {"float": [low, high]} | _options(log, step)
        case Int(low, high, log):
            return {"int": [low, high]} | _options(log, None)
        case Normal(mean, sd, log, step):
            return {"normal": [mean, sd]} | _options(log, step)
        case Choice(options):
            return {"choice": [_written_option(option) for option in options]}
        case Fixed(value):
            return {"fixed": value}
    raise TypeError(f"a file has no word for {domain!r}")


def _options(log: bool, step: float | None) -> dict[str, Any]:
    return ({"log": True} if log else {}) | ({} if step is None else {"step": step})


def _written_option(option: Any) -> Any:
    if isinstance(option, Branch):
        return {NAME: option.name, **dump_space(option.space)}
    return {"fixed": option} if isinstance(option, dict) else option


def _strategy(raw: Any, known: Mapping[str, Parser[Made]]) -> Made:
    """The strategy that `raw` names, made by the one of `known` under that name."""
    if isinstance(raw, Mapping) and "python" in raw:
        message = f"was given in Python as {raw['python']}, which a file cannot hold; give it again"
        raise ConfigError([Problem("", message)])
    names = raw if isinstance(raw, Mapping) else {raw: None} if isinstance(raw, str) else {}
    name = next((name for name in known if name in names), None)
    if name is None:
        words = [*known, *(f"{{{word}: ...}}" for word in known)]
        raise ConfigError([Problem("", f"expected one of {', '.join(words)}, got {shown(raw)}")])
    problems: list[Problem] = []
    made = known[name](names, problems)
    if problems or made is None:
        raise ConfigError(problems)
    return made


def _truncation(raw: Mapping[str, Any], problems: list[Problem]) -> Truncation | None:
    fraction = _arguments(raw, {TRUNCATION: Truncation().fraction}, problems)[TRUNCATION]
    return _checked(fraction, Truncation, TRUNCATION, problems)


def _shift(raw: Mapping[str, Any], problems: list[Problem]) -> Shift | None:
    given = _arguments(raw, {SHIFT: Shift().factor, RESAMPLE: Shift().resample}, problems)
    factor, resample = given[SHIFT], given[RESAMPLE]
    _checked(factor, lambda x: Shift(factor=x), SHIFT, problems)
    _checked(resample, lambda x: Shift(resample=x), RESAMPLE, problems)
    return None if problems else Shift(factor, resample)


def _perturb(raw: Mapping[str, Any], problems: list[Problem]) -> Perturb | None:
    defaults = {PERTURB: Perturb().factors, RESAMPLE: Perturb().resample}
    given = _arguments(raw, defaults, problems)
    factors, resample = given[PERTURB], given[RESAMPLE]
    if not isinstance(factors, list | tuple) or not all(map(is_number, factors)):
        message = f"expected a list of factors such as [0.8, 1.2], got {shown(factors)}"
        problems.append(Problem(PERTURB, message))
    else:
        attempt(lambda: Perturb(tuple(factors)), PERTURB, problems)
    _checked(resample, lambda x: Perturb(resample=x), RESAMPLE, problems)
    return None if problems else Perturb(tuple(factors), resample)


def _arguments(
    raw: Mapping[str, Any], defaults: dict[str, Any], problems: list[Problem]
) -> dict[str, Any]:
    problems += [Problem("", unknown(str(key), defaults)) for key in raw if key not in defaults]
    return defaults | {key: raw[key] for key in defaults if raw.get(key) is not None}


def _checked(
    value: Any, make: Callable[[Any], Made], path: str, problems: list[Problem]
) -> Made | None:
    if not is_number(value):
        problems.append(Problem(path, f"expected a number, got {shown(value)}"))
        return None
    return attempt(lambda: make(value), path, problems)


def attempt(make: Callable[[], Made], path: str, problems: list[Problem]) -> Made | None:
    """What `make` gives, or None after what it had to complain of was added to `problems`."""
    try:
        return make()
    except (SpaceError, ValueError) as error:
        problems.append(Problem(path, str(error)))
        return None


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number: a bool is none, nor an integer beyond all floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= float_info.max
