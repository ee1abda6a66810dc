"""Journal -> tables: pure functions from records to what people and programs look at.

Nothing here reads a file, a clock or a process: what only they can tell (is a controller alive, is
a checkpoint still there) is given.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal

from shoal.core.records import LOST, Failed, Finished, Hparams, Trial
from shoal.stores.base import Entry

State = Literal["running", "finished", "failed", "retrying", "interrupted"]


@dataclass(frozen=True, slots=True)
class Row:
    """A trial, and what became of it."""

    id: int
    member: int
    step: int
    hparams: Hparams
    parent: int | None
    state: State
    metric: float | None  # as the trial reported it, lower being better where that was asked for
    metrics: Mapping[str, float]
    checkpoint: Path | None
    attempt: int
    started: float  # seconds since the epoch
    ended: float | None
    error: str | None
    intermediate: Sequence[Any] = ()  # what the newest attempt reported on its way

    def json(self) -> dict[str, Any]:
        """The trial as `--json` and the API give it."""
        return {
            "id": self.id,
            "member": self.member,
            "step": self.step,
            "hparams": self.hparams,
            "parent": self.parent,
            "state": self.state,
            "metric": self.metric,
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "attempt": self.attempt,
            "started": iso(self.started),
            "ended": None if self.ended is None else iso(self.ended),
            "error": self.error,
            "metrics": dict(self.metrics),
            "intermediate": strict(list(self.intermediate)),
        }


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an experiment has come."""

    step: int  # the lowest that some member has yet to end
    trials: int
    finished: int
    running: int
    failed: int  # trials given up, or about to be tried again
    total: int | None  # how many trials there will be; None: as many as time allows
    members: Sequence[Row]  # the latest trial of each member


@dataclass(frozen=True, slots=True)
class Control:
    """The best of the control arm and the best of the others, of as many steps of each member."""

    members: int  # that never copy
    others: int
    steps: int  # that each of all members has ended
    best: Row  # of the control arm
    other: Row  # of the others
    gain: float  # by how much the others' is better

    def json(self) -> dict[str, Any]:
        """The arms as `--json` and the API give them."""
        return {
            "members": self.members,
            "others": self.others,
            "steps": self.steps,
            "best": {"id": self.best.id, "metric": self.best.metric},
            "other": {"id": self.other.id, "metric": self.other.metric},
            "gain": self.gain,
        }


def table(
    entries: Iterable[Entry],
    mode: str,
    *,
    alive: bool,
    started: Mapping[tuple[int, int], float] = {},
) -> list[Row]:
    """Every trial that `entries` are of, by id.

    Args:
        entries: the journal, or what it has of some trials.
        mode: "max" or "min", which way the metric goes.
        alive: whether a controller drives the experiment: without one, nothing is running.
        started: when the process of an attempt (trial, attempt) began; without, when it was
            decided.

    Raises:
        ValueError: `entries` are damaged.
    """
    sign = 1.0 if mode == "max" else -1.0
    again: State = "retrying" if alive else "interrupted"
    rows: dict[int, Row] = {}
    for at, record in entries:
        match record:
            case Trial(id, member, step, hparams, parent, attempt):
                state: State = "running" if alive else "interrupted"
                told = (id, member, step, hparams, parent, state)
                began = started.get((id, attempt), at)
                row = Row(*told, None, {}, None, attempt, began, None, None)
                rows[id] = replace(row, error=rows[id].error) if id in rows else row
            case Finished(trial) | Failed(trial) if trial not in rows:
                raise ValueError(f"there is a report of trial {trial}, and no such trial")
            case Finished(trial, score, metrics):
                rows[trial] = replace(
                    rows[trial],
                    state="finished",
                    metric=sign * score + 0.0,
                    metrics=metrics,
                    ended=at,
                )
            case Failed(trial, kind, reason):
                rows[trial] = replace(
                    rows[trial],
                    state=again if kind == LOST else "failed",
                    ended=at,
                    error=f"{kind}: {reason}",
                )
    return [rows[id] for id in sorted(rows)]


def located(row: Row, checkpoint: Path | None, intermediate: Sequence[Any] = ()) -> Row:
    """`row` with the folder in which its checkpoint is, and what it reported on its way."""
    return replace(row, checkpoint=checkpoint, intermediate=intermediate)


def schedule(line: Iterable[Row]) -> list[dict[str, Any]]:
    """The hyperparameters along a lineage, step by step: what PBT has found."""
    return [{"step": step, "hparams": row.hparams} for step, row in enumerate(line)]


def uncopied(starts: Iterable[tuple[int, int, int | None, float | None]]) -> int | None:
    """The best trial of those whose members had never copied.

    It is no random search: members that copied later are there with their first steps alone.

    Args:
        starts: (trial, member, parent, score) of every trial, by id.
    """
    members: list[int] = []
    alone: list[bool] = []
    best, top = None, -inf
    for trial, member, parent, score in starts:
        members.append(member)
        alone.append(parent is None or (members[parent] == member and alone[parent]))
        if score is not None and score > top and alone[trial]:
            best, top = trial, score
    return best


def copies(rows: Iterable[Row], members: Mapping[int, int]) -> dict[int, int]:
    """The member that each of `rows` copied, by trial, where it went on from another member's.

    Args:
        rows: some trials.
        members: whose the trials are that they started from.
    """
    return {
        row.id: members[row.parent]
        for row in rows
        if row.parent is not None and members[row.parent] != row.member
    }


def step(newest: Iterable[Row], population: int) -> int:
    """The lowest step that some member has yet to end, by the latest trial of each."""
    ended = {row.member: row.step + (row.state in {"finished", "failed"}) for row in newest}
    return min((ended.get(member, 0) for member in range(population)), default=0)


def total(steps: int | None, trials: int | None, population: int) -> int | None:
    """How many trials `steps` and `max_trials` allow."""
    by_steps = None if steps is None else steps * population
    return min((limit for limit in (by_steps, trials) if limit is not None), default=None)


def export(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Every trial with NNI's columns, and with what NNI leaves out: member, step, parent, state.

    The two checkpoint folders are relative to the experiment's folder for checkpoints, so that the
    exports of two runs of one experiment can be compared.
    """
    rows = list(rows)
    saves = {row.id: f"{row.member}/{row.step}" for row in rows}
    return [
        {
            "parameter": {
                **row.hparams,
                "load_checkpoint_dir": saves[row.id if row.parent is None else row.parent],
                "save_checkpoint_dir": saves[row.id],
            },
            "value": row.metric,
            "trialJobId": f"{row.id:05d}",
            "intermediate": list(row.intermediate),
            "member": row.member,
            "step": row.step,
            "parent": row.parent,
            "state": row.state,
            "metrics": dict(row.metrics),
        }
        for row in rows
    ]


def columns(exported: Sequence[Mapping[str, Any]], names: Collection[str]) -> list[dict[str, Any]]:
    """`exported` as flat rows: one column a parameter, in the order of `names`, then the rest."""
    dirs = ("load_checkpoint_dir", "save_checkpoint_dir")
    return [
        {
            **{name: row["parameter"].get(name) for name in (*names, *dirs)},
            "reward": row["value"],
            **{key: row[key] for key in ("trialJobId", "member", "step", "parent", "state")},
        }
        for row in exported
    ]


def hidden(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with what was said, and without the values of variables: they may be secrets."""
    said = {key: value for key, value in config.items() if value not in (None, {}, [])}
    if "env" in said:
        said["env"] = dict.fromkeys(said["env"], "...")
    return said


def strict(value: Any) -> Any:
    """`value` with null for the NaN and infinities that a trial may have reported on its way."""
    match value:
        case float():
            return value if isfinite(value) else None
        case dict():
            return {key: strict(item) for key, item in value.items()}
        case list() | tuple():
            return [strict(item) for item in value]
        case _:
            return value


def iso(at: float) -> str:
    """A time as text: ISO 8601, UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
