"""What the page and the API are told of an experiment: plain values that JSON can carry."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shoal import views
from shoal.checkpoints import away
from shoal.config import LIMITS
from shoal.explain import Undecided
from shoal.history import FAILED, FINISHED, GONE, NOBODY, RUNNING, History, Ints
from shoal.plots.exploits import exploited
from shoal.show import tables
from shoal.show.decision import decided, plain
from shoal.show.story import sentences
from shoal.views import Row
from shoal.web.followed import Now, Unknown

SPARK = 40  # points of the small curve of a member
STATES = {"running": (RUNNING,), "finished": (FINISHED,), "failed": (FAILED,), "lost": (GONE,)}
SORTS = ("id", "member", "step", "metric", "started", "took")
LOG = 500  # lines at a time


def overview(now: Now) -> dict[str, Any]:
    """How it stands, and what that means, in three sentences."""
    return now.status() | {
        "sentences": sentences(now),
        "pausing": now.pausing,
        "limits": {name: now.config[name] for name in LIMITS},
        "created": now.created,
        "mode": now.config["mode"],
        "metric": now.config["metric"],
        "synchronous": now.config["synchronous"],
        "hparams": list(now.config["space"]),
    }


def members(now: Now) -> list[dict[str, Any]]:
    """Each member: its latest trial, how far it is behind, and what it waits for."""
    history, alive = now.history, now.state == "running"
    metrics = history.on_grid(history.metric)
    newest = {row.member: row for row in now.progress.members}
    front = history.steps - 1
    found = []
    for member in range(history.population):
        known = metrics[member][np.isfinite(metrics[member])]
        row = newest.get(member)
        found.append({
            "member": member,
            "trial": None if row is None else row.id,
            "state": "waiting" if row is None else state_of(row, alive=alive),
            "step": None if row is None else row.step,
            "metric": float(known[-1]) if len(known) else None,
            "best": None if not len(known) else float(max(known) if history.higher else min(known)),
            "lag": 0 if row is None else front - row.step,
            "waits": waits(now, row) if alive else "",
            "spark": [short(value) for value in known[-SPARK:]],
        })  # fmt: skip
    return found


def state_of(row: Row, *, alive: bool) -> str:
    """What a member does, by its latest trial."""
    return "waiting" if alive and row.state in {"finished", "failed"} else row.state


def waits(now: Now, row: Row | None) -> str:
    """What a member waits for that is not training."""
    if row is not None and row.state in {"running", "retrying"}:
        return ""
    running = now.progress.running
    if now.config["synchronous"] and row is not None:
        slower = sum(r.step < row.step or r.state == "running" for r in now.progress.members)
        if slower:
            return f"for {slower} of step {min(r.step for r in now.progress.members)} to end"
    return "for a slot" if running >= now.config["workers"] else "to be decided"


def trials(
    now: Now,
    *,
    state: str | None,
    member: int | None,
    step: int | None,
    copied: bool | None,
    sort: str,
    descending: bool,
    page: int,
    size: int,
) -> dict[str, Any]:
    """A page of the trials that are asked for, in the order that is asked for."""
    history = now.history
    kept = np.ones(len(history), dtype=bool)
    if state is not None:
        kept &= np.isin(history.state, STATES[state])
    if member is not None:
        kept &= history.member == member
    if step is not None:
        kept &= history.step == step
    if copied is not None:
        kept &= history.copied == copied
    ids = ordered(history, np.flatnonzero(kept), sort, descending=descending)
    here = ids[page * size : (page + 1) * size].tolist()
    by_id = {row.id: row for row in now.trials(here)}
    return {
        "total": len(ids),
        "page": page,
        "size": size,
        "trials": [told(history, by_id[id]) for id in here],
    }


def ordered(history: History, ids: Ints, sort: str, *, descending: bool) -> Ints:
    """`ids` in an order; what has no value for it comes last."""
    values = {
        "id": np.arange(len(history)), "member": history.member, "step": history.step,
        "metric": history.metric, "started": history.started,
        "took": history.ended - history.started,
    }[sort][ids].astype(float)  # fmt: skip
    order = np.lexsort((ids, -values if descending else values))
    unknown = np.isnan(values[order])
    result: Ints = ids[np.concatenate([order[~unknown], order[unknown]])]
    return result


def told(history: History, row: Row) -> dict[str, Any]:
    """A trial, as everywhere, and whom it copied."""
    parent = row.parent
    donor = None if parent is None else int(history.member[parent])
    return row.json() | {"copied": donor if donor != row.member else None}


def one(now: Now, trial: int) -> dict[str, Any]:
    """One trial, with its intermediate results and further metrics.

    Raises:
        Unknown: there is none.
    """
    if not 0 <= trial < len(now.history):
        raise Unknown(f"experiment {now.id} has no trial {trial}")
    (row,) = now.trials([trial])
    history = now.history
    children = np.flatnonzero(history.parent == trial)
    return told(history, row) | {
        "children": [
            {"id": int(child), "member": int(history.member[child])} for child in children[:100]
        ],
        "folder": str(now.folder.trial(trial, row.attempt)),
    }


def output(now: Now, id: int, name: str) -> Path:
    """The file that the latest attempt at a trial writes its stdout or stderr to.

    Raises:
        Unknown: there is no such trial.
    """
    if not 0 <= id < len(now.history):
        raise Unknown(f"experiment {now.id} has no trial {id}")
    (row,) = now.trials([id])
    return now.folder.trial(id, row.attempt) / name


def exploits(now: Now, *, page: int, size: int) -> dict[str, Any]:
    """The copies, newest first: before, donor, after, and what exploring has changed."""
    history = now.history
    found = exploited(history)
    here = np.arange(len(found.trial))[::-1][page * size : (page + 1) * size]
    ids = {int(id) for id in (*found.trial[here], *found.donor[here])}
    by_id = {row.id: row for row in now.trials(ids)}
    rows = []
    for index in here:
        row, donor = by_id[int(found.trial[index])], by_id[int(found.donor[index])]
        rows.append({
            "trial": row.id,
            "step": row.step,
            "member": row.member,
            "donor": {"trial": donor.id, "member": donor.member, "step": donor.step},
            "before": number(found.before[index]),
            "copied": number(found.copied[index]),
            "after": number(found.after[index]),
            "gain": number(found.gain[index]),
            "failed": bool(found.failed[index]),
            "explored": tables.explored(donor, row),
        })  # fmt: skip
    return {"total": len(found.trial), "page": page, "size": size, "exploits": rows}


def explained(now: Now, member: int, step: int) -> dict[str, Any]:
    """Why a member was replaced before a step, or was not.

    Raises:
        Unknown: there is no such decision.
        ExperimentError: the journal is damaged.
    """
    try:
        return plain(decided(now, member, step), now)
    except Undecided as error:
        raise Unknown(str(error)) from error


def log(now: Now, after: int) -> list[dict[str, Any]]:
    """The lines of the log after the one with that number; of a long one, the last of them."""
    with now.folder.open() as store:
        lines = store.lines(after)
    return [
        {"seq": line.seq, "at": line.at, "level": line.level, "text": line.text}
        for line in lines[-LOG:]
    ]


def checkpoints(now: Now) -> dict[str, Any]:
    """The checkpoints that are there: how large, of whom, and why each is kept."""
    history, root = now.history, now.checkpoints
    why = reasons(now)
    found: list[dict[str, Any]] = []
    by_member: dict[int, int] = {}
    for member, step, path in saved(root):
        known = member < history.population and step < history.steps
        id = int(history.grid[member, step]) if known else NOBODY
        files, bytes_ = weight(path)
        by_member[member] = by_member.get(member, 0) + bytes_
        found.append({
            "member": member,
            "step": step,
            "trial": None if id == NOBODY else id,
            "files": files,
            "bytes": bytes_,
            "why": why.get(id, default_reason(now, id)),
        })  # fmt: skip
    return {
        "root": now.config["checkpoints"] or str(root),
        "keep": now.config["keep"],
        "bytes": sum(by_member.values()),
        "by_member": [{"member": m, "bytes": by_member[m]} for m in sorted(by_member)],
        "checkpoints": found,
    }


def reasons(now: Now) -> dict[int, str]:
    """Why the checkpoint of a trial is kept, where that can be told."""
    history = now.history
    found: dict[int, str] = {}
    line = history.lineage(history.best).tolist()
    if now.config["keep"] == "lineage":
        found |= dict.fromkeys(line, "the best trial descends from it")
    for row in now.progress.members:
        newest = row.id if row.state == "finished" else row.parent
        if newest is not None:
            found[newest] = f"member {row.member} goes on from it"
    for id in np.flatnonzero(history.state == RUNNING).tolist():
        if (parent := int(history.parent[id])) != NOBODY:
            found[parent] = f"trial {id} has started from it"
    if line:
        found[line[-1]] = "it is the best"
    return found


def default_reason(now: Now, id: int) -> str:
    """Why a checkpoint is there that nobody goes on from."""
    if id == NOBODY:
        return "it is of no trial that the journal knows"
    if now.config["keep"] == "all":
        return "all are kept"
    return "the nearest saved one before a state in memory, or about to be deleted"


def saved(root: Path) -> Iterable[tuple[int, int, Path]]:
    """(member, step, folder) of what is below `root`."""
    for member in sorted(numbered(root)):
        for step in sorted(numbered(root / str(member))):
            yield member, step, root / str(member) / str(step)


def numbered(folder: Path) -> list[int]:
    """The folders in `folder` that are called by a number."""
    try:
        with os.scandir(folder) as entries:
            return [
                int(entry.name)
                for entry in entries
                if entry.name.isdecimal() and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []


def weight(folder: Path) -> tuple[int, int]:
    """(how many files there are in `folder`, how many bytes they have), or in a store for it."""
    if (upload := away(folder)) is not None:
        return len(upload.files), upload.size
    files = bytes_ = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                bytes_ += (Path(path) / name).lstat().st_size
                files += 1
            except OSError:
                continue
    return files, bytes_


def configuration(now: Now) -> Mapping[str, Any]:
    """The experiment file's words, without the values of variables."""
    return views.hidden(now.config)


def number(value: float) -> float | None:
    """A number that JSON can carry."""
    return float(value) if np.isfinite(value) else None


def short(value: float) -> float:
    """`value` with as many digits as can be seen."""
    return float(f"{value:.5g}")
