"""Whatever happens to the workers and the controller of a run, it comes to the same end."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.world import Simulation

numbers = st.sampled_from((0, 10, 40, 200)).flatmap(
    lambda many: st.lists(st.integers(0, 400), min_size=many, max_size=many)
)
hows = st.fixed_dictionaries(
    {
        "workers": st.integers(1, 4),
        "population": st.integers(1, 6),
        "steps": st.integers(1, 5),
        "hold": st.sampled_from((True, True, False)),
        "every": st.sampled_from(("auto", 1, 2, 100)),
        "seed": st.integers(0, 50),
    }
)


def simulated(**how: Any) -> Simulation:
    with tempfile.TemporaryDirectory() as folder:
        return Simulation(Path(folder), **how).run()


@given(numbers, hows, st.integers(0, 6), st.integers(0, 4))
def test_a_synchronous_run_ends_in_the_same_decisions_and_scores(
    numbers: list[int], how: dict[str, Any], mishaps: int, deaths: int
) -> None:
    # nothing that only happened to a worker may count against a trial: enough retries for all
    rough = simulated(numbers=numbers, mishaps=mishaps, deaths=deaths, retries=40, **how)
    smooth = simulated(retries=40, **{**how, "workers": 1, "every": "auto", "hold": True})
    assert rough.decided() == smooth.decided()


@given(numbers, hows, st.integers(0, 6), st.integers(0, 4))
def test_an_asynchronous_run_loses_nothing(
    numbers: list[int], how: dict[str, Any], mishaps: int, deaths: int
) -> None:
    run = simulated(numbers=numbers, mishaps=mishaps, deaths=deaths, synchronous=False, **how)
    trials = run.tuner().population.trials
    assert len(trials) <= run.population * run.steps
    if run.tuner().done:
        assert len(trials) == run.population * run.steps
