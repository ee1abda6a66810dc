"""What the loop may expect of whatever runs trials; `test_conformance` has every runner pass it.

A lab makes the runner with a population that is told what the loop would tell it. What a trial does
is its hyperparameter `do`: "finish", "crash", "nan", "die" (killed by the kernel) or "sleep".
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from shoal import experiment, jobs
from shoal import home as homes
from shoal.checkpoints import Checkpoints
from shoal.config import Config
from shoal.core.live import Live
from shoal.core.population import Population
from shoal.core.records import LOST, Failed, Finished, Report, Trial
from shoal.result import checkpoint_root
from shoal.runners.base import Runner

SPACE: dict[str, Any] = {"do": {"choice": ["finish", "crash", "nan", "die", "sleep"]}}
SIZE = 8
SCRIPT = """
import os, signal, sys, time
from shoal.trial import current
trial = current()
do = trial.hparams["do"]
if do == "die": os.kill(os.getpid(), signal.SIGKILL)
if do == "sleep": time.sleep(600)
if do == "crash": raise ValueError("as was asked")
(trial.save / "x").write_text("x")
trial.finish(float("nan") if do == "nan" else 1.0)
"""
BOUND_S = 3.0  # for a wait in which nothing happens: a second, on a busy machine


@dataclass
class Lab:
    """A runner, and what it has reported."""

    runner: Runner
    population: Population
    checkpoints: Checkpoints
    reports: list[Report] = field(default_factory=list)

    def decide(self, do: str, member: int = 0) -> Trial:
        """A fresh trial of `member` that is to do something, decided as the loop would."""
        step = self.population.next_step(member)
        trial = Trial(len(self.population.trials), member, step, {"do": do}, None)
        self.population.apply(trial)
        return trial

    def submit(self, *does: str) -> list[Trial]:
        """As many trials as there is room for, each of a member of its own."""
        trials = [self.decide(do, member) for member, do in enumerate(does)]
        for trial in trials:
            self.runner.submit(trial)
        return trials

    def wait(self, until: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, f"waited in vain: {self.reports}"
            for event in self.runner.wait():
                if isinstance(event, Finished | Failed):
                    self.population.apply(event)  # refuses a second one
                    self.reports.append(event)
            self.checkpoints.retain(Live(self.population.running))

    def all_reported(self) -> bool:
        return not self.population.running

    def kinds(self) -> dict[int, str]:
        """What became of each trial."""
        return {r.trial: "finished" if isinstance(r, Finished) else r.kind for r in self.reports}


def made(folder: Path, what: Any, *, inline: bool = False, **more: Any) -> Lab:
    """A lab whose runner is the one that `what` is trained with: a script, where it is None."""
    words: dict[str, Any] = {"space": SPACE, "population": SIZE, "workers": SIZE, **more}
    if what is None:
        (folder / "trial.py").write_text(SCRIPT)
        config, work = Config(command="python3 trial.py", directory=folder, **words), None
    else:
        config, work = experiment.described(what, words), what
    there = homes.create(folder / "home", partial(experiment.prepare, config=config))
    population = Population(SIZE)
    checkpoints = Checkpoints(checkpoint_root(there, None), population)
    job = jobs.Job.of(config, work, inline=inline)
    with job.ground(config, there.path) as ground:
        make = job.runner(there, config, ground)
    return Lab(make(checkpoints, lambda *_: None), population, checkpoints)


def each_trial_is_reported_once(lab: Lab, *, dies: bool) -> None:
    does = ["finish", "crash", "nan", "finish", *(["die"] if dies else [])]
    trials = lab.submit(*does)
    lab.wait(lab.all_reported)
    assert Counter(report.trial for report in lab.reports) == {trial.id: 1 for trial in trials}
    kinds = [lab.kinds()[trial.id] for trial in trials]
    assert kinds == ["finished", "crash", "nan", "finished", *(["killed"] if dies else [])]
    assert all(r.reason for r in lab.reports if isinstance(r, Failed))
    assert [r.attempt for r in lab.reports] == [1] * len(trials)


def a_wait_has_an_end(lab: Lab) -> None:
    began = time.monotonic()
    lab.runner.wait()
    assert time.monotonic() - began < BOUND_S


def a_wake_ends_a_wait(lab: Lab) -> None:
    lab.submit("finish")
    lab.wait(lab.all_reported)
    lab.runner.wait()  # what is still to be said about that
    waker = threading.Timer(0.1, lab.runner.wake)
    waker.start()
    began = time.monotonic()
    lab.runner.wait()
    waker.join()
    assert time.monotonic() - began < 0.9, "and not after a second"


def there_is_room_again(lab: Lab) -> None:
    free = lab.runner.free
    assert free >= 1
    lab.submit("finish")
    assert lab.runner.free == free - 1
    lab.wait(lab.all_reported)
    assert lab.runner.free == free


def what_is_withdrawn_is_lost(lab: Lab) -> None:
    trials = lab.submit(*["finish"] * 4)
    lab.runner.withdraw()
    lab.wait(lab.all_reported)
    assert set(lab.kinds()) == {trial.id for trial in trials}
    assert set(lab.kinds().values()) <= {"finished", LOST}
    again = lab.decide("finish", 5)  # it can be given more, all the same
    lab.runner.submit(again)
    lab.wait(lab.all_reported)
    assert lab.kinds()[again.id] == "finished"


def nothing_comes_after_the_end(lab: Lab) -> None:
    """To be called last: the runner is closed."""
    lab.submit("sleep")
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert not [e for e in lab.runner.wait() if isinstance(e, Finished | Failed)]
    began = time.monotonic()
    lab.runner.close()
    assert time.monotonic() - began < 10.0
