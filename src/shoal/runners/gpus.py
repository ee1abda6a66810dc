"""Which GPUs a trial sees: `CUDA_VISIBLE_DEVICES`, handed out and taken back.

The GPUs are asked for with `nvidia-smi`, in a process of its own: nothing of CUDA is ever touched
here.
"""

import subprocess
from collections import Counter
from collections.abc import Collection, Sequence

from shoal.runners.base import RunnerError


def installed() -> list[int]:
    """The indices of the GPUs of this machine."""
    return [_index(row) for row in _ask("--query-gpu=index")]


def active() -> set[int]:
    """The indices of the GPUs on which some process computes at the moment."""
    indices = {row[1]: _index(row) for row in _ask("--query-gpu=index,uuid")}
    busy = (row[0] for row in _ask("--query-compute-apps=gpu_uuid"))
    return {indices[uuid] for uuid in busy if uuid in indices}


def _ask(query: str) -> list[list[str]]:
    """The rows that nvidia-smi answers; none where it is not there.

    Raises:
        RunnerError: it does not answer, or not what was asked for.
    """
    try:
        answer = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"],
            capture_output=True, text=True, errors="replace", timeout=60, check=True,
        ).stdout  # fmt: skip
    except FileNotFoundError:
        return []
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stdout", "") or getattr(error, "stderr", "") or ""
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        why = " ".join(said.split())[:200]
        raise RunnerError(
            f"nvidia-smi does not answer, so no GPU can be given: {error}"
            + (f": {why}" if why else "")
        ) from error
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    rows = [row for row in rows if row[0] and not row[0].startswith("No ")]
    columns = query.count(",") + 1
    for row in rows:
        if len(row) != columns:
            raise _misunderstood(query, ", ".join(row))
    return rows


def _index(row: list[str]) -> int:
    if not row[0].isdecimal():
        raise _misunderstood("--query-gpu=index", ", ".join(row))
    return int(row[0])


def _misunderstood(query: str, said: str) -> RunnerError:
    return RunnerError(
        f"nvidia-smi {query} answers {said[:200]!r}, so no GPU can be given: does its version "
        "match that of the driver? gpus_per_trial: 0 trains on the CPU"
    )


class Gpus:
    """The GPUs of this machine, as places for trials.

    Args:
        per_trial: how many a trial gets; 0 hides them all; a fraction lets trials share one; None
            leaves `CUDA_VISIBLE_DEVICES` as it is.
        only: the indices that may be used; None for all.
        per_gpu: how many trials may share a GPU.
        use_active: whether a GPU may be used on which somebody else's process computes.

    Raises:
        RunnerError: a trial asks for more than there are.
    """

    def __init__(
        self,
        per_trial: float | None,
        only: Collection[int] | None = None,
        per_gpu: int = 1,
        *,
        use_active: bool = False,
    ) -> None:
        self._count = 0 if per_trial is None else int(per_trial)
        self._hide = per_trial == 0
        self._places: Counter[int] = Counter()
        if per_trial is None or per_trial == 0:
            return
        if per_trial < 1:
            self._count, per_gpu = 1, per_gpu * int(1 / per_trial)
        there = installed()
        usable = [gpu for gpu in there if only is None or gpu in only]
        busy = set() if use_active else active() & set(usable)
        usable = [gpu for gpu in usable if gpu not in busy]
        if len(usable) < self._count:
            raise RunnerError(self._too_few(there, only, busy))
        self._places.update(dict.fromkeys(usable, per_gpu))

    @property
    def free(self) -> int | None:
        """How many more trials find a place; None where GPUs set no limit."""
        if not self._places:
            return None
        places = sorted(self._places.values(), reverse=True)
        trials = 0
        while len(places) >= self._count and places[self._count - 1] > 0:
            places[: self._count] = [place - 1 for place in places[: self._count]]
            places.sort(reverse=True)
            trials += 1
        return trials

    def take(self) -> list[int] | None:
        """The GPUs for one more trial, the emptiest first; None where it is to see what is there.

        There is room: `free` was asked before.
        """
        if not self._places:
            return [] if self._hide else None
        taken = [gpu for gpu, _ in self._places.most_common(self._count)]
        self._places.subtract(taken)
        return taken

    def give_back(self, taken: Sequence[int] | None) -> None:
        """Let other trials have the GPUs that one had."""
        self._places.update(taken or ())

    def _too_few(self, there: list[int], only: Collection[int] | None, busy: set[int]) -> str:
        why = f"a trial asks for {self._count} GPUs, and this machine has {len(there)}"
        if not there:
            why += " (nvidia-smi lists none)"
        if only is not None:
            why += f"; only {sorted(only)} may be used"
        if busy:
            why += f"; {sorted(busy)} are in use by others (allow that with useActiveGpu: true)"
        return why + ". Ask for fewer, or for 0 to train on the CPU."
