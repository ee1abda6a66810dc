"""Every runner does what the loop expects of one."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from shoal.checkpoints import Checkpoints
from shoal.core.population import Population
from shoal.core.records import Trial
from shoal.runners.inline import InlineRunner
from tests.lab import until
from tests.runners import conformance
from tests.runners.conformance import SIZE, Lab, made
from tests.toys import Acting, act, acting


def in_memory(folder: Path) -> Lab:
    def step(state: Any, trial: Trial) -> tuple[Any, float]:
        return state, act(trial.hparams["do"])

    population = Population(SIZE)
    return Lab(InlineRunner(step, SIZE), population, Checkpoints(folder, population))


MAKERS: dict[str, Callable[[Path], Lab]] = {
    "script": lambda folder: made(folder, None),
    "function": lambda folder: made(folder, acting),
    "trainable": lambda folder: made(folder, Acting),
    "inline function": lambda folder: made(folder, acting, inline=True),
    "inline trainable": lambda folder: made(folder, Acting, inline=True),
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
    lab = made(tmp_path, acting)
    lab.submit("sleep")
    until(lambda: lab.runner.wait() or ours(tmp_path))
    assert ours(tmp_path)
    lab.runner.close()
    assert not ours(tmp_path)
