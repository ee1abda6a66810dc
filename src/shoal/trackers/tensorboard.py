"""TensorBoard: event files, one folder a member, without torch or TensorFlow."""

import re
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

from tensorboardX import SummaryWriter

from shoal.trackers.steps import About, Step, is_number, say

UNFIT = re.compile(r"[^\w.-]+")  # for the name of a folder
OPEN = 64  # files at a time: each has a thread


def tracker(where: str, directory: Path) -> "Board":
    """Writes below `where`, or below `runs`; relative to `directory`."""
    return Board(directory / Path(where or "runs").expanduser())


class Board:
    """Writes `<root>/<name>-<id>/member-<n>`, and `best` beside them.

    Args:
        root: what `tensorboard --logdir` is given.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: OrderedDict[str, SummaryWriter] = OrderedDict()
        self._best: Step | None = None  # not written yet

    def begin(self, about: About) -> None:
        self._about = about
        self._folder = self._root / f"{UNFIT.sub('-', about.name)}-{about.id}"

    def step(self, step: Step) -> None:
        writer = self._writer(f"member-{step.member}")
        at = {"global_step": step.step, "walltime": step.at}
        if step.metric is not None:
            writer.add_scalar(self._about.metric, step.metric, **at)
        for name, value in step.metrics.items():
            writer.add_scalar(f"metrics/{name}", value, **at)
        for name, given in step.hparams.items():
            if isinstance(given, bool) or is_number(given):
                writer.add_scalar(f"hparams/{name}", float(given or 0), **at)
            elif step.donor is not None or step.step == 0:
                writer.add_text(f"hparams/{name}", say(given), **at)
        if step.donor is not None:
            writer.add_text("copies", step.copied, **at)
        if step.error is not None:
            writer.add_text("failures", step.error, **at)
        if step.best and step.metric is not None:
            self._note(step)

    def _note(self, step: Step) -> None:
        """Keep the best until a later step has a better one: a step has one value."""
        before = self._best
        if before is not None and step.step > before.step:
            self._write_best()
        later = before is not None and step.step < before.step  # of who is behind, asynchronously
        self._best = replace(step, step=before.step) if later and before is not None else step

    def _write_best(self) -> None:
        step, self._best = self._best, None
        if step is not None and step.metric is not None:
            at = {"global_step": step.step, "walltime": step.at}
            best = self._writer("best")
            best.add_scalar(self._about.metric, step.metric, **at)
            best.add_text("member", f"member {step.member}", **at)

    def flush(self) -> None:
        for writer in self._open.values():
            writer.flush()

    def end(self, state: str) -> None:
        self._write_best()
        for writer in self._open.values():
            writer.close()
        self._open.clear()

    def _writer(self, name: str) -> SummaryWriter:
        writer = self._open.pop(name, None)
        if (
            writer is None
        ):  # by itself it takes the second for a name, and writes over what is there
            folder, suffix = str(self._folder / name), f".{time.time_ns()}"
            writer = SummaryWriter(folder, filename_suffix=suffix)
        self._open[name] = writer
        if len(self._open) > OPEN:
            self._open.popitem(last=False)[1].close()
        return writer
