"""The global random generators of Python, numpy and torch, as a member's own.

Members share a process, and with it these generators. Each member gets its own sequence, as if it
were alone: what one draws changes nothing for another, and the number of workers changes nothing.
Only those of libraries that are imported are looked at; numpy's newer generators, torch's and
JAX's keys are objects, and belong to a state anyway.
"""

import random
import sys
from base64 import b64decode, b64encode
from typing import Any, TypeAlias

Randomness: TypeAlias = dict[str, Any]  # by library; JSON carries it


def seed(number: int) -> None:
    """Seed all of them."""
    for name in ("random", *libraries()):
        _seed(name, number)


def capture() -> Randomness:
    """Where each of them stands."""
    version, internal, gauss = random.getstate()
    captured: Randomness = {"random": [version, list(internal), gauss]}
    for name in libraries():
        module = sys.modules[name]
        if name == "numpy":
            kind, keys, *rest = module.random.get_state()
            captured[name] = [kind, keys.tolist(), *rest]
        else:
            captured[name] = [_text(module.get_rng_state())]
            if module.cuda.is_initialized():
                captured[name] += [_text(state) for state in module.cuda.get_rng_state_all()]
    return captured


def restore(captured: Randomness, otherwise: int) -> None:
    """Let each go on from where it stood in `captured`, or anew from the seed `otherwise`."""
    for name in ("random", *libraries()):
        state = captured.get(name)
        if state is None:
            _seed(name, otherwise)
        elif name == "random":
            version, internal, gauss = state
            random.setstate((version, tuple(internal), gauss))
        elif name == "numpy":
            sys.modules[name].random.set_state(tuple(state))
        else:
            torch = sys.modules[name]
            torch.set_rng_state(_tensor(torch, state[0]))
            if len(state) > 1 and torch.cuda.is_available():
                there = state[1 : 1 + torch.cuda.device_count()]
                torch.cuda.set_rng_state_all([_tensor(torch, one) for one in there])


def libraries() -> list[str]:
    """Those of numpy and torch that are imported, and whole."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    found = ["numpy"] if hasattr(numpy, "random") else []
    return [*found, "torch"] if hasattr(torch, "get_rng_state") else found


def _seed(name: str, number: int) -> None:
    if name == "random":
        random.seed(number)
    elif name == "numpy":
        sys.modules[name].random.seed(number % 2**32)
    else:
        sys.modules[name].manual_seed(number)  # CUDA's too, when it is first used


def _text(state: Any) -> str:
    return b64encode(state.numpy().tobytes()).decode()


def _tensor(torch: Any, text: str) -> Any:
    return torch.frombuffer(bytearray(b64decode(text)), dtype=torch.uint8)
