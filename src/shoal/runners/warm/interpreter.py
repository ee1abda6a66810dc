"""What is asked of Python that has no public name, each with a test of its own.

`tests/runners/test_interpreter.py` fails where a new Python does one of these in another way.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any, TypeVar


def forget_finalizers(weakref: Any) -> None:
    """Leave what `weakref.finalize` was to do at the end of this process undone in a fork of it.

    The first one registers an exit function. A fork's own have to register it anew.
    """
    if weakref is None:
        return
    finalize = weakref.finalize
    for finalizer in list(finalize._registry):
        finalizer.atexit = False
    finalize._registered_with_atexit = False


def new_authkey() -> None:
    """Give multiprocessing a key of this process's own, as it has from its import."""
    process = sys.modules["multiprocessing.process"]
    config = process._current_process._config
    config["authkey"] = process.AuthenticationString(os.urandom(32))


def new_start_time() -> None:
    """Let logging's relative times count from now, as from its import."""
    logging: Any = sys.modules["logging"]
    nanoseconds = isinstance(logging._startTime, int)
    logging._startTime = time.time_ns() if nanoseconds else time.time()


def new_filters(filters: list[Any]) -> None:
    """Let `filters` be the warning filters of this process."""
    import _warnings  # noqa: PLC0415

    native: Any = _warnings
    native.filters[:] = filters
    if hasattr(native, "_filters_mutated"):
        native._filters_mutated()
    else:  # from Python 3.14 on
        native._acquire_lock()
        native._filters_mutated_lock_held()
        native._release_lock()


def filters() -> list[Any]:
    """The warning filters of this process."""
    import _warnings  # noqa: PLC0415

    module = sys.modules.get("warnings", _warnings)
    return list(getattr(module, "filters", _warnings.filters))  # it may be half executed


class EnvironmentWatch:
    """While entered, tells `read` and `written` of each use of `os.environ`."""

    def __init__(
        self, read: Callable[[str], None], written: Callable[[str, str | None], None]
    ) -> None:
        self._read, self._written = read, written

    def __enter__(self) -> None:
        kind: Any = type(os.environ)
        self._real = get, put, remove = kind.__getitem__, kind.__setitem__, kind.__delitem__
        read, written = self._read, self._written

        def getitem(environ: Any, key: Any) -> Any:
            read(key)
            return get(environ, key)

        def setitem(environ: Any, key: Any, value: Any) -> None:
            written(key, value)
            put(environ, key, value)

        def delitem(environ: Any, key: Any) -> None:
            written(key, None)
            remove(environ, key)

        kind.__getitem__, kind.__setitem__, kind.__delitem__ = getitem, setitem, delitem

    def __exit__(self, *_: object) -> None:
        kind: Any = type(os.environ)
        kind.__getitem__, kind.__setitem__, kind.__delitem__ = self._real


Function = TypeVar("Function", bound=Callable[..., Any])


def as_importing(function: Function) -> Function:
    """`function` as a part of the import system, which tracebacks and warnings do not show."""
    code: Any = function
    code.__code__ = code.__code__.replace(co_filename="<frozen importlib._bootstrap>")
    return function


def imported(name: str) -> bool:
    """Whether the module `name` is imported, and whole."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)


class WatchedSpec(ModuleSpec):
    """A spec that knows when its module is executed, with no frame of ours on the stack meanwhile.

    The import system sets `_initializing` before, and again after. Then this is a plain spec.
    """

    @property
    def _initializing(self) -> bool:
        return bool(self.__dict__.get("_initializing", False))

    @_initializing.setter
    def _initializing(self, value: bool) -> None:
        fields = self.__dict__
        fields["_initializing"] = value
        if value:
            fields["_watch"][0]()
        else:
            end = fields.pop("_watch")[1]
            self.__class__ = ModuleSpec  # type: ignore[assignment]
            end()


for _name in ("__name__", "__qualname__", "__module__"):  # where one is looked up, and shown
    setattr(WatchedSpec, _name, getattr(ModuleSpec, _name))


def watch_spec(spec: Any, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Let `begin` and `end` be called around the execution of the module of `spec`."""
    fields = spec.__dict__
    if type(spec) is ModuleSpec:
        fields["_watch"] = (begin, end)
        spec.__class__ = WatchedSpec
    elif "_watch" in fields:  # by another, who may have this module under another name
        inner = fields["_watch"]
        fields["_watch"] = (_both(begin, inner[0]), _both(inner[1], end))


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        first()
        second()

    return both
