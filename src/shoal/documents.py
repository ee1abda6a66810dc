"""Files that people write: YAML, JSON or TOML in, a plain mapping out, mistakes told plainly.

Nothing here knows what an experiment is. Every reader of such a file reports through `ConfigError`,
so that all mistakes of a file come at once and look alike.
"""

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

SHOWN = 60  # characters of a wrong value that a message quotes


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
        return "\n".join(
            ": ".join(part for part in (p.source or self.source, p.key, p.message) if part)
            for p in self.problems
        )


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
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([Problem("", "there is no such file")], source) from None
    except OSError as error:
        raise ConfigError([Problem("", f"cannot be read: {error.strerror}")], source) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem("", "expected text in UTF-8")], source) from None
    try:
        content = _parsed(text, path.suffix.lower())
    except ConfigError as error:
        raise ConfigError(error.problems, source) from None
    if not isinstance(content, dict):
        message = f"expected a mapping of keys to values, got {shown(content)}"
        raise ConfigError([Problem("", message)], source)
    if strange := [key for key in content if not isinstance(key, str)]:
        raise ConfigError([Problem("", not_text(key)) for key in strange], source)
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
        text = str(value)
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
    if twice:
        raise ConfigError(twice)
    return content


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # its message ends in the line and column
        raise ConfigError([Problem("", f"not TOML: {error}")]) from None


class _Loader(yaml.SafeLoader):
    """YAML without objects, in which 1e-4 is a number as it is everywhere else."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _yaml(text: str) -> Any:
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:  # an empty file
            return {}
        twice = list(_repeated_keys(root, set()))
        content = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else _place(mark)
        words = error.problem or error.context
        raise ConfigError([Problem(place, f"not YAML: {words}")]) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-01
        raise ConfigError([Problem("", f"not YAML: {' '.join(str(error).split())}")]) from None
    if twice:
        raise ConfigError(twice)
    return content


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
