"""Checkpoints in an object store, from a cluster."""

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import cloudpickle
import pytest

import shoal
from shoal.buckets import Bucket, Upload
from shoal.experiment import remove
from shoal.runners.cluster.host import Duty, Host
from shoal.runners.forkserver import Imports
from tests.cluster.conftest import Nodes, joined
from tests.faults.test_disks import mounts
from tests.lab import At, experiment, log_of, run, told, until
from tests.toys import Slow, Toy, function, weighty


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
    tmp_path: Path, url: str, nodes: Nodes, spread: shoal.Ray
) -> None:
    words = {"seed": 5, "population": 6, "steps": 6, "workers": 3}
    before = run(Toy(tmp_path / "before"), tmp_path, **words)
    spot = nodes.add()
    at = At(12, lambda: nodes.kill(spot))
    result = run(
        Slow(tmp_path / "after"), tmp_path, **words, execution=spread,
        checkpoints=url, env=variables(), observer=at,
    )  # fmt: skip
    assert (result.state, at.done) == ("done", True)
    plain = [{**row, "attempt": 1} for row in told(result)]
    assert plain == [{**row, "attempt": 1} for row in told(before)]


@pytest.mark.skipif(not mounts(), reason="this machine lets us mount nothing")
@pytest.mark.soak  # what is decided there is in test_depots.py
@pytest.mark.parametrize("room", ["200k", "1100k"])
def test_a_node_whose_disk_is_full_is_done_without(
    tmp_path: Path, url: str, nodes: Nodes, spread: shoal.Ray, room: str
) -> None:
    """No trial fails for it, though each has to be saved there before it is sent."""
    words = {"population": 3, "steps": 6, "workers": 3, "metric": "quality", "retries": 0}
    before = run(function, tmp_path, **words)
    with joined(nodes, tmp_path / "disk", f"size={room}"):
        result = run(weighty, tmp_path, **words, execution=spread, checkpoints=url, env=variables())
    without = [line for line in log_of(result) if "is done without" in line]
    assert len(without) == 1
    assert "its disk is full" in without[0]
    assert (result.state, result.progress.failed) == ("done", 0)
    assert told(result) == told(before)


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


def test_a_machine_without_a_temporary_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    duty = Duty(
        experiment="none", work={"pickled": cloudpickle.dumps(function)}, directory=str(tmp_path),
        env={}, argv=[], imports=Imports(), checkpoints=str(tmp_path),
    )  # fmt: skip
    host = Host(duty, "here")
    until(lambda: any("gone" in one.get("useless", "") for one in host.hear(0.1)))
    host.close()


def test_what_is_saved_is_sent_while_its_worker_goes_on(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, upload = Event(), Bucket.upload

    def slowly(bucket: Bucket, folder: Path, place: str) -> Upload:
        gate.wait()
        return upload(bucket, folder, place)

    monkeypatch.setattr(Bucket, "upload", slowly)
    duty = Duty(
        experiment="sent", work={"pickled": cloudpickle.dumps(function)}, directory=str(tmp_path),
        env={}, argv=[], imports=Imports(), checkpoints=str(tmp_path / "c"), store=url,
    )  # fmt: skip
    host = Host(duty, "here")
    heard: list[Mapping[str, Any]] = []

    def said(what: str) -> list[Mapping[str, Any]]:
        heard.extend(host.hear(0.1))
        return [one for one in heard if what in one or what in one.get("said", {})]

    def done(many: int) -> bool:
        return len(said("done")) == many

    until(lambda: said("here"))
    host.tell(0, [{"start": "w"}])
    until(lambda: said("ready"))
    for turn, member in enumerate((0, 1), start=1):
        step = {"id": member, "member": member, "step": 0, "attempt": 1, "seed": 1, "fresh": False}
        job = {
            "key": f"{member}/1", "steps": [step | {"hparams": {"h0": 0.5, "h1": 0.5}}],
            "load": None, "save": str(tmp_path / "c" / str(member) / "0"), "tell": False,
        }  # fmt: skip
        host.tell(turn, [{"tell": "w", "message": {"train": job}}])
        until(partial(done, turn))
    assert all(one["said"]["sending"] for one in said("done"))
    assert not said("uploaded")
    gate.set()
    until(lambda: len(said("uploaded")) == 2)
    assert [one["key"] for one in said("uploaded")] == ["0/1", "1/1"]
    assert all(Upload.parse(one["uploaded"]).files for one in said("uploaded"))
    host.close()
