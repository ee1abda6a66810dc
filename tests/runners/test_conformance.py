"""Every runner does what the loop expects of one."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from shoal import experiment, jobs
from shoal import home as homes
from shoal.checkpoints import Checkpoints
from shoal.config import Config
from shoal.core.population import Population
from shoal.core.records import Trial
from shoal.result import checkpoint_root
from shoal.runners.inline import InlineRunner
from tests.lab import until
from tests.runners import conformance
from tests.runners.conformance import Lab

SPACE = {"do": {"choice": ["finish", "crash", "nan", "die", "sleep"]}}
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


def act(do: str) -> float:
    """What a trial does."""
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "sleep":
        time.sleep(600)
    if do == "crash":
        raise ValueError("as was asked")
    return float("nan") if do == "nan" else 1.0


def function(trial: Any) -> float:
    return act(trial.hparams["do"])


class Trainable:
    def init(self, hparams: Any, seed: int) -> int:
        return 0

    def step(self, state: int, hparams: Any) -> tuple[int, float]:
        return state + 1, act(hparams["do"])

    def save(self, state: int, path: Path) -> None:
        (path / "x").write_text(str(state))

    def load(self, path: Path) -> int:
        return int((path / "x").read_text())


def made(folder: Path, what: Any, *, inline: bool = False, **more: Any) -> Lab:
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


def in_memory(folder: Path) -> Lab:
    def step(state: Any, trial: Trial) -> tuple[Any, float]:
        return state, act(trial.hparams["do"])

    population = Population(SIZE)
    return Lab(InlineRunner(step, SIZE), population, Checkpoints(folder, population))


MAKERS: dict[str, Callable[[Path], Lab]] = {
    "script": lambda folder: made(folder, None),
    "function": lambda folder: made(folder, function),
    "trainable": lambda folder: made(folder, Trainable),
    "inline function": lambda folder: made(folder, function, inline=True),
    "inline trainable": lambda folder: made(folder, Trainable, inline=True),
    "in memory": in_memory,
}
IN_PROCESSES = ["script", "function", "trainable"]


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    lab = MAKERS[request.param](tmp_path)
    yield lab
    lab.runner.close()


@pytest.mark.parametrize("lab", MAKERS, indirect=True)
def test_each_trial_is_reported_once(lab: Lab, request: pytest.FixtureRequest) -> None:
    dies = request.node.callspec.params["lab"] in IN_PROCESSES
    conformance.each_trial_is_reported_once(lab, dies=dies)


@pytest.mark.parametrize("lab", MAKERS, indirect=True)
def test_a_wait_has_an_end(lab: Lab) -> None:
    conformance.a_wait_has_an_end(lab)


@pytest.mark.parametrize("lab", MAKERS, indirect=True)
def test_a_wake_ends_a_wait(lab: Lab) -> None:
    conformance.a_wake_ends_a_wait(lab)


@pytest.mark.parametrize("lab", MAKERS, indirect=True)
def test_there_is_room_again(lab: Lab) -> None:
    conformance.there_is_room_again(lab)


@pytest.mark.parametrize("lab", MAKERS, indirect=True)
def test_what_is_withdrawn_is_lost(lab: Lab) -> None:
    conformance.what_is_withdrawn_is_lost(lab)


@pytest.mark.parametrize("kind", IN_PROCESSES)
def test_nothing_comes_after_the_end(kind: str, tmp_path: Path) -> None:
    conformance.nothing_comes_after_the_end(MAKERS[kind](tmp_path))
    assert not ours(tmp_path)


@pytest.mark.parametrize("lab", IN_PROCESSES, indirect=True)
def test_a_slot_that_is_lost_is_no_failure(lab: Lab, tmp_path: Path) -> None:
    """What runs elsewhere is killed: a fork server, and workers that have nothing to do."""
    lab.submit("finish", "finish")
    lab.wait(lab.all_reported)
    for process in ours(tmp_path):
        with suppress(psutil.NoSuchProcess):  # it has followed another
            process.kill()
    for member in range(3):
        lab.runner.submit(lab.decide("finish", member))
    lab.wait(lab.all_reported)
    kinds = list(lab.kinds().values())
    assert set(kinds) <= {"finished", "lost"}, "the machine's doing, if at all"
    lab.runner.submit(lab.decide("finish", 6))
    lab.wait(lab.all_reported)
    assert lab.reports[-1].trial == 5
    assert kinds.count("finished") >= 2


def ours(folder: Path) -> list[psutil.Process]:
    """The processes that the experiment in `folder` has started, and that run."""

    def is_ours(process: psutil.Process) -> bool:
        try:
            there = process.environ().get("SHOAL_EXPERIMENT", "").startswith(str(folder))
            return there and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if is_ours(process)]


def test_this_would_see_a_process(tmp_path: Path) -> None:
    lab = made(tmp_path, function)
    lab.submit("sleep")
    until(lambda: lab.runner.wait() or ours(tmp_path))
    assert ours(tmp_path)
    lab.runner.close()
    assert not ours(tmp_path)
