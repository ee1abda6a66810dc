"""MLflow: one run a member, below one of the experiment; whatever tracking store is set up."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.tracking import MlflowClient

from shoal.trackers.steps import About, Step, is_number, say

AT_ONCE = 500  # values that a store takes in one call; it refuses more than 1,000
LONGEST = 5000  # characters of a tag
STATES = {"done": "FINISHED", "failed": "FAILED"}


def tracker(where: str, directory: Path) -> "Runs":
    """Writes to the tracking URI or folder `where`, or as MLFLOW_TRACKING_URI says."""
    is_path = where and ":" not in where and where != "databricks"
    return Runs((directory / where).as_uri() if is_path else where or None)


class Runs:
    """Writes to a tracking store.

    The metric, other metrics and hyperparameters are metrics by step, since MLflow's parameters
    cannot change; the first hyperparameters are parameters, too. A copy is a tag,
    `shoal.copy.<step>`. Runs are found again by their tags: a resumed experiment goes on with them.
    """

    def __init__(self, uri: str | None) -> None:
        self._client = MlflowClient(tracking_uri=uri)
        self._runs: dict[int | None, str] = {}  # by member; None: the experiment's
        self._metrics: defaultdict[str, list[Metric]] = defaultdict(list)  # by run
        self._tags: defaultdict[str, list[RunTag]] = defaultdict(list)

    def begin(self, about: About) -> None:
        self._about = about
        found = self._client.get_experiment_by_name(about.name)
        self._experiment = (
            self._client.create_experiment(about.name) if found is None else found.experiment_id
        )
        ours = f"tags.`shoal.experiment` = '{about.id}'"
        token = None
        while True:
            page: Any = self._client.search_runs(
                [self._experiment], ours, ViewType.ACTIVE_ONLY, 1000, page_token=token
            )
            for run in page:
                member = run.data.tags.get("shoal.member")
                self._runs[None if member is None else int(member)] = run.info.run_id
            if (token := page.token) is None:
                break
        for run in self._runs.values():
            self._client.set_terminated(run, "RUNNING")
        self._run(None, int(1000 * about.folder.stat().st_ctime))

    def step(self, step: Step) -> None:
        at = int(1000 * step.at)
        new = step.member not in self._runs
        run = self._run(step.member, at)
        if new:
            params = [Param(key(name), say(value)) for name, value in step.hparams.items()]
            self._client.log_batch(run, params=params)
        values: dict[str, Any] = {f"hparams/{name}": v for name, v in step.hparams.items()}
        values |= {f"metrics/{name}": v for name, v in step.metrics.items()}
        if step.metric is not None:
            values[self._about.metric] = step.metric
        for name, value in values.items():
            if is_number(value):
                self._metrics[run].append(Metric(key(name), float(value), at, step.step))
        if step.donor is not None:
            donor = self._runs.get(step.donor.member, "")
            text = f"{step.copied} (run {donor})"[:LONGEST]
            self._tags[run].append(RunTag(f"shoal.copy.{step.step}", text))
        if step.error is not None:
            self._tags[run].append(RunTag(f"shoal.failure.{step.step}", step.error[:LONGEST]))
        if step.best and step.metric is not None:
            whole = self._run(None, at)
            self._metrics[whole].append(Metric(key(self._about.metric), step.metric, at, step.step))
            self._tags[whole].append(RunTag("shoal.best", f"member {step.member} (run {run})"))

    def flush(self) -> None:
        for run in {**self._metrics, **self._tags}:
            metrics, tags = self._metrics.pop(run, []), self._tags.pop(run, [])
            last = {tag.key: tag for tag in tags}.values()
            self._client.log_batch(run, tags=list(last)[:100])
            for tag in list(last)[100:]:
                self._client.set_tag(run, tag.key, tag.value)
            for first in range(0, len(metrics), AT_ONCE):
                self._client.log_batch(run, metrics=metrics[first : first + AT_ONCE])

    def end(self, state: str) -> None:
        for run in self._runs.values():
            self._client.set_terminated(run, STATES.get(state, "KILLED"))

    def _run(self, member: int | None, at: int) -> str:
        if member not in self._runs:
            about = self._about
            tags = {"shoal.experiment": about.id, "shoal.folder": str(about.folder)}
            name = about.name
            if member is not None:
                name = f"{about.name} member {member}"
                tags |= {"shoal.member": str(member), "mlflow.parentRunId": self._runs[None]}
            made = self._client.create_run(self._experiment, at, tags, name)
            self._runs[member] = made.info.run_id
        return self._runs[member]


def key(name: str) -> str:
    """`name` as MLflow takes it: letters, digits, and some signs."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_-. :/") else "_" for c in name)
    return kept[:250].strip("/. ") or "_"
