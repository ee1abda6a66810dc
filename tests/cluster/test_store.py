"""Checkpoints in an object store, from a cluster."""

import os
from pathlib import Path

import pytest

import shoal
from shoal.buckets import Bucket
from shoal.experiment import remove
from tests.cluster.conftest import Nodes
from tests.cluster.test_faults import At, Slow
from tests.lab import experiment
from tests.runners.test_workers import Toy, function, run, told


def variables() -> dict[str, str]:
    return {k: value for k, value in os.environ.items() if k.startswith(("AWS_", "AZUR"))}


@pytest.mark.parametrize("form", ["trainable", "function", "script"])
def test_the_journal_is_the_same(tmp_path: Path, url: str, on: shoal.Ray, form: str) -> None:
    there = {"checkpoints": url, "execution": on, "env": variables()}
    if form == "script":
        config = experiment(tmp_path, population=4, steps=4)
        here = shoal.run(config, verbose=False)
        away = shoal.run(config, **there, verbose=False)  # type: ignore[arg-type]
    else:
        work = Toy(tmp_path / "diary") if form == "trainable" else function
        words = {"metric": "quality" if form == "function" else "default", "steps": 4}
        here = run(work, tmp_path, **words)
        away = run(work, tmp_path, **words, **there)
    assert away.state == "done"
    assert told(away) == told(here)
    kept = {f"{path.parent.name}/{path.name}" for path in here.checkpoints.glob("*/[0-9]*")}
    assert set(Bucket(url).places()) == kept
    best, same = away.best, here.best
    assert best is not None
    assert same is not None
    assert best.checkpoint is not None
    assert same.checkpoint is not None
    name = "theta.json" if form != "trainable" else "state.json"
    assert (best.checkpoint / name).read_text() == (same.checkpoint / name).read_text()
    remove(str(away.folder.path))
    assert list(Bucket(url)._below("")) == []


def test_a_node_is_lost_and_the_run_goes_on(
    tmp_path: Path, url: str, nodes: Nodes, on: shoal.Ray
) -> None:
    words = {"seed": 5, "population": 6, "steps": 6, "workers": 6}
    before = run(Slow(tmp_path / "before"), tmp_path, **words)
    spot = nodes.add()
    at = At(12, lambda: nodes.kill(spot))
    result = run(
        Slow(tmp_path / "after"), tmp_path, **words, execution=on, checkpoints=url,
        env=variables(), observer=at,
    )  # fmt: skip
    assert (result.state, at.done) == ("done", True)
    plain = [{**row, "attempt": 1} for row in told(result)]
    assert plain == [{**row, "attempt": 1} for row in told(before)]


def test_begun_on_a_cluster_and_gone_on_with_here(tmp_path: Path, url: str, on: shoal.Ray) -> None:
    diary = tmp_path / "diary"
    result = run(Toy(diary), tmp_path, steps=3, execution=on, checkpoints=url, env=variables())
    steps = len(Toy(diary).notes("step"))
    here = {"engine": "local"}
    again = shoal.resume(
        Toy(diary), str(result.folder.path), steps=5, execution=here, verbose=False
    )
    assert told(again) == told(run(Toy(tmp_path / "d"), tmp_path, steps=5))
    assert len(Toy(diary).notes("step")) - steps == 2 * 4, "nothing was trained again"
