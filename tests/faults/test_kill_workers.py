"""Killed at any moment, a trainable goes on to the same end, whatever was saved until then."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.config import Config
from tests.faults.test_kill import controller, exported, killed_at_random
from tests.lab import SPACE, log_of

CLIMB = """
import json, random

class Climb:
    def init(self, hparams, seed):
        return {"theta": [0.9, 0.9], "noise": random.random()}

    def step(self, state, hparams):
        theta = zip(state["theta"], (hparams["h0"], hparams["h1"]))
        state["theta"] = [t - 0.08 * h * t for t, h in theta]
        state["noise"] += 1e-3 * random.gauss(0, 1)
        return state, 1.2 - sum(t * t for t in state["theta"]) + 1e-3 * state["noise"]

    def save(self, state, path):
        (path / "state.json").write_text(json.dumps(state))

    def load(self, path):
        return json.loads((path / "state.json").read_text())
"""


def prepared(folder: Path, **words: Any) -> Path:
    folder.mkdir()
    (folder / "climb.py").write_text(CLIMB)
    given = {"population": 4, "steps": 6, "workers": 2, "home": folder / "home", **words}
    config = Config(
        name="lab", trainable="climb:Climb", directory=folder, space=SPACE, **given
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config.dump()))
    return folder


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = prepared(tmp_path_factory.mktemp("unbroken") / "x")
    assert controller(folder, 10**9, "never") == 0
    return exported(folder)


@pytest.mark.parametrize(
    ("records", "moment", "every"),
    [
        (1, "before", "auto"), (20, "before", 1), (27, "after", "auto"), (48, "after", 1000),
        *(
            pytest.param(*case, marks=pytest.mark.soak)
            for case in ((9, "after", 2), (41, "after", 1000), (48, "before", 3))
        ),
    ],
)  # fmt: skip
def test_killed_once_it_ends_as_if_it_had_not_been(
    tmp_path: Path, unbroken: str, records: int, moment: str, every: Any
) -> None:
    folder = prepared(tmp_path / "x", checkpoint_every=every)
    assert controller(folder, records, moment) == -signal.SIGKILL
    assert shoal.open(home=folder / "home").state == "killed"
    assert controller(folder, 10**9, "never") == 0
    assert exported(folder) == unbroken
    best = shoal.open(home=folder / "home").best
    assert best is not None
    assert best.checkpoint is not None, "saved at the end, even if all else was over before"


@pytest.mark.parametrize("every", [1, 1000])
def test_killed_again_and_again_it_still_gets_there(
    tmp_path: Path, unbroken: str, every: int
) -> None:
    folder, kills = prepared(tmp_path / "x", checkpoint_every=every), 0
    while controller(folder, 13, "after") == -signal.SIGKILL:
        kills += 1
        assert kills < 40
    assert kills >= 3
    assert exported(folder) == unbroken
    said = [line for line in log_of(shoal.open(home=folder / "home")) if "trained again" in line]
    if every == 1:  # but for what was being saved as its controller was killed
        assert not any(": steps" in line for line in said), said
    else:
        assert said


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_killed_at_200_random_moments(tmp_path: Path) -> None:
    steps = 30_000
    whole = prepared(tmp_path / "whole", steps=steps)
    assert controller(whole, 10**9, "never", 400) == 0
    folder = prepared(tmp_path / "x", steps=steps)
    killed_at_random(folder, 200, 0.8)
    assert exported(folder) == exported(whole)


@pytest.mark.parametrize("words", [{"workers": 1}, {"workers": 4}, {"hold": False}])
def test_how_it_runs_changes_nothing(tmp_path: Path, unbroken: str, words: Any) -> None:
    folder = prepared(tmp_path / "x", **words)
    assert controller(folder, 20, "after") == -signal.SIGKILL
    assert controller(folder, 10**9, "never") == 0
    assert exported(folder) == unbroken


def test_an_asynchronous_run_survives_too(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "x", synchronous=False)
    for records in (10, 12, 14):
        assert controller(folder, records, "after") == -signal.SIGKILL
    assert controller(folder, 10**9, "never") == 0
    result = shoal.open(home=folder / "home")
    rows = result.trials()
    assert sorted((row.member, row.step) for row in rows) == [
        (m, s) for m in range(4) for s in range(6)
    ]
    assert {row.state for row in rows} == {"finished"}
    sys.path.insert(0, str(folder))
    try:
        from climb import Climb  # type: ignore[import-not-found] # noqa: PLC0415
    finally:
        sys.path.remove(str(folder))
    best = result.best
    assert best is not None
    assert best.checkpoint is not None
    state = Climb().load(best.checkpoint)
    score = 1.2 - sum(t * t for t in state["theta"]) + 1e-3 * state["noise"]
    assert score == best.metric, "the state of its score"
