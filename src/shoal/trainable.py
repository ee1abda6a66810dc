"""What a user of Python writes: a trainable, or a function.

A *trainable* keeps the model in memory while its member goes on: `init, step, save, load`. A
*function* is called once for each step, and hands its model on in a folder.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from shoal.core.records import Hparams, Value

State = TypeVar("State")
METHODS = ("init", "step", "save", "load")


class Trainable(Protocol[State]):
    """Training that is done a step at a time, by whoever holds its state.

    Data and whatever else is the same for all members belongs to the trainable itself; the state
    is what a member has and another one can copy: weights, optimiser, position in the data.
    Python's, numpy's and torch's global generators are the member's own, too: they need not be
    saved.

    One may also have `copy(state)`: a second state, on which training goes on as on the first.
    Without it a state is copied by `copy.deepcopy`, or, where that would lose something (the hooks
    of a module or optimizer), by `save` and `load` in memory.

    One may also have `applied(state) -> Mapping`, the hyperparameters that are really in force.
    It is asked after the first step under new ones, and what differs from what was asked for is an
    error.
    """

    def init(self, hparams: Hparams, seed: int) -> State:
        """A fresh state: that of a member that has done no step."""
        ...

    def step(self, state: State, hparams: Hparams) -> tuple[State, float | Mapping[str, float]]:
        """The state after one step under `hparams`, and its score; `state` may be changed."""
        ...

    def save(self, state: State, path: Path) -> None:
        """Write all of `state` to the folder `path`, which is there and empty."""
        ...

    def load(self, path: Path) -> State:
        """The state that was saved to the folder `path`."""
        ...


def is_trainable(work: object) -> bool:
    """Whether `work` is a trainable, or a class of them, and no function."""
    return all(callable(getattr(work, name, None)) for name in METHODS)


def made(work: Any) -> Any:
    """`work`, or where it is a class the trainable that it makes."""
    return work() if inspect.isclass(work) else work


def problem(work: object) -> str | None:
    """What keeps `work` from being trained; None if nothing does."""
    there = [name for name in METHODS if _has(work, name)]
    if len(there) == len(METHODS):
        return None
    if there or is_trainable(work):
        lacks = ", ".join(name for name in METHODS if name not in there)
        has = f"has {', '.join(there)}, and lacks" if there else "lacks"
        return f"{name_of(work)} {has} {lacks} to be a trainable"
    if not callable(work) or inspect.isclass(work):
        return f"expected a function or a trainable ({', '.join(METHODS)}), got {name_of(work)}"
    try:
        inspect.signature(work).bind(None)
    except (TypeError, ValueError) as error:
        return f"{name_of(work)} is to be called with one argument, the trial: {error}"
    return None


def _has(work: object, name: str) -> bool:
    """Whether `work` has a method of its own of this name, or from whom it is one of."""
    method = getattr(work, name, None)
    return callable(method) and getattr(method, "__func__", method) is not getattr(Trainable, name)


def name_of(work: object) -> str:
    """`work` as `module:name`, or as near as one can get."""
    named = work if hasattr(work, "__qualname__") else type(work)
    name = getattr(named, "__qualname__", "?")
    return f"{getattr(named, '__module__', '?')}:{name}"


class Trial:
    """What a function gets: one step of one member.

    Attributes:
        hparams: the hyperparameters to train under.
        load: the folder of the checkpoint to start from; None for a member's first step.
        save: the folder to leave the new checkpoint in; it is there.
        seed: a number that is this trial's own and the same whenever the run is repeated. Python's,
            numpy's and torch's global generators have been seeded with it.
        member: the member of the population, counted from 0.
        step: how many steps the member has done before this one.
        id: the trial's number in the experiment.
        attempt: 1, and one more for each retry.
    """

    def __init__(
        self,
        *,
        hparams: dict[str, Value],
        load: Path | None,
        save: Path,
        seed: int,
        member: int,
        step: int,
        id: int,
        attempt: int,
        tell: Callable[[object], None],
    ) -> None:
        self.hparams, self.load, self.save, self.seed = hparams, load, save, seed
        self.member, self.step, self.id, self.attempt = member, step, id, attempt
        self._tell = tell

    def report(self, value: object) -> None:
        """Report how it is going; shown and kept, never used to choose.

        Args:
            value: a number, or a mapping of names to numbers.
        """
        self._tell(value)

    def __repr__(self) -> str:
        return f"<trial {self.id}: member {self.member}, step {self.step}, {self.hparams}>"
