"""The same experiment on a cluster as on this machine."""

import time
from pathlib import Path
from typing import Any

import pytest

import shoal
from tests.lab import log_of
from tests.runners.test_workers import Toy, function, run, told


@pytest.mark.parametrize(("form", "metric"), [("trainable", "default"), ("function", "quality")])
def test_the_journal_is_the_same(tmp_path: Path, on: shoal.Ray, form: str, metric: str) -> None:
    work = Toy(tmp_path / "diary") if form == "trainable" else function
    here = run(work, tmp_path, metric=metric, seed=3, population=8)
    there = run(work, tmp_path, metric=metric, seed=3, population=8, workers=None, execution=on)
    assert there.state == "done"
    assert there.config["workers"] == 8
    assert told(there) == told(here)
    assert here.best is not None
    assert there.best is not None
    assert there.best.checkpoint is not None
    assert there.best.metric == here.best.metric


def test_what_is_printed_comes_back(tmp_path: Path, on: shoal.Ray) -> None:
    result = run(function, tmp_path, metric="quality", steps=2, execution=on)
    for row in result.trials():
        text = (result.folder.trial(row.id, 1) / "stdout").read_text()
        assert text == f"step {row.step}\n"


def slow(trial: Any) -> float:
    (trial.save / "x").write_text("x")
    time.sleep(0.5)
    return 1.0


def test_more_are_wanted_than_there_is_room_for(tmp_path: Path, on: shoal.Ray) -> None:
    result = run(slow, tmp_path, population=8, steps=3, workers=8, execution=on)
    assert result.state == "done"
    assert any("workers on the cluster: 4 of 8, on 2 nodes" in line for line in log_of(result))


def test_nothing_is_begun_on_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(shoal.ExperimentError, match=r"cannot be reached.*`ray status`"):
        run(slow, tmp_path, execution={"engine": "ray", "address": "127.0.0.1:1"})
    assert not list((tmp_path / "home").glob("*"))


def test_whoever_waits_for_room_is_told(tmp_path: Path, on: shoal.Ray) -> None:
    """No node has what a worker needs: the run waits, says for what, and can be stopped."""
    seen: list[str] = []

    class Watch(shoal.Observer):
        def changed(self, tuner: shoal.Tuner, waiting: str) -> None:
            seen.append(waiting)

    execution = {"engine": "ray", "address": on.address, "resources": {"moon": 1}}
    result = run(slow, tmp_path, execution=execution, observer=Watch(), max_duration=2)
    assert result.state == "done", result.reason
    assert any("it needs 1 CPU, 1 moon, which no node of it has" in text for text in seen)


def test_what_cannot_be_loaded_says_so(tmp_path: Path, on: shoal.Ray) -> None:
    class Work(Toy):
        def __setstate__(self, state: object) -> None:
            raise ValueError("the data is not there")

    with pytest.raises(shoal.ExperimentError, match="the data is not there"):
        run(Work(tmp_path / "diary"), tmp_path, execution=on)
