"""What was given in Python, made ready to be sent to workers."""

import inspect
import pickletools
import sys
from collections.abc import Iterator
from typing import Any

import cloudpickle

from shoal.runners.warm.libraries import LIBRARIES, STANDARD

DEPTH = 3  # of what is looked into for what cannot be sent


class PackingError(Exception):
    """What is to be trained cannot be sent to another process; the message names the culprit."""


def packed(work: object) -> bytes:
    """`work` as another process can load it.

    Raises:
        PackingError: it cannot be.
    """
    try:
        return bytes(cloudpickle.dumps(work))
    except Exception as error:
        name, why = culprit(work) or ("it", error)
        raise PackingError(
            f"{named(work)} cannot be sent to a worker, as {name} cannot be: {why}. Make that "
            "inside of what is trained, where it is needed, or train with inline=True."
        ) from error


def culprit(work: object, depth: int = DEPTH) -> tuple[str, Exception] | None:
    """(the name of what in `work` cannot be sent, why), the innermost that has one."""
    for name, value in parts(work):
        try:
            cloudpickle.dumps(value)
        except Exception as error:  # noqa: BLE001 (whatever its own pickling raises)
            inner = culprit(value, depth - 1) if depth else None
            return (f"{name}.{inner[0]}", inner[1]) if inner else (name, error)
    return None


def parts(work: Any) -> Iterator[tuple[str, object]]:
    """What `work` would take along, by name."""
    if inspect.ismethod(work):
        yield "self", work.__self__
    elif inspect.isfunction(work):
        used = inspect.getclosurevars(work)
        yield from used.nonlocals.items()
        yield from used.globals.items()
        for number, value in enumerate(work.__defaults__ or ()):
            yield f"its default {number}", value
    elif isinstance(work, dict):
        yield from ((str(key), value) for key, value in work.items())
    elif inspect.isclass(work):
        yield from vars(work).items()
    else:
        yield from getattr(work, "__dict__", {}).items()
        yield from (item for item in vars(type(work)).items() if inspect.isfunction(item[1]))


def named(work: object) -> str:
    """What to call `work` in a message."""
    return getattr(work, "__qualname__", None) or type(work).__qualname__


def modules_in(data: bytes) -> list[str]:
    """The libraries that unpickling `data`, or running what is in it, will import."""
    found: dict[str, None] = {}
    if not data:
        return []
    for _, text, _ in pickletools.genops(data):
        if not isinstance(text, str):
            continue
        for word in text.split(" ", 1)[:1]:
            top = word.partition(".")[0]
            if (word in sys.modules or word in LIBRARIES) and top not in STANDARD:
                found[word] = None
    return list(found)
