"""The same experiment on a cluster as on this machine."""

import json
import os
import shutil
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any

import pytest
from click.testing import CliRunner

import shoal
from shoal.checking import about_cluster
from shoal.cli.main import cli
from shoal.experiment import read_config
from shoal.runners.base import RunnerError
from shoal.runners.cluster import connection
from shoal.runners.cluster.connection import (
    NO_SERVER,
    Cluster,
    first_and_last,
    show_token,
    wants_token,
)
from tests.cli.shell import Shell, write
from tests.cluster.conftest import Nodes
from tests.lab import experiment, log_of, run, told
from tests.servers import port
from tests.toys import Toy, function, pausing, seeing

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits-pytorch"


@pytest.mark.parametrize(
    ("form", "metric"),
    [("trainable", "default"), pytest.param("function", "quality", marks=pytest.mark.soak)],
)
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


def test_more_are_wanted_than_there_is_room_for(tmp_path: Path, on: shoal.Ray) -> None:
    result = run(pausing, tmp_path, population=8, steps=3, workers=8, execution=on)
    assert result.state == "done"
    assert any("workers on the cluster: 4 of 8, on 2 nodes" in line for line in log_of(result))


def test_nothing_is_begun_on_a_cluster_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # as other tests leave it
    with pytest.raises(shoal.ExperimentError, match=r"cannot be reached.*`ray status`"):
        run(pausing, tmp_path, execution={"engine": "ray", "address": "127.0.0.1:1"})
    assert not list((tmp_path / "home").glob("*"))


def noted(folder: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let Ray have noted `address` as that of its current cluster."""
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text(address)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))


def test_a_cluster_that_was_killed_is_not_waited_for(
    tmp_path: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address outlives it, in a file of Ray's."""
    gone = f"127.0.0.1:{port()}"
    noted(tmp_path, monkeypatch, gone)
    assert Cluster(None, {})._gone() == gone
    (tmp_path / "ray" / "ray_current_cluster").write_text(nodes.address)
    assert Cluster(None, {})._gone() == ""
    (tmp_path / "ray" / "ray_current_cluster").unlink()
    assert Cluster(None, {})._gone() == ""


@pytest.mark.soak
def test_a_run_begins_a_cluster_where_the_last_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TemporaryDirectory(prefix="r") as short:  # the paths of Ray's sockets have to be
        noted(Path(short), monkeypatch, f"127.0.0.1:{port()}")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        shell = Shell(tmp_path / "home")
        ended = shell("run", write(tmp_path / "toy", steps=1), "--on", "ray")
    assert ended.returncode == 0, ended.stderr
    assert "rpc_client" not in ended.stderr
    assert "done  4 trials in" in ended.stdout


@pytest.mark.parametrize("failing", [1, 9])
def test_a_cluster_that_cannot_serve_us_is_asked_once_more(
    monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """As it hangs at times in the process that it forks for us; a second one is another."""
    asked = []

    def init(**words: Any) -> None:
        asked.append(words["runtime_env"].pop("pip"))  # as Ray does
        if len(asked) <= failing:
            raise ConnectionAbortedError(f"Initialization failure:\n  ...\nE: {NO_SERVER}.")

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or it is set for a user who has a token
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    with socket.create_server(("127.0.0.1", 0)) as server:
        cluster = Cluster(f"ray://127.0.0.1:{server.getsockname()[1]}", {"pip": ["x"]})
        if failing == 1:
            cluster.connect()
        else:
            with pytest.raises(RunnerError, match=f"cannot be reached.*E: {NO_SERVER}"):
                cluster.connect()
    assert asked == [["x"], ["x"]]


def test_what_a_cluster_says_is_told_in_a_line() -> None:
    said = "Initialization failure from server:\nTraceback (most recent call last):\n  ...\nE: no\n"
    assert first_and_last(OSError(said)) == "Initialization failure from server: E: no"
    assert first_and_last(OSError("no")) == "no"


def test_whoever_waits_for_room_is_told(tmp_path: Path, on: shoal.Ray) -> None:
    """No node has what a worker needs: the run waits, says for what, and can be stopped."""
    seen: list[str] = []

    class Watch(shoal.Observer):
        def changed(self, tuner: shoal.Tuner, waiting: str) -> None:
            seen.append(waiting)

    execution = {"engine": "ray", "address": on.address, "resources": {"moon": 1}}
    result = run(pausing, tmp_path, execution=execution, observer=Watch(), max_duration=2)
    assert result.state == "done", result.reason
    assert any("it needs 1 CPU, 1 moon, which no node of it has" in text for text in seen)


def test_what_cannot_be_loaded_says_so(tmp_path: Path, on: shoal.Ray) -> None:
    class Work(Toy):
        def __setstate__(self, state: object) -> None:
            raise ValueError("the data is not there")

    with pytest.raises(shoal.ExperimentError, match="the data is not there"):
        run(Work(tmp_path / "diary"), tmp_path, execution=on)


def test_the_digits_experiment_as_it_is(tmp_path: Path, on: shoal.Ray) -> None:
    """The example, an NNI file, by the command, with its code copied to the nodes."""
    assert on.address is not None
    shell = Shell(tmp_path / "home")
    results = {}
    for name, more in (("there", ["--on", "ray", "--address", on.address]), ("here", [])):
        code = tmp_path / name
        shutil.copytree(EXAMPLE, code, ignore=shutil.ignore_patterns("checkpoints"))
        said = shell("run", code / "config.yml", "--steps", "2", "--name", name, *more)
        assert said.returncode == 0, said.stderr
        results[name] = shoal.open(name, home=tmp_path / "home")
    assert told(results["there"]) == told(results["here"])
    best = results["there"].best
    assert best is not None
    assert best.checkpoint is not None
    assert best.checkpoint.is_relative_to(tmp_path / "there" / "checkpoints")
    folder = results["there"].folder.trial(0, 1)
    assert (folder / "metrics.jsonl").read_text().count("final") == 1


def test_a_command_that_fails_and_one_that_takes_too_long(tmp_path: Path, on: shoal.Ray) -> None:
    script = """
        import sys, time
        from shoal.trial import current
        trial = current()
        print("member", trial.member, flush=True)
        if trial.member == 1 and trial.step == 0:
            sys.exit("this one is bad")
        if trial.member == 2 and trial.step == 0:
            time.sleep(600)
        (trial.save / "x").write_text("x")
        trial.finish(trial.member)
    """
    config = experiment(tmp_path, dedent(script), population=3, steps=2, retries=0, timeout="3s")
    result = shoal.run(config, execution=on, verbose=False)
    assert result.state == "done"
    failed = {row.member: row for row in result.trials() if row.state == "failed"}
    assert failed.keys() == {1, 2}
    assert "exit code 1" in str(failed[1].error)
    assert "this one is bad" in str(failed[1].error)
    assert "longer than 3 s" in str(failed[2].error)
    assert (result.folder.trial(failed[2].id, 1) / "stdout").read_text() == "member 2\n"
    assert (result.folder.trial(failed[1].id, 1) / "stderr").read_text() == "this one is bad\n"


def test_what_a_worker_needs_is_given_to_it(tmp_path: Path, nodes: Nodes, on: shoal.Ray) -> None:
    """Ray's own bookkeeping: no GPU has to be there for it."""
    special = nodes.add(num_cpus=1, num_gpus=1, resources={"moon": 2})
    execution = {
        "engine": "ray", "address": on.address, "cpus_per_trial": 0.5, "resources": {"moon": 1},
    }  # fmt: skip
    seen = {}
    for gpus in (0.5, 0):
        notes = tmp_path / str(gpus)
        notes.mkdir()
        result = run(
            seeing, tmp_path, population=2, steps=1, workers=2, gpus_per_trial=gpus,
            execution=execution, env={"COLOUR": "blue", "NOTES": str(notes)},
        )  # fmt: skip
        assert any("workers on the cluster: 2 of 2" in line for line in log_of(result))
        seen[gpus] = [(notes / member).read_text() for member in ("0", "1")]
    assert seen[0.5] == ["0 blue", "0 blue"], "they share one"
    assert seen[0] == [" blue", " blue"]
    nodes.kill(special)


@pytest.mark.parametrize("from_", ["far", pytest.param("near", marks=pytest.mark.soak)])
def test_a_runtime_environment_for_trials(tmp_path: Path, nodes: Nodes, from_: str) -> None:
    """As Ray provides it, by the command, whose own connection it is."""
    script = """
        import os
        from shoal.trial import current
        trial = current()
        (trial.save / "x").write_text(os.environ["FROM_RAY"])
        trial.finish(1.0)
    """
    (tmp_path / "train.py").write_text(dedent(script))
    config = {
        "command": "python3 train.py", "space": {"x": {"float": [0, 1]}}, "population": 2,
        "steps": 1, "keep": "all", "name": "provided",
        "execution": {"engine": "ray", "runtime_env": {"env_vars": {"FROM_RAY": "this"}}},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    shell = Shell(tmp_path / "home")
    said = shell("run", tmp_path / "config.json", "--address", nodes.addresses[from_])
    assert said.returncode == 0, said.stderr
    result = shoal.open("provided", home=tmp_path / "home")
    assert {path.read_text() for path in result.checkpoints.glob("*/0/x")} == {"this"}
    with pytest.raises(shoal.ExperimentError, match=r"runtime_env \(env_vars\) has to be given"):
        shoal.run(tmp_path / "config.json", home=tmp_path / "home", verbose=False)


def test_the_users_token_is_shown_to_a_cluster_that_wants_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray does not by itself, and then says nothing for half a minute but that time is over."""
    wanted: list[str] = []
    monkeypatch.setattr(connection, "wants_token", lambda address: address in wanted)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    show_token("ray://far:10001")
    assert "RAY_AUTH_MODE" not in os.environ, "there is none"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    for address in ("", "auto", "near:6379"):
        show_token(address)
        assert "RAY_AUTH_MODE" not in os.environ, "it does by itself, or there is no need to"
    wanted.append("near:6379")
    show_token("near:6379")
    assert os.environ.pop("RAY_AUTH_MODE") == "token"
    show_token("ray://far:10001")
    assert os.environ.pop("RAY_AUTH_MODE") == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    show_token("ray://far:10001")
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_a_cluster_without_tokens_wants_none(nodes: Nodes) -> None:
    """And one that has them, as it is begun by the command, is in test_faults.py."""
    assert not wants_token(nodes.address)
    assert not wants_token("127.0.0.1:1")


def test_an_experiment_is_checked_with_its_cluster(
    tmp_path: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "home"))
    script = """
        from shoal.trial import current
        trial = current()
        x = float((trial.load / "x").read_text()) if trial.load else 0.0
        (trial.save / "x").write_text(str(x + 1.0))
        trial.finish(x)
    """
    (tmp_path / "train.py").write_text(dedent(script))
    config: dict[str, Any] = {
        "command": "python3 train.py", "space": {"x": {"float": [0, 1]}}, "population": 2,
        "steps": 1, "checkpoints": "new/c",
        "execution": {"engine": "ray", "address": nodes.address},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = CliRunner().invoke(cli, ["check", str(tmp_path / "config.json")])
    assert said.exit_code == 0, said.output
    assert "every node of the cluster can load and save" in said.output
    assert "for a trial: 1 CPU" in said.output
    config["execution"]["resources"] = {"moon": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, room = about_cluster(read_config(tmp_path / "config.json")[0])
    assert (room.ok, room.detail) == (False, "none has 1 CPU, 3 moon, which a trial needs")
    assert {path.name for path in tmp_path.iterdir()} <= {"train.py", "config.json", "home"}
