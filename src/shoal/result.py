"""What an experiment has come to: its journal, read.

Light to import: `shoal status` waits for nothing that only a controller needs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from json import loads
from pathlib import Path
from time import time
from typing import Any

from shoal import home as homes
from shoal import views
from shoal.checkpoints import saved
from shoal.core.records import Hparams
from shoal.failures import summary
from shoal.health import Finding, Seen, findings
from shoal.home import ExperimentError, Folder
from shoal.stores.sqlite import Session, SqliteStore, Tally

GENERATIONS, WINDOW = 20, 2000  # as far back as health looks: steps of all, and trials
SHOWN = 50  # trials of a table in a notebook
ANCESTRY = 200  # and for the ancestor of all


@dataclass(frozen=True, slots=True)
class Best:
    """The best trial of an experiment."""

    metric: float
    hparams: Hparams
    checkpoint: Path | None  # None: nothing was saved, or it is not there any more
    schedule: list[dict[str, Any]]  # {"step", "hparams"} along the lineage: what PBT has found
    lineage: list[views.Row]  # from the first ancestor to the trial itself

    @property
    def id(self) -> int:
        """Which trial it is."""
        return self.lineage[-1].id

    @property
    def member(self) -> int:
        """Whose it is."""
        return self.lineage[-1].member

    @property
    def step(self) -> int:
        """That member's step."""
        return self.lineage[-1].step

    def _repr_html_(self) -> str:
        facts = {"metric": f"{self.metric:.6g}", "trial": self.id, "member": self.member}
        facts |= {"step": self.step, **self.hparams, "checkpoint": self.checkpoint}
        rows = (f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
        return f"<table>{''.join(rows)}</table>"

    def __repr__(self) -> str:
        return (
            f"<best {self.metric:.6g}: trial {self.id} (member {self.member}, step {self.step}), "
            f"hparams {dict(self.hparams)}, checkpoint {self.checkpoint}>"
        )


class Trials(list[views.Row]):
    """Trials, by id."""

    def to_pandas(self) -> Any:
        """A pandas DataFrame of them: a column a hyperparameter, and one a further metric.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 (only where it is asked for)
        except ImportError as error:
            raise ImportError("a table of trials needs pandas: pip install pandas") from error
        nested = {"hparams", "metrics"}
        return pd.DataFrame([
            {key: value for key, value in row.json().items() if key not in nested}
            | {f"hparams.{name}": value for name, value in row.hparams.items()}
            | {f"metrics.{name}": value for name, value in row.metrics.items()}
            for row in self
        ])  # fmt: skip

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for row in self for name in row.hparams))
        keys = ["id", "member", "step", "state", "metric"]
        head = "".join(f"<th>{escape(name)}</th>" for name in (*keys, *names))
        body = "".join(
            "<tr>"
            + "".join(f"<td>{escape(str(getattr(row, key)))}</td>" for key in keys)
            + "".join(f"<td>{escape(str(row.hparams.get(name, '')))}</td>" for name in names)
            + "</tr>"
            for row in self[:SHOWN]
        )
        more = f"<p>and {len(self) - SHOWN:,} more</p>" if len(self) > SHOWN else ""
        return f"<table><tr>{head}</tr>{body}</table>{more}"


class Result:
    """What an experiment has come to, so far or for good. Reads the journal when first asked."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.id = folder.id

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The configuration, in the words of the experiment file."""
        config: Mapping[str, Any] = loads(self._meta["config"])
        return config

    @property
    def name(self) -> str:
        """What the experiment was called."""
        return self._meta["name"]

    @cached_property
    def state(self) -> str:
        """One of running, paused, done, stopped, failed, killed.

        Killed: nobody runs it, and nobody ended it.
        """
        held = self.folder.holder() is not None
        outcome = self._sessions[-1].outcome if self._sessions else None
        if outcome == "paused":
            return "paused" if held else "stopped"
        return "running" if held else outcome or "killed"

    @property
    def pausing(self) -> bool:
        """Whether it is paused, or will be once what runs has ended."""
        return self.state == "paused" or (
            self.state == "running" and bool(self._meta.get("pausing"))
        )

    @cached_property
    def reason(self) -> str:
        """Why it is in that state; for a running one, what it waits for."""
        if self.state == "running":
            return self._meta.get("waiting", "")
        return (self._sessions[-1].reason or "") if self._sessions else ""

    @property
    def seconds(self) -> float:
        """How long it has run, all sessions together."""
        return sum(session.seconds for session in self._sessions)

    @property
    def spent(self) -> str:
        """Why it would not go on if it were resumed under the same limits; empty: it would."""
        config, total = self.config, self.progress.total
        if self.state == "done" and total is not None and self.tally.trials >= total:
            return f"all {total:,} trials have ended"
        if config["max_duration"] is not None and self.seconds >= config["max_duration"]:
            return f"the time limit of {config['max_duration']:g} s was reached"
        best, target = self.tally.best, config["target"]
        if best is None or target is None:
            return ""
        reached = best >= (target if config["mode"] == "max" else -target)
        return f"the target of {target:g} was reached" if reached else ""

    @property
    def checkpoints(self) -> Path:
        """The folder that holds `<member>/<step>`."""
        return checkpoint_root(self.folder, self.config["checkpoints"])

    @cached_property
    def best_so_far(self) -> Best | None:
        """As `best`; None while no trial has finished."""
        with self.folder.open() as store:
            best = store.best()
            line = [] if best is None else self._read(store, store.ancestors(best))
        row = line[-1] if line else None
        if row is None or row.metric is None:
            return None
        return Best(row.metric, row.hparams, row.checkpoint, views.schedule(line), line)

    @property
    def best(self) -> Best:
        """The best trial, with its schedule and lineage.

        Raises:
            ExperimentError: no trial has finished; the message says why.
        """
        if (found := self.best_so_far) is not None:
            return found
        if self.state in {"running", "paused"}:
            raise ExperimentError(f"no trial of experiment {self.id} has finished yet")
        why = self.reason or (
            f"{self.tally.failed} failed: {self.failures}" if self.failures else ""
        )
        ended = f"no trial of experiment {self.id}, which is {self.state}, has finished"
        raise ExperimentError(f"{ended}: {why}" if why else ended)

    @cached_property
    def failures(self) -> str:
        """What the trials failed with that failed for good, in a few words; empty: none did."""
        if not self.tally.failed:
            return ""
        with self.folder.open() as store:
            return summary(store.failed())

    @cached_property
    def uncopied(self) -> views.Row | None:
        """The best trial without a copy in its past, often after fewer steps than the best."""
        with self.folder.open() as store:
            found = views.uncopied(store.starts())
            return None if found is None else self._read(store, [found])[0]

    @cached_property
    def control(self) -> views.Control | None:
        """What the control arm came to, beside the others; None without one, or too early."""
        population, members = self.config["population"], self.config.get("control", 0)
        steps, others = self.progress.step, population - members
        if not members or not others:
            return None
        tops = [self._top(arm, steps) for arm in (range(others, population), range(others))]
        rows = {row.id: row for row in self.trials([top for top in tops if top is not None])}
        if len(rows) < len(tops):
            return None
        best, other = (rows[top] for top in tops if top is not None)
        assert best.metric is not None
        assert other.metric is not None
        gain = (other.metric - best.metric) * (1 if self.config["mode"] == "max" else -1)
        return views.Control(members, others, steps, best, other, gain + 0.0)

    @property
    def created(self) -> float:
        """When it was made, in seconds since the epoch."""
        return float(self._meta["created"])

    @property
    def controller(self) -> tuple[int, str] | None:
        """(pid, host) of the process that runs it now."""
        return self.folder.holder()

    @cached_property
    def tally(self) -> Tally:
        """How many trials there are, and how they stand."""
        with self.folder.open() as store:
            return store.tally()

    @cached_property
    def progress(self) -> views.Progress:
        """How far it has come."""
        config, population, tally = self.config, self.config["population"], self.tally
        with self.folder.open() as store:
            newest = self._read(store, store.newest(population), whole=False)
        newest.sort(key=lambda row: row.member)
        others = tally.trials - tally.finished - tally.failed
        return views.Progress(
            step=views.step(newest, population),
            trials=tally.trials,
            finished=tally.finished,
            running=others if self.state == "running" else 0,
            failed=tally.failed,
            total=views.total(config["steps"], config["max_trials"], population),
            members=newest,
        )

    @cached_property
    def findings(self) -> list[Finding]:
        """What may be wrong with it, by its latest trials."""
        return findings_of(self, self.tally.trials)

    def trials(self, ids: Iterable[int] | None = None) -> Trials:
        """Every trial, or these, by id: a list that can also come as a table."""
        if ids is None:
            return Trials(self._rows)
        with self.folder.open() as store:
            return Trials(self._read(store, ids))

    def trial(self, id: int) -> views.Row | None:
        """The trial with this id, if there is one."""
        with self.folder.open() as store:
            return next(iter(self._read(store, [id])), None)

    def pages(self, size: int = 1000) -> Iterator[list[views.Row]]:
        """Every trial, by id, so many at a time: nobody waits for the last to see the first."""
        with self.folder.open() as store:
            for first in range(0, self.tally.trials, size):
                yield self._read(store, range(first, first + size))

    def copies(self, rows: Sequence[views.Row]) -> dict[int, int]:
        """The member that each of `rows` copied, by trial, where it copied another one."""
        with self.folder.open() as store:
            parents = (row.parent for row in rows if row.parent is not None)
            members = {row.id: row.member for row in self._read(store, parents)}
        return views.copies(rows, members)

    def status(self) -> dict[str, Any]:
        """How it stands, as `shoal status --json` and the API give it."""
        progress, best, controller = self.progress, self.best_so_far, self.controller
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "folder": str(self.folder.path),
            "controller": controller and {"pid": controller[0], "host": controller[1]},
            "population": self.config["population"],
            "steps": self.config["steps"],
            "workers": self.config["workers"],
            "step": progress.step,
            "trials": {
                "finished": progress.finished,
                "running": progress.running,
                "failed": progress.failed,
                "total": progress.total,
            },
            "failures": self.failures,
            "seconds": round(self.seconds, 3),
            "best": best and {
                "id": best.lineage[-1].id,
                "metric": best.metric,
                "checkpoint": None if best.checkpoint is None else str(best.checkpoint),
            },
            "control": self.control and self.control.json(),
            "checkpoints": str(self.checkpoints),
            "health": [finding.text for finding in self.findings],
        }  # fmt: skip

    def brief(self) -> dict[str, Any]:
        """How it stands, in as much as `shoal list --json` gives; reads no trial."""
        config = self.config
        tally, score = self.tally, self.tally.best
        metric = score if score is None or config["mode"] == "max" else 0.0 - score
        total = views.total(config["steps"], config["max_trials"], config["population"])
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "created": views.iso(self.created),
            "population": config["population"],
            "trials": {"finished": tally.finished, "failed": tally.failed, "total": total},
            "seconds": round(self.seconds, 3),
            "best": metric,
            "folder": str(self.folder.path),
        }

    def __repr__(self) -> str:
        tally, total = self.tally, self.progress.total
        count = f"{tally.finished:,}" + ("" if total is None else f" of {total:,}")
        parts = [f"{self.name} ({self.id})", self.state, f"{count} trials finished"]
        parts += [f"{tally.failed:,} failed: {self.failures}"] if tally.failed else []
        parts += [repr(self.best_so_far)] if self.best_so_far is not None else []
        return f"<{', '.join(parts)}>"

    def _repr_html_(self) -> str:
        best, tally = self.best_so_far, self.tally
        facts = {
            "experiment": f"{self.name} ({self.id})",
            "state": f"{self.state}: {self.reason}" if self.reason else self.state,
            "trials": f"{tally.finished:,} finished, {tally.failed:,} failed"
            + (f": {self.failures}" if self.failures else ""),
            "best": "none yet" if best is None else f"{best.metric:.6g}, trial {best.id} "
            f"(member {best.member}, step {best.step})",
            "hyperparameters": "" if best is None else str(dict(best.hparams)),
            "checkpoint": "" if best is None else str(best.checkpoint),
        }  # fmt: skip
        rows = (f"<tr><th>{name}</th><td>{escape(fact)}</td></tr>" for name, fact in facts.items())
        return f"<table>{''.join(rows)}</table>"

    def export(self) -> list[dict[str, Any]]:
        """Every trial with NNI's columns plus member, step, parent and state."""
        return views.export(self._rows)

    def _top(self, members: range, steps: int) -> int | None:
        """The best trial of so many first steps of these members."""
        with self.folder.open() as store:
            return store.top(members, steps)

    @cached_property
    def _meta(self) -> dict[str, str]:
        with self.folder.open() as store:
            meta = store.meta()
        if not homes.is_experiment(meta):
            raise ExperimentError(f"{self.folder.journal} is not the journal of an experiment")
        return meta

    @cached_property
    def _sessions(self) -> Sequence[Session]:
        with self.folder.open() as store:
            return store.sessions()

    @cached_property
    def _rows(self) -> list[views.Row]:
        with self.folder.open() as store:
            return self._read(store)

    def _read(
        self, store: SqliteStore, trials: Iterable[int] | None = None, *, whole: bool = True
    ) -> list[views.Row]:
        """All trials, or these, by id; if they are to be `whole`, with intermediate results."""
        wanted = None if trials is None else set(trials)
        rows = views.table(
            store.read() if wanted is None else store.read_of(wanted),
            self.config["mode"],
            alive=self.state == "running",
            started=store.started(wanted),
        )
        measured = store.measured_by(wanted) if whole else {}
        return [
            views.located(row, self._checkpoint(row), measured.get((row.id, row.attempt), ()))
            for row in rows
        ]

    def _checkpoint(self, row: views.Row) -> Path | None:
        path = self.checkpoints / str(row.member) / str(row.step)
        return path if row.state == "finished" and saved(path) else None


def unreadable(folder: Folder, reason: str) -> dict[str, Any]:
    """What takes the place of `Result.brief` where there is nothing to be read."""
    return {
        "id": folder.id,
        "name": None,
        "state": "unreadable",
        "reason": reason,
        "created": None,
        "population": None,
        "trials": {"finished": None, "failed": None, "total": None},
        "seconds": None,
        "best": None,
        "folder": str(folder.path),
    }


def findings_of(result: Result, trials: int) -> list[Finding]:
    """What may be wrong with a run that has so many trials, by the latest of them."""
    config, alive = result.config, result.state == "running"
    population, mode = config["population"], config["mode"]
    first = max(0, trials - min(WINDOW, GENERATIONS * population))
    with result.folder.open() as store:
        window = range(first, trials)
        begun = store.started(window)
        rows = views.table(store.read_of(window), mode, alive=alive, started=begun)
        newest = {row.member: row.id for row in rows if row.metric is not None}
        # of one that nobody knows yet, nobody descends
        everybody = newest.values() if len(newest) == population else ()
        since = max(0, trials - ANCESTRY * population)
        common = store.ancestor(list(everybody), since)
        line = [] if common is None else views.table(store.read_of([common]), mode, alive=alive)
    return findings(
        Seen(
            rows=rows,
            population=population,
            higher=mode == "max",
            synchronous=config["synchronous"],
            space=config["space"],
            ancestor=line[0] if line else None,
            control=config.get("control", 0),
            now=time() if alive else None,
        )
    )


def open(experiment: str | None = None, *, home: str | Path | None = None) -> Result:
    """What an experiment has come to, by id, name or folder; None: the newest.

    Raises:
        ExperimentError: there is none.
    """
    return Result(homes.find(home_of(home), experiment))


def home_of(home: str | Path | None) -> Path:
    """`home`, or where experiments are kept by default."""
    return homes.default_home() if home is None else Path(home).expanduser().absolute()


def checkpoint_root(folder: Folder, configured: str | Path | None) -> Path:
    """Where the checkpoints of the experiment in `folder` are on this machine.

    Of those in an object store, that is where what was saved or loaded here is kept.
    """
    here = configured is None or "://" in str(configured)
    return folder.checkpoints if here else Path(str(configured))
