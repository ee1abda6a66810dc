"""Files that people write: YAML, JSON or TOML in, a plain mapping out, mistakes told plainly.

Nothing here knows what an experiment is. Every reader of such a file reports through `ConfigError`,
so that all mistakes of a file come at once and look alike.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

SHOWN = 60  # characters of a wrong value that a message quotes
TOLD = 25  # mistakes of a file that are told one by one

# What no file that a person writes comes near. Beyond it there are only accidents and traps: what a
# short text makes of itself with aliases, what takes minutes to read or more memory than there is.
LARGEST_BYTES = 1 << 20
DEEPEST, MOST_KEYS, MOST_VALUES = 100, 1000, 100_000
LONGEST_NUMBER = 400  # digits


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, and what was expected and came."""

    key: str  # the path to it, such as `space.lr` or `gpus[0]`; empty where it is the whole file
    message: str
    source: str | None = None  # the file it is in, where that is another than the error's


class ConfigError(ValueError):
    """Everything that is wrong with an experiment file, or with a `Config`, at once.

    Attributes:
        problems: The mistakes, in the order of the file where there is one.
        source: The file, as the user named it; None where there is no file.
    """

    def __init__(self, problems: Iterable[Problem], source: str | None = None) -> None:
        self.problems = list(problems)
        self.source = source
        super().__init__(self.problems, source)

    def __str__(self) -> str:
        lines = [
            ": ".join(part for part in (p.source or self.source, p.key, p.message) if part)
            for p in self.problems[:TOLD]
        ]
        if len(self.problems) > TOLD:
            lines.append(f"... and {len(self.problems) - TOLD} more")
        return "\n".join(lines)


def read(path: Path, source: str | None = None) -> dict[str, Any]:
    """The mapping in the file `path`: in TOML if it ends so, else in JSON or YAML.

    NNI looks at no ending, and its users have YAML in .json files and tabs in the JSON of others;
    so of these two the one that the ending tells is tried first, and is what errors speak of.

    Args:
        path: The file.
        source: What errors call it; its path by default.

    Raises:
        ConfigError: The file cannot be read, is not in its language, names a key twice, or does not
            hold a mapping with text for keys.
    """
    source = str(path) if source is None else source
    try:
        content = _content(path)
    except ConfigError as error:
        raise ConfigError(error.problems, source) from None
    if not isinstance(content, dict):
        message = f"expected a mapping of keys to values, got {shown(content)}"
        raise ConfigError([Problem("", message)], source)
    if strange := [key for key in content if not isinstance(key, str)]:
        raise ConfigError([Problem("", not_text(key)) for key in strange], source)
    return content


def _content(path: Path) -> Any:
    """What is in the file `path`.

    Raises:
        ConfigError: as `read` does, its source unsaid.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError([Problem("", "there is no such file")]) from None
    except OSError as error:
        raise ConfigError([Problem("", f"cannot be read: {error.strerror}")]) from None
    if len(data) > LARGEST_BYTES:
        raise ConfigError([Problem("", f"expected a file of at most {LARGEST_BYTES >> 20} MiB")])
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError([Problem("", "expected text in UTF-8")]) from None
    content = _parsed(text, path.suffix.lower())
    _refuse(_too_much(content, _inside) or next(unwritable(content), None))
    return content


def not_text(key: object) -> str:
    """What to say of a mapping's `key` that is no text."""
    return f"expected a name, got {shown(key)}; put it in quotes if it is one"


def unknown(word: str, known: Iterable[str], what: str = "key") -> str:
    """What to say of a `word` that is none of `known`."""
    near = nearest(word, known)
    return f"unknown {what} {word!r}" + (f"; did you mean {near!r}?" if near else "")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` was probably meant to be, if one is near."""
    by_letters = {_letters(name): name for name in known}
    match = get_close_matches(_letters(word), by_letters, n=1)
    return by_letters[match[0]] if match else None


def shown(value: object) -> str:
    """`value` as the file has it, for the end of a message."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        try:
            text = str(value)
        except ValueError:  # it has more digits than Python writes
            text = "a number of thousands of digits"
    if isinstance(value, str) and len(text) < SHOWN:
        return repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _letters(word: str) -> str:
    return re.sub(r"[\W_]", "", word).lower()


def _parsed(text: str, ending: str) -> Any:
    if ending == ".toml":
        return _toml(text)
    first, second = (_json, _yaml) if ending == ".json" else (_yaml, _json)
    try:
        return first(text)
    except ConfigError as error:
        try:
            return second(text)
        except ConfigError:
            raise error from None


def _json(text: str) -> Any:
    twice: list[Problem] = []

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(Problem("", _again(key)) for key in _repeated(key for key, _ in pairs))
        return dict(pairs)

    try:
        content = json.loads(text, object_pairs_hook=mapping)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ConfigError([Problem(place, f"not JSON: {error.msg}")]) from None
    except RecursionError:
        raise ConfigError([TOO_DEEP]) from None
    except ValueError:
        raise ConfigError([TOO_LONG]) from None
    if twice:
        raise ConfigError(twice)
    return content


def _toml(text: str) -> Any:
    keys = re.sub(r"[\w \t\"'-]+", "k", text)
    _refuse(TOO_DEEP if "k." * DEEPEST in keys else None)  # a dotted key, slow to read
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # its message ends in the line and column
        raise ConfigError([Problem("", f"not TOML: {error}")]) from None
    except RecursionError:
        raise ConfigError([TOO_DEEP]) from None
    except ValueError:
        raise ConfigError([TOO_LONG]) from None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML without objects, in which 1e-4 is a number as it is everywhere else."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _yaml(text: str) -> Any:
    try:
        _look_ahead(text)
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:  # an empty file
            return {}
        twice = list(_repeated_keys(root, set()))
        _refuse(_too_much(root, _below) or _long_number(root))
        content = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else _place(mark)
        words = error.problem or error.context
        raise ConfigError([Problem(place, f"not YAML: {words}")]) from None
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-01
        raise ConfigError([Problem("", f"not YAML: {' '.join(str(error).split())}")]) from None
    if twice:
        raise ConfigError(twice)
    return content


def _look_ahead(text: str) -> None:
    """Refuse what is nested so deeply that composing it, which recurses, would fail."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        _refuse(TOO_DEEP if depth > DEEPEST else None)


def _refuse(problem: Problem | None) -> None:
    if problem is not None:
        raise ConfigError([problem])


def _repeated_keys(node: yaml.Node, seen: set[int]) -> Iterable[Problem]:
    """A problem for each key that a mapping names twice; PyYAML would keep the last one silently.

    Looked for before `<<` is merged, which may well bring a key that the mapping overrides.
    """
    if id(node) in seen or isinstance(node, yaml.ScalarNode):  # an alias is the node it names
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    yield Problem(_place(key.start_mark), _again(key.value))
                names.add(key.value)
            yield from _repeated_keys(value, seen)
    else:
        for item in node.value:
            yield from _repeated_keys(item, seen)


TOO_DEEP = Problem("", f"expected at most {DEEPEST} mappings and lists in one another")
TOO_MANY = Problem(
    "", f"expected at most {MOST_VALUES:,} values, aliases counted as what they repeat"
)
TOO_WIDE = Problem("", f"expected at most {MOST_KEYS:,} keys in a mapping")
TOO_LONG = Problem("", f"expected numbers of at most {LONGEST_NUMBER} digits")
TOO_STRANGE = "expected text without NUL and half characters, got "


def _too_much(root: Any, below: Callable[[Any], Sequence[Any] | None]) -> Problem | None:
    """What is too much of the document `root`, whose parts `below` gives; None for a scalar's."""
    sizes: dict[int, int] = {}
    problem: Problem | None = None

    def size(part: Any, depth: int) -> int:
        nonlocal problem
        parts = below(part)
        if parts is None or problem:
            return 1
        if id(part) not in sizes:
            if depth == DEEPEST:  # or a part of itself
                problem = TOO_DEEP
                return 1
            if not isinstance(part, list | yaml.SequenceNode) and len(parts) > 2 * MOST_KEYS:
                problem = TOO_WIDE
            sizes[id(part)] = 1 + sum(size(one, depth + 1) for one in parts)
        if sizes[id(part)] > MOST_VALUES:
            problem = problem or TOO_MANY
        return sizes[id(part)]

    size(root, 0)
    return problem


def _inside(value: Any) -> Sequence[Any] | None:
    if isinstance(value, dict):
        return [part for pair in value.items() for part in pair]
    return value if isinstance(value, list) else None


def _below(node: yaml.Node) -> Sequence[Any] | None:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else None


def _long_number(root: yaml.Node) -> Problem | None:
    """A complaint of a number that takes long to be read, if there is one."""
    seen, todo = set(), [root]
    while todo:
        node = todo.pop()
        parts = _below(node)
        if parts is None and node.tag.endswith((":int", ":float")):
            if len(node.value) > LONGEST_NUMBER:
                return Problem(_place(node.start_mark), TOO_LONG.message)
        elif parts is not None and id(node) not in seen:
            seen.add(id(node))
            todo.extend(parts)
    return None


def unwritable(value: Any, key: str = "") -> Iterator[Problem]:
    """A complaint for each text or number in `value` that no file, database or terminal takes."""
    if isinstance(value, str) and strange(value):
        yield Problem(key, TOO_STRANGE + shown(value))
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= TEN_TO:
        yield Problem(key, TOO_LONG.message)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(name, str) and strange(name):
                yield Problem(key, TOO_STRANGE + shown(name))
            else:
                yield from unwritable(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from unwritable(inner, f"{key}[{index}]")


TEN_TO = 10**LONGEST_NUMBER


def strange(text: str) -> bool:
    """Whether `text` holds NUL, or half of a character (a lone surrogate)."""
    return "\0" in text or any("\ud800" <= character <= "\udfff" for character in text)


def _repeated(names: Iterable[str]) -> Iterable[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)


def _again(key: str) -> str:
    return f"{key!r} is given twice"


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
