"""Weights & Biases: one run a member, in a group; online or offline, as WANDB_MODE says."""

import os
from pathlib import Path
from typing import Any

import wandb

from shoal.trackers.steps import About, Step, is_number, say


def tracker(where: str, directory: Path) -> "Group":
    """Writes to the project `where`, or to the one that is set, as by WANDB_PROJECT."""
    return Group(where or None, directory)


class Group:
    """Writes runs of a project, whose group is the experiment.

    A run is called by experiment and member, so that a resumed experiment goes on with it.

    Args:
        project: None: what the environment says, or what the experiment is called.
        directory: in which the files are kept, in a folder `wandb`, unless $WANDB_DIR says where.
    """

    def __init__(self, project: str | None, directory: Path) -> None:
        self._project, self._directory = project, directory
        self._runs: dict[int, Any] = {}  # by member

    def begin(self, about: About) -> None:
        self._about = about

    def step(self, step: Step) -> None:
        values: dict[str, Any] = {f"hparams/{name}": value for name, value in step.hparams.items()}
        values |= {f"metrics/{name}": value for name, value in step.metrics.items()}
        if step.metric is not None:
            values[self._about.metric] = step.metric
        if step.donor is not None:
            values |= {
                "copied": step.copied,
                "copied/member": step.donor.member,
                "copied/step": step.donor.step,
            }
        if step.error is not None:
            values["failed"] = step.error
        self._run(step).log(values, step=step.step)

    def flush(self) -> None:
        pass  # it does so itself

    def end(self, state: str) -> None:
        for run in self._runs.values():
            run.finish(exit_code=0 if state == "done" else 1)
        self._runs.clear()

    def _run(self, step: Step) -> Any:
        about, member = self._about, step.member
        if member not in self._runs:
            settings = wandb.Settings(
                silent=True, console="off", x_disable_stats=True, x_disable_meta=True
            )
            self._runs[member] = run = wandb.init(
                project=self._project or wandb.setup().settings.project or about.name,
                dir=os.environ.get("WANDB_DIR") or str(self._directory),
                id=f"{about.id}-{member}", name=f"{about.name} member {member}", group=about.id,
                job_type="member", resume="allow", reinit="create_new",
                config={name: value if is_number(value) else say(value)
                        for name, value in step.hparams.items()},
                settings=settings,
            )  # fmt: skip
            goal = "max" if about.higher else "min"
            run.define_metric(about.metric, summary=goal)
        return self._runs[member]
