"""The global random generators of Python, numpy and torch, as a member's own.

Members share a process, and with it these generators. Each member gets its own sequence, as if it
were alone: what one draws changes nothing for another, and the number of workers changes nothing.
Those of libraries are looked at once they are imported: by whom and when changes nothing. Numpy's
newer generators, torch's and JAX's keys are objects, and belong to a state anyway.
"""

import random
import sys
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from shoal.runners.warm import interpreter

Randomness: TypeAlias = dict[str, Any]  # by library, and the seed they began with; JSON carries it

MODULES = {"numpy": "numpy.random", "torch": "torch"}  # where a library's global generators are


def seed(number: int) -> None:
    """Seed all of them."""
    LATE.number = number
    for name in ("random", *libraries()):
        _seed(name, number)


def capture() -> Randomness:
    """Where each of them stands."""
    version, internal, gauss = random.getstate()
    captured: Randomness = {"seed": LATE.number, "random": [version, list(internal), gauss]}
    for name in libraries():
        module = sys.modules[MODULES[name]]
        if name == "numpy":
            kind, keys, *rest = module.get_state()
            captured[name] = [kind, keys.tolist(), *rest]
        else:
            captured[name] = [_text(module.get_rng_state())]
            if module.cuda.is_initialized():
                captured[name] += [_text(state) for state in module.cuda.get_rng_state_all()]
    return captured


def restore(captured: Randomness, otherwise: int) -> None:
    """Let each go on from where it stood in `captured`.

    One that was not there then begins with the seed that the others had begun with, and if nothing
    is known, with `otherwise`.
    """
    LATE.number = captured.get("seed", otherwise)
    for name in ("random", *libraries()):
        state = captured.get(name)
        if state is None:
            _seed(name, LATE.number)
        elif name == "random":
            version, internal, gauss = state
            random.setstate((version, tuple(internal), gauss))
        elif name == "numpy":
            sys.modules[MODULES[name]].set_state(tuple(state))
        else:
            torch = sys.modules[name]
            torch.set_rng_state(_tensor(torch, state[0]))
            if len(state) > 1 and torch.cuda.is_available():
                there = state[1 : 1 + torch.cuda.device_count()]
                torch.cuda.set_rng_state_all([_tensor(torch, one) for one in there])


def libraries() -> list[str]:
    """Those of numpy and torch that are imported, and whole."""
    return [name for name, module in MODULES.items() if interpreter.imported(module)]


class Late:
    """Seeds the generators of a library that is imported while a member is trained.

    A finder that finds nothing by itself, and looks whenever an import is over: a fork server
    hands out whole libraries with whoever needs them.
    """

    def __init__(self) -> None:
        self.number = 0  # what the generators in force began with
        self._known: list[str] = []
        self._asking = threading.local()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look after imports."""
        self._known = libraries()
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            with suppress(ValueError):
                sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Where the module `name` is, as all others say."""
        if getattr(self._asking, "on", False):
            return None  # those that it asks may ask around in their turn
        self._asking.on = True
        try:
            for other in sys.meta_path:
                find = getattr(other, "find_spec", None)
                spec = None if find is None else find(name, path, target)
                if spec is not None:
                    interpreter.watch_spec(spec, lambda: None, self._look)
                    return spec
        finally:
            self._asking.on = False
        return None

    def _look(self) -> None:
        found = libraries()
        for name in found:
            if name not in self._known:
                _seed(name, self.number)
        self._known = found


LATE = Late()


def _seed(name: str, number: int) -> None:
    if name == "random":
        random.seed(number)
    elif name == "numpy":
        sys.modules[MODULES[name]].seed(number % 2**32)
    else:
        sys.modules[name].manual_seed(number)  # CUDA's too, when it is first used


def _text(state: Any) -> str:
    return b64encode(state.numpy().tobytes()).decode()


def _tensor(torch: Any, text: str) -> Any:
    return torch.frombuffer(bytearray(b64decode(text)), dtype=torch.uint8)
