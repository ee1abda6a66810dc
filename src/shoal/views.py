"""Journal -> tables: pure functions from records to what people and programs look at.

Nothing here reads a file, a clock or a process: what only they can tell (is a controller alive, is
a checkpoint still there) is given.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
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
    checkpoint: str | None
    attempt: int
    started: float  # seconds since the epoch
    ended: float | None
    error: str | None

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
            "checkpoint": self.checkpoint,
            "attempt": self.attempt,
            "started": iso(self.started),
            "ended": None if self.ended is None else iso(self.ended),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an experiment has come."""

    step: int  # the lowest that some member has yet to end
    finished: int
    running: int
    failed: int  # trials given up, or about to be tried again
    total: int | None  # how many trials there will be; None: as many as time allows
    members: Sequence[Row]  # the latest trial of each member


def table(
    entries: Iterable[Entry],
    mode: str,
    *,
    alive: bool,
    started: Mapping[tuple[int, int], float] = {},
) -> list[Row]:
    """Every trial of a journal, by id.

    Args:
        entries: the journal.
        mode: "max" or "min", which way the metric goes.
        alive: whether a controller drives the experiment: without one, nothing is running.
        started: when the process of an attempt (trial, attempt) began; without, when it was
            decided.
    """
    sign = 1.0 if mode == "max" else -1.0
    rows: list[Row] = []
    for at, record in entries:
        match record:
            case Trial(id, member, step, hparams, parent, attempt):
                state: State = "running" if alive else "interrupted"
                told = (id, member, step, hparams, parent, state)
                began = started.get((id, attempt), at)
                row = Row(*told, None, {}, None, attempt, began, None, None)
                if id < len(rows):
                    rows[id] = replace(row, error=rows[id].error)
                else:
                    rows.append(row)
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
                    state="retrying" if kind == LOST else "failed",
                    ended=at,
                    error=f"{kind}: {reason}",
                )
    return rows


def located(row: Row, checkpoint: str | None) -> Row:
    """`row` with the folder in which its checkpoint is."""
    return replace(row, checkpoint=checkpoint)


def best(rows: Iterable[Row], mode: str) -> Row | None:
    """The finished trial with the best metric; of equals, the one decided first."""
    sign = 1.0 if mode == "max" else -1.0
    scored = [(sign * row.metric, -row.id, row) for row in rows if row.metric is not None]
    return max(scored, key=lambda found: found[:2])[2] if scored else None


def lineage(rows: Sequence[Row], row: Row) -> list[Row]:
    """`row` and its ancestors, root first."""
    line = [row]
    while (parent := line[-1].parent) is not None:
        line.append(rows[parent])
    return line[::-1]


def schedule(line: Iterable[Row]) -> list[dict[str, Any]]:
    """The hyperparameters along a lineage, step by step: what PBT has found."""
    return [{"step": step, "hparams": row.hparams} for step, row in enumerate(line)]


def exploits(rows: Sequence[Row]) -> list[Row]:
    """The trials that go on from another member's."""
    return [row for row in rows if row.parent is not None and rows[row.parent].member != row.member]


def uncopied(rows: Sequence[Row], mode: str) -> Row | None:
    """The best trial of those whose members had never copied: what random search would have got."""
    alone: list[bool] = []  # by id: a trial comes after its parent
    for row in rows:
        start = None if row.parent is None else rows[row.parent]
        alone.append(start is None or (start.member == row.member and alone[start.id]))
    return best([row for row in rows if alone[row.id]], mode)


def progress(rows: Sequence[Row], population: int, total: int | None) -> Progress:
    """How far the trials in `rows` have come."""
    states = Counter(row.state for row in rows)
    newest = {row.member: row for row in rows}
    ended = {m: row.step + (row.state in {"finished", "failed"}) for m, row in newest.items()}
    return Progress(
        step=min((ended.get(member, 0) for member in range(population)), default=0),
        finished=states["finished"],
        running=states["running"],
        failed=states["failed"] + states["retrying"],
        total=total,
        members=[newest[member] for member in sorted(newest)],
    )


def total(steps: int | None, trials: int | None, population: int) -> int | None:
    """How many trials `steps` and `max_trials` allow."""
    by_steps = None if steps is None else steps * population
    return min((limit for limit in (by_steps, trials) if limit is not None), default=None)


def export(rows: Iterable[Row], intermediate: Mapping[int, Sequence[Any]]) -> list[dict[str, Any]]:
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
            "value": None if row.metric is None else str(row.metric),
            "trialJobId": f"{row.id:05d}",
            "intermediate": list(intermediate.get(row.id, ())),
            "member": row.member,
            "step": row.step,
            "parent": row.parent,
            "state": row.state,
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


def iso(at: float) -> str:
    """A time as text: ISO 8601, UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
