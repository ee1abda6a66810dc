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

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["applied", "apply", "load", "save"]

FILE = "state.pt"
BETAS = ("beta1", "beta2")  # as hyperparameters; an optimiser has them as the pair `betas`
# in a parameter group, besides its hyperparameters: the learning rate that a schedule begins with,
# and each value as it was at first
BASE, FIRST = "initial_lr", "initial_values"

# lr = base x a factor of the position, whatever the base
LINEAR = (
    lr_scheduler.LambdaLR, lr_scheduler.MultiplicativeLR, lr_scheduler.StepLR,
    lr_scheduler.MultiStepLR, lr_scheduler.ConstantLR, lr_scheduler.LinearLR,
    lr_scheduler.ExponentialLR, lr_scheduler.PolynomialLR,
)  # fmt: skip
# lr = eta_min + (base - eta_min) x a factor
FLOORED = (lr_scheduler.CosineAnnealingLR, lr_scheduler.CosineAnnealingWarmRestarts)
ALONE = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR, lr_scheduler.ReduceLROnPlateau)
COMPOSED = (lr_scheduler.SequentialLR, lr_scheduler.ChainedScheduler)
NEAR = 1e-6  # relative: as near as a schedule's recursion comes to its formula


def apply(
    optimizer: Optimizer, hparams: Mapping[str, Any], scheduler: LRScheduler | None = None
) -> set[str]:
    """The names of those of `hparams` that `optimizer` has, which are in force now.

    Its first parameter group gets the value, and the others keep the ratio to it that they had at
    first, so that a group without weight decay stays without. Under a `scheduler`, `lr` is what the
    scheduler is made with: the base of its schedule, or the peak of a OneCycleLR or CyclicLR. It
    goes on as if it had been made with the new one. To be called after loading, as an optimiser's
    state dict contains the hyperparameters that it was saved under.

    Args:
        optimizer: its parameter groups are changed.
        hparams: by the names of the groups' entries (lr, momentum, weight_decay, ...), and `beta1`
            and `beta2` for Adam's. Other names are nothing to do with it, and left.
        scheduler: the one that sets the learning rate of `optimizer`, if there is one: any of
            torch's but SWALR. A ReduceLROnPlateau has to be given from the first step on.

    Raises:
        ValueError: the scheduler sets that hyperparameter itself, or would not be as if it had been
            made with the new value; or which of several groups are to stay 0 cannot be told.
    """
    groups, found = optimizer.param_groups, set[str]()
    for name, value in hparams.items():
        if name in {"momentum", "beta1"} and any(
            getattr(part, "cycle_momentum", False) for part in _parts(scheduler)
        ):
            raise ValueError(
                f"{name} is set by the scheduler: make that with cycle_momentum=False, or do not "
                f"tune {name}"
            )
        if name == "lr" and scheduler is not None:
            _rebase(groups, scheduler, value)
        elif name in BETAS and "betas" in groups[0]:
            place = BETAS.index(name)
            for group in groups:
                betas = list(group["betas"])
                betas[place] = value
                group["betas"] = tuple(betas)
        elif name in groups[0] and name != "params":
            for group, new in zip(groups, _scaled(groups, name, value), strict=True):
                _put(group, name, new)
        else:
            continue
        found.add(name)
    return found


def applied(optimizer: Optimizer, scheduler: LRScheduler | None = None) -> dict[str, Any]:
    """The hyperparameters that are in force, as `apply` takes them: those of the first group.

    Under a `scheduler`, `lr` is worked back from the learning rate of the next step, and from where
    the schedule stands.
    """
    group = optimizer.param_groups[0]
    others = {"params", "betas", BASE, FIRST}
    found = {name: value for name, value in group.items() if name not in others}
    found |= dict(zip(BETAS, group.get("betas", ()), strict=False))
    if scheduler is not None:
        found["lr"] = _base_in_force(group, scheduler)
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


def _parts(scheduler: Any) -> list[Any]:
    """The schedulers that `scheduler` is made of, itself the first."""
    if scheduler is None:
        return []
    inner = getattr(scheduler, "_schedulers", ())
    return [scheduler, *(one for part in inner for one in _parts(part))]


def _refuse_unknown(parts: Sequence[Any]) -> None:
    for part in parts:
        kind = type(part).__name__
        if not isinstance(part, (*LINEAR, *FLOORED, *ALONE, *COMPOSED)):
            raise ValueError(  # noqa: TRY004 (as for other values)
                f"a {kind} sets the learning rate, and whether it is in proportion to what it was "
                "made with cannot be told: use a LambdaLR, or do not tune lr"
            )
        if len(parts) > 1 and isinstance(part, ALONE):
            raise ValueError(
                f"a {kind} inside of another scheduler is not supported: give it alone"
            )
    floors = {float(part.eta_min) for part in parts if isinstance(part, FLOORED)}
    if len(parts) > 1 and floors - {0.0}:
        raise ValueError("eta_min above 0 inside of another scheduler is not supported: leave it 0")


def _rebase(groups: list[dict[str, Any]], scheduler: Any, value: float) -> None:
    """Let `scheduler` go on as if it had been made with the learning rate `value`."""
    parts = _parts(scheduler)
    _refuse_unknown(parts)
    for group in groups:
        group.setdefault(BASE, float(group["lr"]))  # a ReduceLROnPlateau notes none
    old = _base(groups[0], scheduler)
    if old == value:
        return  # to the last bit
    if not old:
        raise ValueError("the learning rate of the schedule is 0, and 0 cannot be scaled")
    ratio = value / old
    if isinstance(scheduler, lr_scheduler.CyclicLR):  # its lower end is another hyperparameter
        scheduler.max_lrs = [ratio * top for top in scheduler.max_lrs]
        _scale(groups, ("max_lr",), ratio)
        for group, lr in zip(groups, _due(scheduler), strict=True):
            _put(group, "lr", lr)
        parts = []
    elif isinstance(scheduler, lr_scheduler.OneCycleLR):
        _scale(groups, ("lr", BASE, "max_lr", "min_lr"), ratio)
    else:
        _scale_above(groups, parts, ratio)
    for part in parts:
        if hasattr(part, "base_lrs"):
            part.base_lrs = [ratio * base for base in part.base_lrs]
    for part in (scheduler, *parts):
        part._last_lr = [float(group["lr"]) for group in groups]  # noqa: SLF001 (no setter)


def _scale(groups: Sequence[dict[str, Any]], names: Sequence[str], ratio: float) -> None:
    for group in groups:
        for name in names:
            if name in group:
                _put(group, name, ratio * group[name])


def _scale_above(groups: Sequence[dict[str, Any]], parts: Sequence[Any], ratio: float) -> None:
    """Scale the base of `groups`, and their learning rates above the floor of the schedule."""
    floor = next((float(part.eta_min) for part in parts if isinstance(part, FLOORED)), 0.0)
    least = getattr(parts[0], "min_lrs", [0.0] * len(groups))  # a ReduceLROnPlateau's
    for group, lowest in zip(groups, least, strict=True):
        base, now = float(group[BASE]), float(group["lr"])
        share = (now - floor) / (base - floor) if base != floor else 1.0
        _put(group, BASE, ratio * base)
        _put(group, "lr", max(lowest, floor + share * (ratio * base - floor)))


def _base(group: Mapping[str, Any], scheduler: Any) -> float:
    """The learning rate that `scheduler` is made with, by what it works from now."""
    if isinstance(scheduler, lr_scheduler.CyclicLR):
        return float(scheduler.max_lrs[0])
    if isinstance(scheduler, lr_scheduler.OneCycleLR):
        return float(group["max_lr"])
    return float(group.get(BASE, group["lr"]))


def _base_in_force(group: Mapping[str, Any], scheduler: Any) -> float:
    """As `_base`, by the learning rate that the next step will use."""
    now, base = float(group["lr"]), _base(group, scheduler)
    if isinstance(scheduler, (*FLOORED, lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)):
        due = float(_due(scheduler)[0])
    elif isinstance(scheduler, lr_scheduler.LambdaLR):
        due = float(scheduler.base_lrs[0] * scheduler.lr_lambdas[0](scheduler.last_epoch))
    elif hasattr(scheduler, "_get_closed_form_lr"):
        due = float(scheduler._get_closed_form_lr()[0])  # noqa: SLF001 (there is no other way)
    else:  # no formula: what it has set last, which `base` has led to
        due = float(getattr(scheduler, "_last_lr", [now])[0])
    if abs(now - due) <= NEAR * max(abs(now), abs(due)):
        return base
    return base * now / due if due else nan


def _due(scheduler: Any) -> list[Any]:
    """The learning rates that the formula of `scheduler` has for where it stands."""
    if isinstance(scheduler, lr_scheduler.CosineAnnealingLR):  # its get_lr works from the last one
        found: list[Any] = scheduler._get_closed_form_lr()  # noqa: SLF001
        return found
    scheduler._get_lr_called_within_step = True  # noqa: SLF001 (or it warns)
    try:
        found = scheduler.get_lr()
    finally:
        scheduler._get_lr_called_within_step = False  # noqa: SLF001
    return found


def _scaled(groups: list[dict[str, Any]], name: str, value: Any) -> list[Any]:
    """`value` for the first of `groups`, and for the others in the ratio that they had at first."""
    if isinstance(value, bool) or not isinstance(value, int | float) or groups[0][name] is None:
        return [value] * len(groups)
    first = [group.setdefault(FIRST, {}).setdefault(name, group[name]) for group in groups]
    if len(groups) == 1:
        return [value] * len(groups)
    if not first[0]:
        if not value:
            return [value, *(group[name] for group in groups[1:])]
        raise ValueError(
            f"{name} was 0 at first, so which of {len(groups)} groups are to stay without it "
            f"cannot be told: make the optimizer with a {name} above 0 where it is to be tuned"
        )
    return [value, *(v if v is None else value * (float(v) / float(first[0])) for v in first[1:])]


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
