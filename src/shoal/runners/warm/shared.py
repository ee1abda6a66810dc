"""Imports that trials share: loaded in the server, hidden, and handed out when they are imported.

    shared = Shared(more)
    shared.load("torch")     in the server, for each library: a reason where it cannot be shared
    shared.hide()            nothing of it can be seen any more
    shared.enter(...)        in a trial: from here on an import finds what is hidden

What the import of a module did is known module by module, since each is watched as it is executed:
what it imported (all that is handed out with it), which variables of the environment it read, and
what else it changed. That is done again when the module is handed out.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.machinery import (
    BuiltinImporter,
    ExtensionFileLoader,
    FrozenImporter,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from typing import Any

from . import interpreter, processes
from .libraries import READ_BY_C, STANDARD, shared

SLOW_S, WORTH_S = 0.3, 0.05  # of an import: to be told of; to be shared as well
INSTALLED = ("site-packages", "dist-packages")


class Shared:
    """Modules that are loaded and not to be seen."""

    def __init__(self, more: list[str]) -> None:
        self._more = frozenset(name.partition(".")[0] for name in more)
        self._before = set(sys.modules)
        self._record = Record()
        self._hidden: dict[str, Any] = {}
        self._filters = interpreter.filters()
        self._finders = list(sys.meta_path)

    # ------------------------------------------------------------------ in the server

    def load(self, name: str) -> str | None:
        """Import the module `name`; why that leaves something that a fork cannot have, if it does.

        After a reason this process is of no use any more: an import cannot be undone.
        """
        state = State()
        try:
            with self._record:
                importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 (whatever it is, the trial will meet it)
            return f"importing it fails here: {type(error).__name__}: {error}"
        return state.changed()

    def hide(self) -> None:
        """Take all that was loaded out of sight, and what it did back."""
        record, modules = self._record, sys.modules
        loaded = {name: module for name, module in modules.items() if name not in self._before}
        if "__mp_main__" in loaded:  # multiprocessing's name for __main__
            record.note_made("multiprocessing", "__mp_main__")
        for name in loaded.keys() - record.found - record.made:  # put there by hand
            if "." in name:
                record.note_made(name.rpartition(".")[0], name)
            else:
                del loaded[name]
        self._hidden = loaded
        for name in loaded:
            del modules[name]
        self._bits = {name: 1 << place for place, name in enumerate(loaded)}
        self._reach = self._reaches()
        for name, module in loaded.items():
            parent = name.rpartition(".")[0]
            if parent and not self._reach.get(parent, 0) & self._bits[name]:
                unbind(loaded.get(parent, modules.get(parent)), name, module)
        final = interpreter.filters()
        record.keep_filters(final)
        interpreter.new_filters(self._filters)
        sys.meta_path[:] = self._finders
        interpreter.forget_finalizers(loaded.get("weakref"))
        self._files = {name: stamp(module) for name, module in loaded.items() if own(module)}
        # Whatever a trial does at its end, these stay as they are: taking them down takes long.
        processes.immortal({name: m for name, m in loaded.items() if name != "__mp_main__"})
        processes.immortal(self)
        gc.collect()
        gc.freeze()  # no trial walks these objects again, nor copies the pages they are on
        for thing in (modules["__main__"], vars(modules["__main__"])):  # the script's
            processes.track_again(thing)

    def _reaches(self) -> dict[str, int]:
        """By module: the bits of all that its import brings, itself too.

        There are thousands, most of which lead to hundreds: sets would take a second.
        """
        reach, bits = dict(self._bits), self._bits
        parts = {
            name: [
                part
                for part in (*self._record.imports.get(name, ()), name.rpartition(".")[0])
                if part in bits
            ]
            for name in bits
        }
        last_first = list(reversed(parts.items()))  # a module comes before what it imports
        before: dict[str, int] = {}
        while before != reach:  # more than twice where some import each other
            before = dict(reach)
            for name, some in last_first:
                for part in some:
                    reach[name] |= reach[part]
        return reach

    def _closure(self, name: str) -> list[str]:
        """What `import name` brings that is hidden still, in order."""
        brought = self._reach[name]
        return [part for part in self._hidden if brought & self._bits[part]]

    # ------------------------------------------------------------------ in a trial

    def enter(self, note: str, become_cold: Callable[[], None]) -> None:
        """From here on an import finds what is hidden.

        Args:
            note: the file that the controller reads of what was not shared, and why.
            become_cold: begins this process again, with nothing shared; it does not return.
        """
        self._note, self._become_cold, self._pid = note, become_cold, os.getpid()
        self._everything = dict(self._hidden)
        self._own: list[Import] = []
        self._stack: list[Import] = []  # those under way
        atexit.register(self._leave)  # first of all, so it is called last
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Where the module `name` is, as all others say; what is hidden, if it is the same."""
        spec = look_up(self, name, path, target)
        known = self._hidden.get(name)
        if known is None or target is not None:
            return self._timed(spec)
        if spec is None or not same(spec, known):
            return self._timed(spec)  # the trial's own; what else is shared may contradict it
        closure = self._closure(name)
        self._check_environment(name, closure)
        self._check_places(name, closure)
        return self._handing_out(spec, closure)

    def _handing_out(self, spec: Any, closure: list[str]) -> Any:
        known = self._hidden[spec.name]
        own_spec, own_loader = getattr(known, "__spec__", None), getattr(known, "__loader__", None)

        @interpreter.as_importing
        def create_module(_: ModuleSpec) -> Any:
            return known

        @interpreter.as_importing
        def exec_module(module: Any) -> None:
            restore(module, own_spec, own_loader)
            self._hand_out(spec.name, closure)

        if type(spec.loader) in WATCHABLE:
            spec.loader.create_module, spec.loader.exec_module = create_module, exec_module
            return spec
        loader: Any = Loader(create_module, exec_module)
        return ModuleSpec(spec.name, loader, origin=spec.origin)

    def _hand_out(self, name: str, closure: list[str]) -> None:
        # Here and not in find_spec: importlib takes a name that it finds there for done.
        record, modules = self._record, sys.modules
        given = [part for part in closure if part in self._hidden]
        for part in given:
            module = self._hidden.pop(part)
            modules.setdefault(part, module)
            os.environ.update(record.sets.get(part, {}))
        for part in given:
            parent = part.rpartition(".")[0]
            if parent and part != name and parent in modules:
                bind(modules[parent], part, modules[part])
        fresh(given)  # first: an effect may import what is watched by somebody who seeds
        for part in record.order(given):
            for effect in record.effects[part]:
                effect()

    def _check_environment(self, name: str, closure: list[str]) -> None:
        record = self._record
        different = {}
        for part in closure:
            for variable in record.reads.get(part, ()):
                now, then = os.environ.get(variable), record.environ.get(variable)
                if now not in (then, record.set_to.get(variable, then)):
                    different[variable] = now
        if different:
            words = ", ".join(f"{k}={v!r}" for k, v in sorted(different.items()))
            self._cold(f"{name} reads {words} as it is imported", name, different)

    def _check_places(self, name: str, closure: list[str]) -> None:
        """Become cold where the path leads to other modules than those that are shared."""
        for part in closure:
            if part.startswith("_cython_") or part == "cython_runtime":
                continue  # made by whatever Cython compiled, and is imported first: any will do
            if part in sys.modules and sys.modules[part] is not self._hidden[part]:
                self._cold(f"{name} imports {part}, which is another one here", name, {})
            stamped = self._files.get(part)
            if stamped is not None and stamp(self._hidden[part]) != stamped:
                self._cold(f"{name} imports {part}, which has been edited", name, {})
        found = self._record.found
        tops = [part for part in closure if "." not in part and part != name and part in found]
        for part in unsure(tops, self._hidden):
            spec = look_up(self, part, None, None)
            if spec is None or not same(spec, self._hidden[part]):
                where = None if spec is None else spec.origin
                self._cold(f"{name} imports {part}, which is {where} here", name, {})

    def _cold(self, why: str, name: str, variables: dict[str, str | None]) -> None:
        self._tell(cold=why, library=name.partition(".")[0], variables=variables)
        self._become_cold()

    def _timed(self, spec: Any) -> Any:
        """`spec`, whose loader says how long it took."""
        if spec is None or type(spec.loader) not in WATCHABLE:
            return spec
        stack, own = self._stack, self._own

        def begin() -> None:
            own.append(Import(spec.name, spec.origin or "", stack[-1] if stack else None))
            stack.append(own[-1])

        def end() -> None:
            ended = stack.pop()
            ended.seconds = time.perf_counter() - ended.began

        interpreter.watch_spec(spec, begin, end)
        return spec

    def _leave(self) -> None:
        """The last exit function: tell what was not shared, and leave what was as it is."""
        if os.getpid() != self._pid:
            return
        self._tell_of_imports()
        for main in (self._everything, self._hidden):  # or it would not end as it does
            main.pop("__mp_main__", None)
        for name, module in self._everything.items():
            if sys.modules.get(name) is module:
                self._hidden[name] = module  # to be found by a __del__ that imports it
                del sys.modules[name]
        self._record.effects.clear()

    def _tell_of_imports(self) -> None:
        main = getattr(sys.modules.get("__main__"), "__file__", None) or ""
        folder = os.path.dirname(os.path.abspath(main)) + os.sep
        worth: list[Import] = []  # to be shared, each with all that it imports
        slow: list[Import] = []  # and not to be shared, the outermost
        for one in self._own:
            if shared(one.name, self._more):
                if not any(shared(outer.name, self._more) for outer in one.within()):
                    worth.append(one)
                    for outer in one.within():
                        outer.seconds -= one.seconds
            elif (installed(one.origin) or not one.origin.startswith(folder)) and not any(
                outer in slow for outer in one.within()
            ):
                slow.append(one)
        told = {one.name: round(one.seconds, 2) for one in slow if one.seconds >= SLOW_S}
        much = sum(one.seconds for one in worth) >= WORTH_S
        if much or told:
            self._tell(imports=[one.name for one in worth] if much else [], slow=told)

    def _tell(self, **what: object) -> None:
        try:
            with open(self._note, "w") as file:
                json.dump(what, file)
        except OSError:  # it is about speed only
            pass


class Import:
    """An import that a trial did by itself."""

    def __init__(self, name: str, origin: str, outer: Import | None) -> None:
        self.name, self.origin, self.outer = name, origin, outer
        self.began, self.seconds = time.perf_counter(), 0.0

    def within(self) -> Iterator[Import]:
        """The imports that it was done for, innermost first."""
        outer = self.outer
        while outer is not None:
            yield outer
            outer = outer.outer


class Record:
    """While entered, notes what the execution of each module does."""

    def __init__(self) -> None:
        self.environ = dict(os.environ)
        self.found: set[str] = set()  # what a finder has found
        self.made: set[str] = set()  # what nobody has looked for: made by C code, or by hand
        self.imports: dict[str, set[str]] = {}  # module -> what it imports as it is executed
        self.reads: dict[str, set[str]] = {}  # module -> variables
        self.sets: dict[str, dict[str, str]] = {}  # module -> variables
        self.set_to: dict[str, str] = {}
        self.effects: dict[str, list[Callable[[], Any]]] = {}  # module -> what to do again
        self._sequence: dict[str, int] = {}  # module -> when it had been executed
        self._stack: list[str] = []
        self._active = False
        self._new_filters: list[tuple[Any, list[Callable[[], Any]], Callable[[], Any]]] = []
        self._watch = interpreter.EnvironmentWatch(self._read, self._written)

    def __enter__(self) -> None:
        self._active = True
        self._there, self._size = set(sys.modules), len(sys.modules)
        self._seen_filters, self._seen_finders = interpreter.filters(), list(sys.meta_path)
        # the libraries' own: ours was loaded before, and is out of sight
        self._atexit = importlib.import_module("atexit")
        self.found.add("atexit")
        self._real: Any = builtins.__import__, self._atexit.register
        builtins.__import__ = self._importing(builtins.__import__)
        vars(self._atexit)["register"] = self._registering(self._atexit.register)
        self._watch.__enter__()
        sys.meta_path.insert(0, self)

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)
        self._watch.__exit__()
        builtins.__import__, vars(self._atexit)["register"] = self._real
        self._active = False

    def order(self, modules: list[str]) -> list[str]:
        """Those of `modules` that did something, in the order in which they did it."""
        return sorted((m for m in modules if m in self.effects), key=lambda m: self._sequence[m])

    def note_made(self, by: str, name: str) -> None:
        """Note that `name` is there since the module `by` was executed."""
        self.made.add(name)
        self.imports.setdefault(by, set()).add(name)

    def keep_filters(self, final: list[Any]) -> None:
        """Forget the warning filters that were there only for a while."""
        for entry, effects, effect in self._new_filters:
            if not any(entry is kept for kept in final):
                effects.remove(effect)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """As all others say, with a loader that is watched."""
        spec = look_up(self, name, path, target)
        if spec is None or not self._active:
            return spec
        self.found.add(name)
        loader = spec.loader
        if loader is None:  # a namespace: nothing is executed
            self._note(name)
            self._size += 1
            return spec
        if type(loader) is ExtensionFileLoader and name.partition(".")[0] not in STANDARD:
            self.reads.setdefault(name, set()).update(READ_BY_C)

        def begin() -> None:
            self._note(name)
            self._changes()
            self._stack.append(name)
            self._size += 1

        def end() -> None:
            self._changes()
            self._stack.pop()
            if len(sys.modules) != self._size:  # Cython's put more than one there
                for made in sys.modules.keys() - self._there - self.found - self.made:
                    self.note_made(name, made)
                self._size = len(sys.modules)

        watch(spec, begin, end)
        return spec

    def _note(self, name: str) -> None:
        if self._stack:
            self.imports.setdefault(self._stack[-1], set()).add(name)

    def _importing(self, real: Any) -> Any:
        def __import__(  # noqa: N807
            name: str,
            globals: Any = None,
            locals: Any = None,
            fromlist: Any = (),
            level: int = 0,
        ) -> Any:
            module = real(name, globals, locals, fromlist, level)
            if self._active and self._stack:
                full = name
                if level:
                    package = globals["__package__"] or globals["__spec__"].parent
                    full = importlib.util.resolve_name("." * level + name, package)
                self._note(full)
                for part in fromlist or ():
                    if f"{full}.{part}" in sys.modules:
                        self._note(f"{full}.{part}")
            return module

        return __import__

    def _registering(self, real: Any) -> Any:
        def register(func: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._active:
                return real(func, *args, **kwargs)
            if getattr(func, "__qualname__", "") != "finalize._exitfunc":  # see interpreter.py
                self._did(lambda: atexit.register(func, *args, **kwargs))
            return func

        return register

    def _did(self, effect: Callable[[], Any]) -> list[Callable[[], Any]]:
        """Note `effect` for the module that is being executed."""
        name = self._stack[-1] if self._stack else ""
        self._sequence.setdefault(name, len(self._sequence))
        effects = self.effects.setdefault(name, [])
        effects.append(effect)
        return effects

    def _changes(self) -> None:
        """Note what has changed since the last look for the module that is being executed."""
        finders = list(sys.meta_path)
        if finders != self._seen_finders:
            mine = finders.index(self) if self in finders else 0
            for index, finder in enumerate(finders):
                if finder is not self and finder not in self._seen_finders:
                    self._did(partial(add_finder, finder, last=index > mine))
            self._seen_finders = finders
        filters = interpreter.filters()
        if filters != self._seen_filters:
            new = [f for f in filters if not any(f is seen for seen in self._seen_filters)]
            for entry in reversed(new):
                effect = partial(add_filter, entry)
                self._new_filters.append((entry, self._did(effect), effect))
            self._seen_filters = filters

    def _read(self, key: str) -> None:
        if self._stack:
            self.reads.setdefault(self._stack[-1], set()).add(key)

    def _written(self, key: str, value: str | None) -> None:
        if self._stack and value is not None:
            self.sets.setdefault(self._stack[-1], {})[key] = value
            self.set_to[key] = value


class State:
    """What an import may change that a fork cannot have: compared before and after."""

    def __init__(self) -> None:
        self._is = self._now()
        self._files = set(processes.open_files())
        self._said = said()

    def changed(self) -> str | None:
        """Why what was imported since cannot be shared, if it cannot."""
        if processes.children():
            return "it starts processes"
        threading = sys.modules.get("threading")
        if threading is not None and threading.active_count() > 1:
            return "it starts threads"
        if not processes.threads_survive_fork():
            return "it starts threads"
        for fd, what in processes.open_files().items():
            if fd not in self._files and not what.startswith("/proc/"):
                return f"it keeps {what} open"
        if said() != self._said:
            return "it prints something"
        now = self._now()
        return next((f"it changes {what}" for what in now if now[what] != self._is[what]), None)

    @staticmethod
    def _now() -> dict[str, object]:
        logging = sys.modules.get("logging")
        return {
            "the working directory": os.getcwd(),
            "sys.excepthook": id(sys.excepthook),
            "sys.displayhook": id(sys.displayhook),
            "sys.stdout": (id(sys.stdin), id(sys.stdout), id(sys.stderr)),
            "sys.path": list(sys.path),
            "sys.argv": list(sys.argv),
            "signal handlers": [signal.getsignal(n) for n in range(1, signal.NSIG)],
            "the root logger": [id(h) for h in logging.root.handlers] if logging else [],
        }


class Loader:
    """A loader in the place of one that is a class, and not ours to change."""

    def __init__(self, create_module: Any, exec_module: Any) -> None:
        self.create_module, self.exec_module = create_module, exec_module


def watch(spec: Any, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Let `begin` and `end` be called around the execution of a module, which does not see that."""
    loader = spec.loader
    if type(loader) in WATCHABLE:

        @interpreter.as_importing
        def exec_module(module: Any) -> None:
            del loader.exec_module
            begin()
            try:
                loader.exec_module(module)
            finally:
                end()

        loader.exec_module = exec_module
    elif hasattr(loader, "exec_module"):

        @interpreter.as_importing
        def exec_module(module: Any) -> None:
            spec.loader = loader
            if getattr(module, "__loader__", None) is substitute:
                module.__loader__ = loader
            begin()
            try:
                loader.exec_module(module)
            finally:
                end()

        substitute = spec.loader = Loader(loader.create_module, exec_module)


WATCHABLE = (SourceFileLoader, ExtensionFileLoader, SourcelessFileLoader)


def look_up(finder: object, name: str, path: Any, target: Any) -> Any:
    """The spec of the module `name` by all finders but `finder`."""
    for other in list(sys.meta_path):
        find = None if other is finder else getattr(other, "find_spec", None)
        spec = None if find is None else find(name, path, target)
        if spec is not None:
            return spec
    return None


def same(spec: ModuleSpec, module: Any) -> bool:
    """Whether `spec` leads to the file that `module` was loaded from."""
    known = getattr(module, "__spec__", None)
    if known is None:
        return False
    if spec.origin is None and known.origin is None:  # a namespace package
        return list(spec.submodule_search_locations or ()) == list(
            known.submodule_search_locations or ()
        )
    return bool(spec.origin == known.origin)


def unsure(tops: list[str], modules: dict[str, Any]) -> list[str]:
    """Those of `tops` that the path may lead elsewhere for: they have to be looked up.

    The others are in the folder of the path that is the first to have anything of their name.
    """
    others = []  # finders that are asked before the path is
    for finder in sys.meta_path:
        if finder is PathFinder:
            break
        if finder not in (BuiltinImporter, FrozenImporter) and not isinstance(finder, Shared):
            others.append(finder)
    result = [top for top in tops if any(f.find_spec(top, None) is not None for f in others)]
    try:
        first = first_places()
    except NotADirectoryError:  # an archive
        return tops
    for top in tops:
        origin = getattr(getattr(modules[top], "__spec__", None), "origin", None)
        if origin in ("built-in", "frozen"):  # found before the path is looked at
            continue
        if origin is None or first.get(top) != place_of(origin):
            result.append(top)
    return result


def first_places() -> dict[str, str]:
    """The first folder of the path that has anything of a name, by that name.

    Raises:
        NotADirectoryError: there is something else than folders on the path.
    """
    first: dict[str, str] = {}
    for folder in sys.path:
        if not folder.endswith(".zip") or os.path.exists(folder):
            with suppress(FileNotFoundError, PermissionError):
                for entry in os.listdir(folder or "."):
                    first.setdefault(entry.partition(".")[0], folder)
    return first


def place_of(origin: str) -> str:
    """The folder of the path in which a module or package with the file `origin` lies."""
    place, file = os.path.split(origin)
    return os.path.dirname(place) if file.partition(".")[0] == "__init__" else place


def own(module: Any) -> bool:
    """Whether `module` lies where people edit: neither in the standard library nor installed."""
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    if not isinstance(origin, str) or not os.path.isabs(origin):
        return False
    standard = origin.startswith(os.path.dirname(os.__file__) + os.sep)
    return not standard and not installed(origin)


def installed(origin: str) -> bool:
    """Whether a file is where packages are installed."""
    return any(f"{os.sep}{folder}{os.sep}" in origin for folder in INSTALLED)


def stamp(module: Any) -> tuple[int, int] | None:
    """What changes when the file of `module` is edited."""
    try:
        status = os.stat(module.__spec__.origin)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def said() -> int:
    """How many bytes this process has printed: its output is a file while it loads."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    return sum(os.fstat(fd).st_size for fd in (1, 2))


def bind(parent: Any, name: str, module: Any) -> None:
    """Let `module`, a submodule, be an attribute of `parent`, as its import makes it."""
    child = name.rpartition(".")[2]
    if child not in getattr(parent, "__dict__", {}):
        with suppress(AttributeError, TypeError):
            setattr(parent, child, module)


def unbind(parent: Any, name: str, module: Any) -> None:
    """Undo `bind`."""
    attributes = getattr(parent, "__dict__", {})
    child = name.rpartition(".")[2]
    if attributes.get(child) is module:
        with suppress(AttributeError, TypeError):
            delattr(parent, child)


def restore(module: Any, spec: Any, loader: Any) -> None:
    """Let `module` have what its own import gave it."""
    for name, value in (("__spec__", spec), ("__loader__", loader)):
        with suppress(AttributeError, TypeError):
            setattr(module, name, value)


def add_finder(finder: Any, *, last: bool) -> None:
    """Put `finder` where an import had put it."""
    if last:
        sys.meta_path.append(finder)
    else:
        sys.meta_path.insert(0, finder)


def add_filter(entry: Any) -> None:
    """Add a warning filter as an import had added it."""
    import warnings  # noqa: PLC0415

    action, message, category, module, line = entry
    warnings.filterwarnings(
        action,
        message=getattr(message, "pattern", message) or "",
        category=category,
        module=getattr(module, "pattern", module) or "",
        lineno=line,
    )


def fresh(modules: list[str]) -> None:
    """What a new process would have drawn anew for `modules`."""
    if "numpy.random" in modules:
        sys.modules["numpy.random"].seed()
    if "torch" in modules:
        sys.modules["torch"].random.default_generator.seed()
    if "multiprocessing.process" in modules:
        interpreter.new_authkey()
    if "logging" in modules:
        interpreter.new_start_time()
