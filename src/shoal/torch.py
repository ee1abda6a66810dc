"""PyTorch in a trainable: hyperparameters that take effect, state dicts that are loaded safely.

from shoal.torch import applied, apply, load, save

def init(self, hparams, seed):
    model = torch.nn.Linear(64, 10)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)

def step(self, state, hparams):
    model, optimizer = state
    apply(optimizer, hparams)
    ...

def applied(self, state):
    return applied(state[1])

def save(self, state, path):
    save(path, model=state[0], optimizer=state[1])

def load(self, path):
    state = self.init({}, 0)
    load(path, model=state[0], optimizer=state[1])
    return state
"""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["applied", "apply", "load", "save"]

FILE = "state.pt"
BETAS = ("beta1", "beta2")  # as hyperparameters; an optimiser has them as the pair `betas`
BASE = "initial_lr"  # in a parameter group: what a scheduler's factors are of


def apply(
    optimizer: Optimizer, hparams: Mapping[str, Any], scheduler: LRScheduler | None = None
) -> set[str]:
    """The names of those of `hparams` that `optimizer` has, which are in force now.

    Its first parameter group gets the value, and the others keep their ratio to it, so that a group
    without weight decay stays without. Under a `scheduler` the learning rate is its base: what it
    has made of it so far is kept as a factor. To be called after loading, as an optimiser's state
    dict contains the hyperparameters that it was saved under.

    Args:
        optimizer: its parameter groups are changed.
        hparams: by the names of the groups' entries (lr, momentum, weight_decay, ...), and `beta1`
            and `beta2` for Adam's. Other names are nothing to do with it, and left.
        scheduler: one that multiplies the learning rate of `optimizer`.
    """
    groups, found = optimizer.param_groups, set[str]()
    for name, value in hparams.items():
        if name == "lr" and scheduler is not None:
            _rebase(groups, scheduler, value)
        elif name in BETAS and "betas" in groups[0]:
            place = BETAS.index(name)
            for group in groups:
                betas = list(group["betas"])
                betas[place] = value
                group["betas"] = tuple(betas)
        elif name in groups[0] and name != "params":
            for group, new in zip(groups, _scaled([g[name] for g in groups], value), strict=True):
                _put(group, name, new)
        else:
            continue
        found.add(name)
    return found


def applied(optimizer: Optimizer, scheduler: LRScheduler | None = None) -> dict[str, Any]:
    """The hyperparameters that are in force, as `apply` takes them: those of the first group."""
    group = optimizer.param_groups[0]
    found = {name: value for name, value in group.items() if name not in {"params", "betas", BASE}}
    found |= dict(zip(BETAS, group.get("betas", ()), strict=False))
    if scheduler is not None:
        found["lr"] = scheduler.base_lrs[0]
    return {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in found.items()}


def save(path: Path, **parts: Any) -> None:
    """Write `parts` to the folder `path`, so that `load` can read them.

    Args:
        path: a folder, which is there.
        parts: what has a `state_dict` (modules, optimisers, schedulers, scalers), or tensors and
            plain values.

    Raises:
        TypeError: a part could not be loaded again safely: it is neither.
    """
    states = {name: _state(part) for name, part in parts.items()}
    for name, state in states.items():
        if (bad := _unsafe(state)) is not None:
            raise TypeError(
                f"{name} holds a {bad}, which cannot be loaded safely: save tensors, numbers, text "
                "and lists and mappings of them"
            )
    beside = path / f".{FILE}.partial"
    torch.save(states, beside)
    beside.replace(path / FILE)


def load(path: Path, *, map_location: Any = "cpu", **parts: Any) -> dict[str, Any]:
    """What of the folder `path` was saved and is no state of one of `parts`, by name.

    Nothing that was saved is executed (`weights_only=True`). Then the hyperparameters are those
    that were saved: `apply` what is to be in force.

    Args:
        path: the folder that `save` wrote to.
        map_location: the device on which tensors are loaded before they are copied into `parts`.
        parts: what gets its state back, by the names that `save` was given.

    Raises:
        FileNotFoundError: nothing was saved there.
        ValueError: it holds something else than tensors and plain values, or lacks a part.
    """
    try:
        states = torch.load(path / FILE, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        raise ValueError(f"{path / FILE} holds what cannot be loaded safely: {error}") from error
    if missing := parts.keys() - states.keys():
        raise ValueError(
            f"{path / FILE} has no {', '.join(sorted(missing))}; it has {', '.join(states)}"
        )
    for name, part in parts.items():
        part.load_state_dict(states[name])
    return {name: state for name, state in states.items() if name not in parts}


def _rebase(groups: list[dict[str, Any]], scheduler: LRScheduler, value: float) -> None:
    """Let `scheduler` work from the learning rate `value`."""
    old = list(scheduler.base_lrs)
    new = _scaled(old, value)
    for group, before, after in zip(groups, old, new, strict=True):
        now = float(group["lr"])
        _put(group, "lr", now / before * after if before else after)
        _put(group, BASE, after)
    scheduler.base_lrs = new
    if hasattr(scheduler, "_last_lr"):
        scheduler._last_lr = [float(group["lr"]) for group in groups]  # noqa: SLF001 (no setter)


def _scaled(values: list[Any], first: Any) -> list[Any]:
    """`values` with `first` in the first place and the others in their ratio to it."""
    old = values[0]
    if isinstance(first, bool) or not isinstance(first, int | float) or old is None or not old:
        return [first] * len(values)
    return [first, *(v if v is None else first * (float(v) / float(old)) for v in values[1:])]


def _put(group: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(group.get(name), torch.Tensor):  # a compiled or capturable optimiser has its own
        group[name].fill_(value)
    else:
        group[name] = value


def _state(part: Any) -> Any:
    return part.state_dict() if callable(getattr(part, "state_dict", None)) else part


def _unsafe(state: Any) -> str | None:
    """The kind of something in `state` that `torch.load` would not load; None if there is none."""
    if isinstance(state, Mapping):
        parts = [*state.keys(), *state.values()]
    elif isinstance(state, list | tuple | set):
        parts = list(state)
    else:
        plain = bool | int | float | str | bytes | torch.Tensor | torch.dtype | torch.device
        return None if state is None or isinstance(state, plain) else type(state).__qualname__
    return next((bad for part in parts if (bad := _unsafe(part)) is not None), None)
