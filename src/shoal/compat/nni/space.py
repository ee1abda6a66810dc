"""NNI's search space, as our `Space`: the same values with the same probabilities.

`{name: {"_type": ..., "_value": [...]}}`, all ten types and nested choices. NNI's PBTTuner does not
look at a space before it draws from it; here every mistake is told first. What goes beyond NNI:
an entry that is no mapping is a constant.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shoal.core.space import NAME, Branch, Choice, Domain, Fixed, Float, Int, Normal, Space
from shoal.documents import ConfigError, Problem, not_text, shown, unknown
from shoal.notation import attempt, is_number

# What the numbers in `_value` are, by type.
NUMBERS = {
    "randint": ("low", "high"),
    "uniform": ("low", "high"),
    "quniform": ("low", "high", "q"),
    "loguniform": ("low", "high"),
    "qloguniform": ("low", "high", "q"),
    "normal": ("mu", "sigma"),
    "qnormal": ("mu", "sigma", "q"),
    "lognormal": ("mu", "sigma"),
    "qlognormal": ("mu", "sigma", "q"),
}
TYPES = ("choice", *NUMBERS)


def parse(raw: object) -> Space:
    """The space that `raw`, the content of a search space file, describes.

    Raises:
        ConfigError: with every mistake, its key relative to `raw`.
    """
    problems: list[Problem] = []
    space = _space(raw, "", problems)
    if problems:
        raise ConfigError(problems)
    return space


def _space(raw: object, path: str, problems: list[Problem]) -> Space:
    if not isinstance(raw, Mapping):
        problems.append(Problem(path, f"expected a mapping of names, got {shown(raw)}"))
        return Space({})
    domains: dict[str, Domain] = {}
    for name, entry in raw.items():
        if not isinstance(name, str):
            problems.append(Problem(path, not_text(name)))
            continue
        domain = _domain(entry, f"{path}.{name}" if path else name, problems)
        if domain is not None:
            domains[name] = domain
    return Space(domains)


def _domain(entry: Any, path: str, problems: list[Problem]) -> Domain | None:
    if not isinstance(entry, Mapping):
        return attempt(lambda: Fixed(entry), path, problems)
    kind, value = entry.get("_type"), entry.get("_value")
    if missing := [key for key in ("_type", "_value") if key not in entry]:
        problems.append(Problem(path, f"expected _type and _value, but {missing[0]} is missing"))
        return None
    if kind not in TYPES:
        message = unknown(str(kind), TYPES, "type")
        if "; " not in message:
            message += f"; expected one of {', '.join(TYPES)}"
        problems.append(Problem(f"{path}._type", message))
        return None
    if not isinstance(value, Sequence) or isinstance(value, str):
        problems.append(Problem(f"{path}._value", f"expected a list, got {shown(value)}"))
        return None
    if kind == "choice":
        return _choice(value, f"{path}._value", problems)
    return _numbers(kind, value, f"{path}._value", problems)


def _numbers(kind: str, value: Sequence[Any], path: str, problems: list[Problem]) -> Domain | None:
    names = NUMBERS[kind]
    if len(value) != len(names):
        message = f"expected [{', '.join(names)}] for {kind}, got {shown(value)}"
        problems.append(Problem(path, message))
        return None
    if strange := [number for number in value if not is_number(number)]:
        problems += [Problem(path, f"expected numbers, got {shown(x)}") for x in strange]
        return None
    return attempt(_of(kind, *value), path, problems)


def _of(kind: str, a: Any, b: Any, q: Any = None) -> Callable[[], Domain]:
    """What makes the domain of `kind`, whose `_value` is [a, b] or [a, b, q]."""
    log = "log" in kind
    if kind == "randint":
        return lambda: _randint(a, b)
    if "normal" in kind:
        return lambda: Normal(a, b, log, q)
    return lambda: _uniform(a, b, log, q)


def _randint(low: Any, high: Any) -> Domain:
    if isinstance(low, int) and isinstance(high, int) and low >= high:
        raise ValueError(f"low must be below high, which is not drawn, got [{low}, {high}]")
    return Int(low, high - 1)


def _uniform(low: Any, high: Any, log: bool, q: Any) -> Domain:
    if low == high:  # which NNI allows
        Float(low, low + 1, log, q)  # checks the rest
        return Fixed(float(low))
    return Float(low, high, log, q)


def _choice(value: Sequence[Any], path: str, problems: list[Problem]) -> Domain | None:
    before = len(problems)
    options = [_option(option, f"{path}[{i}]", problems) for i, option in enumerate(value)]
    return attempt(lambda: Choice(options), path, problems) if len(problems) == before else None


def _option(raw: Any, path: str, problems: list[Problem]) -> Any:
    if not isinstance(raw, Mapping):
        return raw
    name = raw.get(NAME)
    if not isinstance(name, str):
        message = f"expected an option that is a mapping to have a {NAME}, got {shown(raw)}"
        problems.append(Problem(path, message))
        return None
    return Branch(name, _space({k: v for k, v in raw.items() if k != NAME}, path, problems))
