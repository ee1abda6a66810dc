"""Nodes come and go, and controllers die: it costs time, and nothing else."""

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

import shoal
from shoal.core.records import LOST
from shoal.home import Folder
from shoal.runners.cluster.crew import Berth
from shoal.runners.crew import Gone
from tests.cluster.conftest import Nodes, joined
from tests.faults.test_disks import mounts
from tests.lab import At, log_of, run, told, until
from tests.runners.conformance import made
from tests.servers import port, reached
from tests.toys import Picky, Slow, Toy


class Spot(shoal.Observer):
    """A node that joins, and is lost once something has been trained there.

    Args:
        nodes: the cluster that it joins.
        diary: of what is trained.
    """

    def __init__(self, nodes: Nodes, diary: Path) -> None:
        self._nodes, self._diary = nodes, diary
        self._node: Any = None
        self.lost = False

    def changed(self, tuner: shoal.Tuner, waiting: str) -> None:
        if self._node is None and len(tuner.population.trials) > 6:
            self._node = self._nodes.add()
        elif self._node is not None and not self.lost:
            trained = {json.loads(line)[0] for line in self._diary.read_text().splitlines()}
            if trained & self._nodes.below(self._node):
                self._nodes.kill(self._node)
                self.lost = True


def test_a_node_that_joins_is_used_and_its_loss_costs_nothing(
    tmp_path: Path, nodes: Nodes, spread: shoal.Ray
) -> None:
    words: dict[str, Any] = {"seed": 5, "population": 6, "steps": 20, "workers": 3}
    before = run(Toy(tmp_path / "before"), tmp_path, **words)
    spot = Spot(nodes, tmp_path / "after")
    result = run(Slow(tmp_path / "after"), tmp_path, **words, execution=spread, observer=spot)
    assert result.state == "done"
    assert spot.lost
    assert any("workers on the cluster: 3 of 3, on 3 nodes" in line for line in log_of(result))
    assert any("is lost" in line for line in log_of(result))
    plain = [{**row, "attempt": 1} for row in told(result)]
    assert plain == [{**row, "attempt": 1} for row in told(before)]
    assert result.progress.failed == 0


def test_a_node_of_no_use_is_done_without(tmp_path: Path, nodes: Nodes, spread: shoal.Ray) -> None:
    words: dict[str, Any] = {"seed": 5, "population": 6, "steps": 8, "workers": 3}
    before = run(Toy(tmp_path / "before"), tmp_path, **words)
    added: list[Any] = []

    def join() -> None:
        added.append(nodes.add(env_vars={"BARE": "1"}))

    result = run(
        Picky(tmp_path / "after"), tmp_path, **words, execution=spread, observer=At(6, join)
    )  # fmt: skip
    assert result.state == "done"
    without = [line for line in log_of(result) if "is done without" in line]
    assert len(without) == 1, "as many as it has room for"
    assert "a library that is not installed on this node" in without[0]
    assert result.progress.failed == 0
    assert told(result) == told(before)
    nodes.kill(added[0])


def test_who_waits_is_told_what_is_done_without(tmp_path: Path, on: shoal.Ray) -> None:
    """The last host that could train is lost, and there are only those left that cannot."""
    lab = made(tmp_path, Slow(tmp_path / "d"), execution=on)
    crew = lab.runner._crew  # type: ignore[attr-defined]
    good, bad = (Berth(n, None, name="far", node=str(n), proven=n == 98) for n in (98, 99))
    crew._berths, crew._nodes = {98: good, 99: bad}, Counter({"98": 1, "99": 1})
    crew._is_useless(bad, "a worker on far: No module named 'torch'")
    assert crew.waiting_for is None
    crew._lost(good, OSError("gone"))
    why = "a worker on far: No module named 'torch'"
    assert f"done without 1 that cannot train ({why})" in (crew.waiting_for or "")
    lab.runner.close()


SCRIPT = """
import sys
import shoal
from tests.lab import run
from tests.toys import Slow
from pathlib import Path
folder = Path(sys.argv[1])
run(Slow(folder / "d"), folder, population=4, steps=int(sys.argv[3]), workers=2, seed=5,
    execution=shoal.Ray(sys.argv[2]))
"""
HERE = Path(__file__).parents[2]


def driver(folder: Path, address: str, steps: int = 8, **env: str) -> subprocess.Popen[str]:
    """A controller in a process of its own, which has begun to train."""
    controller = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), address, str(steps)], cwd=HERE, text=True,
        env={**os.environ, "PYTHONPATH": str(HERE), **env}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    diary = folder / "d"
    until(
        lambda: (
            (diary.exists() and len(diary.read_text().splitlines()) > 12)
            or controller.poll() is not None
        ),
        60.0,
    )
    assert controller.poll() is None, controller.communicate()
    return controller


def resumed(folder: Path, steps: int = 8, **words: Any) -> bool:
    """Whether what such a controller has left, gone on with, comes to the end of a whole run."""
    (left,) = [Folder(path) for path in (folder / "home").iterdir()]
    result = shoal.resume(Slow(folder / "d"), str(left.path), verbose=False, **words)
    whole = run(Toy(folder / "e"), folder, population=4, steps=steps, workers=2, seed=5)
    rows = [[{**row, "attempt": 1} for row in told(each)] for each in (result, whole)]
    return rows[0] == rows[1]


def test_a_controller_is_killed_and_resumed(tmp_path: Path, on: shoal.Ray) -> None:
    assert on.address is not None
    controller = driver(tmp_path, on.address)
    controller.kill()
    controller.communicate()
    trained = {json.loads(line)[0] for line in (tmp_path / "d").read_text().splitlines()}
    until(lambda: not any(map(psutil.pid_exists, trained)), 60.0)  # nobody trains for nobody
    assert resumed(tmp_path)


@pytest.mark.soak  # Ray gives up after a minute
def test_the_head_of_a_cluster_is_lost(tmp_path: Path) -> None:
    """Ray ends the controller then, as if it were killed."""
    import ray  # noqa: PLC0415

    door = port()
    start = f"start --head --port={door} --num-cpus=4 --include-dashboard=false --block"
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *start.split()], stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: reached(door), 60.0)
        here = ray.util.get_node_ip_address()
        controller = driver(tmp_path, f"{here}:{door}", steps=250)
        for process in psutil.Process(head.pid).children(recursive=True):
            if process.name() in {"gcs_server", "raylet"}:
                process.kill()
        _, said = controller.communicate(timeout=120)
        assert controller.returncode == 1
        assert "Failed to connect to GCS" in said
        assert resumed(tmp_path, steps=250, execution="local")
    finally:
        head.kill()
        head.wait()


class Wire:
    """A connection to `address`, which can be cut.

    Attributes:
        address: what to connect to instead.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        self._there = host, int(port)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.address = f"ray://127.0.0.1:{self._door.getsockname()[1]}"
        Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with suppress(OSError):  # it was cut
            while True:
                ours, theirs = self._door.accept()[0], socket.create_connection(self._there)
                self._ends += (ours, theirs)
                for ends in ((ours, theirs), (theirs, ours)):
                    Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket) -> None:
        with source, to, suppress(OSError):
            while data := source.recv(1 << 16):
                to.sendall(data)
            to.shutdown(socket.SHUT_RDWR)


def test_a_controller_at_a_distance_loses_its_network(tmp_path: Path, nodes: Nodes) -> None:
    wire = Wire(nodes.addresses["far"])
    controller = driver(tmp_path, wire.address, RAY_CLIENT_RECONNECT_GRACE_PERIOD="1")
    wire.cut()
    _, said = controller.communicate(timeout=60)
    assert "ExperimentError: experiment" in said.splitlines()[-1], said
    assert "the cluster cannot be reached any more" in said.splitlines()[-1]
    assert shoal.open(home=tmp_path / "home").state == "failed", "and can be resumed"


@pytest.mark.skipif(not mounts(), reason="this machine lets us mount nothing")
def test_a_folder_that_a_node_does_not_have(tmp_path: Path, nodes: Nodes, on: shoal.Ray) -> None:
    """A node with a disk of its own where the others have the folder for checkpoints."""
    folder = tmp_path / "checkpoints"
    with (
        joined(nodes, folder),
        pytest.raises(shoal.ExperimentError, match="does not find there what was written"),
    ):
        run(Slow(tmp_path / "d"), tmp_path, execution=on, checkpoints=folder)
    assert not (tmp_path / "d").exists(), "nothing was trained"
    assert not list(folder.iterdir())
    assert not (tmp_path / "home").exists()


def test_what_a_host_writes_that_was_given_up_is_nowhere(tmp_path: Path, on: shoal.Ray) -> None:
    """A host is out of reach, and its trial is done elsewhere; then it writes all the same."""
    gate, seen = tmp_path / "gate", tmp_path / "seen"

    def stubborn(trial: Any) -> float:
        with seen.open("a") as file:
            file.write("x")
        first = len(seen.read_text()) == 1
        while first and not gate.exists():
            time.sleep(0.01)
        (trial.save / "who").write_text("the first" if first else "another")
        if first:
            (gate.parent / "written").write_text(str(trial.save))
        return 0.0 if first else 1.0

    lab = made(tmp_path, stubborn, execution=on)
    lab.checkpoints.keep = "all"
    crew = lab.runner._crew  # type: ignore[attr-defined]
    (trial,) = lab.submit("finish")
    lab.wait(seen.exists)
    (berth,) = [berth for berth in crew._berths.values() if berth.key is not None]
    crew._berths.pop(berth.number)  # as after an ActorUnavailableError, but it lives
    crew._workers.pop(berth.key)
    crew._events.append(Gone(berth.key, LOST, "out of reach"))
    lab.wait(lab.all_reported)
    assert lab.kinds()[trial.id] == LOST
    again = replace(trial, attempt=2)
    lab.population.apply(again)
    lab.runner.submit(again)
    lab.wait(lab.all_reported)
    gate.touch()
    until((tmp_path / "written").exists)
    until(lambda: not crew._heard.empty())  # it has told so
    lab.runner.wait()
    assert (lab.checkpoints.save(trial) / "who").read_text() == "another"
    crew._cluster.ray.kill(berth.actor)
    lab.runner.close()
