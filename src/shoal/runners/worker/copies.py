"""A second state like a held one, on which training goes on as it would on the first."""

import copy
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST = 1000  # objects of a state that are looked at
MEMORY = "/dev/shm"  # where a folder is in memory  # noqa: S108 (as Linux has it)


LOSES = "copy.deepcopy would lose part of it"


class NotCopiedError(Exception):
    """A state that two are to go on from can neither be copied nor saved and loaded."""


class Copier:
    """Copies states of `work`, a trainable.

    By its own `copy`, where it has one. Else by `copy.deepcopy`; but what that would lose is copied
    by `save` and `load`, as it is wherever a state goes to another worker: PyTorch's modules and
    optimizers, whose hooks (and LBFGS's parameters) stay behind, and what is saved otherwise after
    it was copied.

    Args:
        work: the trainable.
        tell: is told, once, why states are saved and loaded instead, where that was not foreseen.
    """

    def __init__(self, work: Any, tell: Callable[[str], None]) -> None:
        self._work, self._tell = work, tell
        self._own: Callable[[Any], Any] | None = getattr(work, "copy", None)
        self._deeply: bool | None = None  # whether deepcopy is whole; None: not looked at yet

    def __call__(self, state: Any) -> Any:
        """A copy of `state`.

        Raises:
            NotCopiedError: it cannot be copied.
        """
        if self._own is not None:
            return self._own(state)
        if self._deeply is False or is_torch(state):
            return self._through_folder(state)
        try:
            copied = copy.deepcopy(state)
            if self._deeply is None:
                self._deeply = self._whole(state, copied)
        except Exception as error:  # noqa: BLE001 (what cannot be copied can perhaps be saved)
            self._deeply = False
            why = f"copy.deepcopy fails: {type(error).__name__}: {error}"
            self._tell(why)
            return self._through_folder(state, why)
        if not self._deeply:
            self._tell("a deep copy of it is not saved as it is itself")
            return self._through_folder(state)
        return copied

    def _whole(self, state: Any, copied: Any) -> bool:
        """Whether `copied` is saved as `state` is."""
        try:
            return self._saved(state) == self._saved(copied)
        except Exception:  # noqa: BLE001 (saving has its own ways to be told of)
            return True

    def _saved(self, state: Any) -> dict[str, bytes]:
        """What is saved of `state`: a digest of each file."""
        with folder() as here:  # one at a time: a state may be as large as the memory
            self._work.save(state, here)
            return {
                str(path.relative_to(here)): digest(path)
                for path in here.rglob("*")
                if path.is_file()
            }

    def _through_folder(self, state: Any, before: str = LOSES) -> Any:
        """`state` as it is after it was saved and loaded."""
        with folder() as here:
            try:
                self._work.save(state, here)
                return self._work.load(here)
            except Exception as error:
                why = f"saving and loading it fails: {type(error).__name__}: {error}"
                raise NotCopiedError(
                    f"the state that two members go on from was not copied: {before}; {why}"
                ) from error


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder, in memory where there is such a place."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="shoal-", dir=place) as name:
        yield Path(name)


def digest(path: Path) -> bytes:
    """Of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def is_torch(state: Any) -> bool:
    """Whether a module or optimizer of PyTorch's is in `state`, as far as it is looked into."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "optim"):
        return False
    kinds = torch.nn.Module, torch.optim.Optimizer
    left, seen = [state], set[int]()
    while left and len(seen) < MOST:
        here = left.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if isinstance(here, kinds):
            return True
        if isinstance(here, Mapping):
            left += here.values()
        elif isinstance(here, list | tuple | set):
            left += here
        elif not isinstance(here, type):
            left += getattr(here, "__dict__", {}).values()
    return False
