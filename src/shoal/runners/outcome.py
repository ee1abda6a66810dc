"""What became of a trial: from how its process ended and what it reported, to a `Report`.

One table, in the order in which it is looked at:

    the machine took it away                          lost
    out of time                                       timeout
    ended by a signal                                 killed
    exit code other than 0, even after a result       crash
    a file or a checkpoint that is none, or too long  bad files
    no final result                                   no result
    a final result that is no number, and no
    mapping with a number under the metric's name     bad result
    NaN, +inf, -inf                                   nan
    anything else, 0 included; of several, the first  Finished

Of several processes of a trial, ranks, the lowest is heard.
"""

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Literal

from shoal.core.records import Failed, Finished, Report, Trial, Value
from shoal.runners import written

STDERR_LINES = 12  # of a failed trial's stderr, how many are told
TAIL_BYTES = 8192  # and no more than this
LINE_BYTES, REPORTS_BYTES = 1 << 20, 64 << 20  # of a report, of all of a trial's


@dataclass(frozen=True, slots=True)
class Objective:
    """What is optimised: the number under `metric` in the final result, or the result itself."""

    metric: str = "default"
    mode: Literal["max", "min"] = "max"

    def score(self, metric: float) -> float:
        """`metric` with higher being better; the same function leads back."""
        return (metric if self.mode == "max" else -metric) + 0.0  # 0 and not -0


@dataclass(slots=True)
class Reported:
    """What a trial has written to its `metrics.jsonl` so far.

    Args:
        file: that file.
        rank: what the trial's environment says before it starts any ranks of its own.
    """

    file: Path
    rank: int | None = None
    intermediate: int = 0  # how many there were
    problem: str | None = None  # what is wrong with the file
    _finals: list[tuple[int, Value]] = field(default_factory=list)
    _offset: int = 0

    @property
    def finals(self) -> list[Value]:
        """The final results of the lowest rank that has reported any."""
        lowest = min((rank for rank, _ in self._finals), default=0)
        return [value for rank, value in self._finals if rank == lowest]

    def read(self) -> list[Value]:
        """The intermediate results that are new; final ones go to `finals`."""
        new: list[Value] = []
        while self.problem is None:
            data = written.read(self.file, self._offset, LINE_BYTES)
            whole = data.rfind(b"\n") + 1  # the last line may be half written
            for line in data[:whole].splitlines():
                kind, value, rank = parse(line)
                rank = 0 if rank == self.rank else rank
                if kind == "final":
                    self._finals.append((rank, value))
                elif rank == 0:
                    new.append(value)
            self._offset += whole
            if self._offset > REPORTS_BYTES:
                self.problem = f"it reported more than {REPORTS_BYTES >> 20} MiB"
            elif len(data) == LINE_BYTES and not whole:
                self.problem = f"it reported a line of more than {LINE_BYTES >> 20} MiB"
            elif len(data) < LINE_BYTES:
                break
        self.intermediate += len(new)
        return new


def parse(line: bytes) -> tuple[str, Value, int]:
    """(kind, value, rank) of a line of `metrics.jsonl`: what is no report is a bad final result."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    rank = message.get("rank", 0) if isinstance(message, dict) else 0
    rank = rank if isinstance(rank, int) else 0
    match message:
        case {"final": value}:
            return "final", value, rank
        case {"intermediate": value}:
            return "intermediate", value, rank
        case _:
            return "final", line.decode(errors="replace"), 0  # meant to be one; it will be told


def judge(
    trial: Trial,
    status: int,
    finals: Sequence[Value],
    objective: Objective,
    *,
    saved: bool,
    timeout_s: float | None,
    stderr: Path,
    problem: str | None = None,
) -> Report:
    """The report of `trial`, whose process ended with the wait status `status`.

    `timeout_s` is the time it was given, if it used that up. `stderr` is the file it wrote to.
    `problem` is what is wrong with what it wrote, if anything.
    """
    failure = failure_of(
        status, finals, objective.metric, timeout_s=timeout_s, stderr=stderr, problem=problem
    )
    if failure is not None:
        return Failed(trial.id, *failure, trial.attempt)
    metric, metrics = measure(finals[0], objective.metric)
    assert metric is not None
    return Finished(trial.id, objective.score(metric), metrics, saved, trial.attempt)


def failure_of(
    status: int,
    finals: Sequence[Value],
    metric: str,
    *,
    timeout_s: float | None,
    stderr: Path,
    problem: str | None,
) -> tuple[str, str] | None:
    """(kind, reason) of a failure, by the table above; None where there is none."""
    code = os.waitstatus_to_exitcode(status)
    if timeout_s is not None:
        return "timeout", f"it ran longer than {timeout_s:g} s{tail(stderr)}"
    if code < 0:
        return "killed", f"it was ended by {told_signal(-code)}{tail(stderr)}"
    if code > 0:
        after = " after it had reported its final result" if finals else ""
        return "crash", f"exit code {code}{after}{tail(stderr)}"
    if problem is not None:
        return "bad files", problem
    if not finals:
        return "no result", f"it ended without reporting a final result{tail(stderr)}"
    return failure(finals[0], metric)


def failure(final: Value, metric: str) -> tuple[str, str] | None:
    """(kind, reason) of the failure that the final result `final` is, if it is one."""
    value = measure(final, metric)[0]
    if value is None:
        expected = f"a number, or a mapping with a number under {metric!r}"
        return "bad result", f"expected {expected} as final result, got {short(final)}"
    return None if isfinite(value) else ("nan", f"its final result is {value}")


def signal_name(number: int) -> str:
    """What people call a signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def told_signal(number: int) -> str:
    """A signal that ended somebody, and what often sends it."""
    often = ", as the machine does when its memory runs out" if number == signal.SIGKILL else ""
    return signal_name(number) + often


def measure(final: Value, metric: str) -> tuple[float | None, dict[str, float]]:
    """(the number that counts, if there is one; all numbers of a mapping by name)."""
    if not isinstance(final, dict):
        return number(final), {}
    numbers = {key: x for key, value in final.items() if (x := number(value)) is not None}
    return numbers.get(metric), {key: x for key, x in numbers.items() if isfinite(x)}


def number(value: Value) -> float | None:
    """`value` as NNI would take it for a metric: booleans count, text does not."""
    if not isinstance(value, bool | int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number that no float can hold
        return inf if value > 0 else -inf


def short(value: Value) -> str:
    """`value` as a user would recognise it, in a line."""
    text = "None" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def tail(file: Path) -> str:
    """The last lines of a file, to be put behind a reason; nothing if there are none."""
    data = written.read(file, max(0, written.size(file) - TAIL_BYTES), TAIL_BYTES)
    lines = data.decode(errors="replace").strip().splitlines()
    return "".join(f"\n  {line}" for line in ("", *lines)[-STDERR_LINES:] if line)
