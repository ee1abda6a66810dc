"""Whatever happens to the trials, workers and controller of a run, it comes to the same end."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.crew import Workers
from tests.simulation.slots import Slots
from tests.simulation.world import Simulation

World = Callable[..., Simulation]
numbers = st.sampled_from((0, 10, 40, 200)).flatmap(
    lambda many: st.lists(st.integers(0, 400), min_size=many, max_size=many)
)
workers = st.fixed_dictionaries(
    {
        "workers": st.integers(1, 4),
        "population": st.integers(1, 6),
        "steps": st.integers(1, 5),
        "hold": st.sampled_from((True, True, False)),
        "every": st.sampled_from(("auto", 1, 2, 100)),
        "far": st.booleans(),
        "seed": st.integers(0, 50),
    }
)
slots = st.fixed_dictionaries(
    {
        "slots": st.integers(1, 8),
        "population": st.integers(1, 9),
        "steps": st.integers(1, 6),
        "seed": st.integers(0, 50),
    }
)
# nothing that only happened to a trial may count against it: enough retries for all
ENOUGH = 40


MEMORY = Path("/dev/shm")  # these lives write thousands of times what has to be on a disk


def simulated(world: World, **how: Any) -> Simulation:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        return world(Path(folder), **how).run()


@given(numbers, workers, st.integers(0, 6), st.integers(0, 4), st.integers(0, 4))
def test_workers_come_to_the_same_decisions_and_scores(
    numbers: list[int], how: dict[str, Any], mishaps: int, deaths: int, orders: int
) -> None:
    rough = simulated(
        Workers, numbers=numbers, mishaps=mishaps, deaths=deaths, orders=orders, retries=ENOUGH,
        **how,
    )  # fmt: skip
    calm = {**how, "workers": 1, "every": "auto", "hold": True, "far": False}
    assert rough.decided() == simulated(Workers, retries=ENOUGH, **calm).decided()


@pytest.mark.parametrize("hold", [True, False])
def test_what_is_lost_on_its_way_comes_to_the_same(hold: bool) -> None:
    """Machines that are lost as they send what they have saved, and workers that are let go."""
    how = {"population": 6, "steps": 4, "retries": ENOUGH, "hold": hold}
    calm = simulated(Workers, workers=1, **how).decided()
    for number in range(15):
        rough = simulated(
            Workers, numbers=Random(number), workers=4, mishaps=20, orders=4, every=1, far=True,
            **how,
        )  # fmt: skip
        assert rough.decided() == calm


@given(numbers, slots, st.integers(0, 6), st.integers(0, 4), st.integers(0, 4))
def test_slots_come_to_the_same_decisions_and_scores(
    numbers: list[int], how: dict[str, Any], mishaps: int, deaths: int, orders: int
) -> None:
    rough = simulated(
        Slots, numbers=numbers, mishaps=mishaps, deaths=deaths, orders=orders, retries=ENOUGH, **how
    )
    assert rough.decided() == simulated(Slots, retries=ENOUGH, **{**how, "slots": 1}).decided()


@given(numbers, st.one_of(workers, slots), st.integers(0, 6), st.integers(0, 4), st.integers(0, 4))
def test_an_asynchronous_run_loses_nothing(
    numbers: list[int], how: dict[str, Any], mishaps: int, deaths: int, orders: int
) -> None:
    world: World = Workers if "workers" in how else Slots
    how = {**how, "mishaps": mishaps, "deaths": deaths, "orders": orders, "synchronous": False}
    run = simulated(world, numbers=numbers, **how)
    trials = run.tuner().population.trials
    assert len(trials) <= run.population * run.steps
    if run.tuner().done:
        assert len(trials) == run.population * run.steps


@pytest.mark.parametrize("synchronous", [True, False])
@pytest.mark.parametrize(
    "population", [300, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_a_large_population(population: int, synchronous: bool) -> None:
    how = {
        "slots": population // 3,
        "population": population,
        "steps": 4,
        "synchronous": synchronous,
    }
    rough = simulated(Slots, numbers=Random(5), mishaps=population // 5, deaths=4, **how)
    assert rough.lives == 5
    assert len(rough.tuner().population.trials) == 4 * population
    if synchronous:
        rough = simulated(Slots, numbers=Random(5), mishaps=99, deaths=4, retries=ENOUGH, **how)
        assert rough.decided() == simulated(Slots, retries=ENOUGH, **how).decided()
