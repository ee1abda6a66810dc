"""An experiment steered from another process: stopped, paused, let go on, changed."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from shoal.home import Folder
from tests.cli.shell import Shell, eventually, write
from tests.cli.test_main import held, refusal


def test_stop_waits_for_the_trials_that_run(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run, status = held(shell, write(tmp_path / "toy"), gate)
    stop = shell.start("stop")
    assert stop.stderr is not None
    assert "waiting for 2 trials of step 1 to end\n" in iter(stop.stderr.readline, "")
    assert stop.poll() is None
    gate.touch()
    _, said = stop.communicate()
    assert stop.returncode == 0
    name = f"toy ({status['id']})"
    assert said.splitlines()[-1] == f"{name} is stopped: `shoal resume {status['id']}` goes on"
    run.communicate()
    assert run.returncode == 130
    ended = shell("stop")
    assert (ended.returncode, ended.stderr) == (0, f"{name} is not running: stopped\n")
    assert shell("resume").returncode == 0
    assert shell("stop").stderr == f"{name} is not running: done\n"


def test_stop_now_ends_what_runs(shell: Shell, tmp_path: Path) -> None:
    run, status = held(shell, write(tmp_path / "toy"), tmp_path / "gate")
    assert shell("stop", status["id"], "--now").returncode == 0
    run.communicate()
    assert run.returncode == 130
    assert "interrupted" in {row["state"] for row in shell.json("trials")}


def test_stop_can_be_interrupted_itself(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run, _ = held(shell, write(tmp_path / "toy"), gate)
    stop = shell.start("stop")
    assert stop.stderr is not None
    stop.stderr.readline()
    stop.send_signal(signal.SIGINT)
    assert stop.communicate()[1].strip() == ""
    assert stop.returncode == 130
    assert run.poll() is None
    gate.touch()
    run.communicate()
    assert run.returncode == 130, "it was told, and stops"


def test_one_that_was_killed_is_not_running(shell: Shell, tmp_path: Path) -> None:
    run, status = held(shell, write(tmp_path / "toy"), tmp_path / "gate")
    run.kill()
    run.communicate()
    eventually("the lock to be free", lambda: Folder(Path(status["folder"])).holder() is None)
    assert shell.json("status")["state"] == "killed"
    assert shell("stop").stderr.endswith("is not running: killed\n")
    assert shell("resume").returncode == 0


def test_one_on_another_machine_is_told_in_its_folder(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run, status = held(shell, write(tmp_path / "toy"), gate)
    # as the lock file of a folder that two machines share
    folder = Path(status["folder"])
    (folder / "lock").write_text(json.dumps({"pid": os.getpid(), "host": "elsewhere"}))
    stop = shell.start("stop")

    def left() -> Any:
        return [json.loads(file.read_text()) for file in folder.glob("orders/*.json")]

    # but this one is not of the process and machine that it is for
    assert eventually("an order", left) == [
        {"to": [os.getpid(), "elsewhere"], "wanted": "stop", "changes": {}}
    ]
    gate.touch()
    run.communicate()
    assert run.returncode == 0, "it is not the one that was meant"
    stop.communicate()
    assert stop.returncode == 0


def pause(shell: Shell, gate: Path) -> str:
    """Pause a run that is held at `gate`; what `shoal pause` has said."""
    process = shell.start("pause")
    waiting = "2 trials of step 1 to end, before it pauses"
    eventually("the order to be taken", lambda: shell.json("status")["reason"] == waiting)
    gate.touch()
    _, said = process.communicate()
    assert process.returncode == 0
    return said


def test_paused_it_comes_to_the_same_end(shell: Shell, tmp_path: Path) -> None:
    file, gate = write(tmp_path / "toy"), tmp_path / "gate"
    run, status = held(shell, file, gate)
    said = pause(shell, gate)
    name, id = f"toy ({status['id']})", status["id"]
    assert said.splitlines()[-1] == f"{name} is paused: `shoal resume {id}` goes on"
    now = shell.json("status")
    assert (now["state"], now["controller"]["pid"]) == ("paused", run.pid)
    assert now["trials"]["running"] == 0
    assert now["trials"]["finished"] < 12
    assert "paused" in shell("list").stdout
    assert run.poll() is None
    goes_on = shell("resume")
    assert goes_on.returncode == 0
    assert f"{name} goes on: process {run.pid} on " in goes_on.stderr
    _, said = run.communicate()
    assert run.returncode == 0
    assert "it goes on" in said
    assert shell.json("status")["state"] == "done"
    assert shell("run", file, "--name", "whole").returncode == 0
    keys = ("id", "member", "step", "hparams", "parent", "metric")
    whole, paused = (
        [[row[key] for key in keys] for row in shell.json("trials", name)]
        for name in ("whole", "toy")
    )
    assert paused == whole


def test_a_pause_can_be_taken_back(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run, _ = held(shell, write(tmp_path / "toy"), gate)
    waiting = shell.start("pause")
    eventually("the order to be taken", lambda: "to be paused" in shell("log").stdout)
    assert shell("resume").returncode == 0
    gate.touch()
    run.communicate()
    assert run.returncode == 0
    waiting.communicate()
    assert shell.json("status")["trials"]["finished"] == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ended_in_its_pause_it_can_be_resumed(
    shell: Shell, tmp_path: Path, number: signal.Signals
) -> None:
    gate = tmp_path / "gate"
    run, status = held(shell, write(tmp_path / "toy"), gate)
    pause(shell, gate)
    run.send_signal(number)
    run.communicate()
    assert run.returncode == (130 if number == signal.SIGINT else -number)
    eventually("the lock to be free", lambda: Folder(Path(status["folder"])).holder() is None)
    assert shell.json("status")["state"] == "stopped"
    assert shell("pause").stderr.endswith("is not running: stopped\n")
    assert shell("resume").returncode == 0
    assert shell.json("status")["trials"]["finished"] == 12


def test_stopped_in_its_pause(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run, _ = held(shell, write(tmp_path / "toy"), gate)
    pause(shell, gate)
    assert "is stopped: " in shell("stop").stderr
    run.communicate()
    assert run.returncode == 130


def test_limits_are_changed_while_it_runs(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run, status = held(shell, write(tmp_path / "toy"), gate)
    name = f"toy ({status['id']})"
    changed = shell("update", "--workers", 4, "--steps", 5)
    assert changed.stderr == f"{name} has steps 5, workers 4\n"
    assert changed.returncode == 0
    eventually("more to run", lambda: shell.json("status")["trials"]["running"] == 4)
    now = shell.json("status")
    assert (now["workers"], now["steps"], now["trials"]["total"]) == (4, 5, 20)
    gate.touch()
    _, said = run.communicate()
    assert run.returncode == 0
    assert "steps: 3 → 5\nworkers: 2 → 4\n" in said
    assert "step 5/5  20/20 trials" in said
    assert shell.json("status")["trials"]["finished"] == 20


def test_fewer_at_a_time(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run, _ = held(shell, write(tmp_path / "toy"), gate)
    assert shell("update", "--workers", 1, "--max-trials", 6).returncode == 0
    assert shell.json("status")["trials"]["running"] == 2, "what runs goes on"
    gate.touch()
    run.communicate()
    assert run.returncode == 0
    rows = shell.json("trials")
    assert len(rows) == 6
    assert shell.json("status")["steps"] is None


def test_limits_of_one_that_nobody_runs(done: Shell) -> None:
    before = done.json("status")
    said = done("update", "--steps", before["steps"] + 1)
    assert said.returncode == 0
    assert said.stderr.endswith(f": `shoal resume {before['id']}` goes on with that\n")
    assert done.json("status")["state"] == "done"
    assert done("resume").returncode == 0
    assert done.json("status")["trials"]["finished"] == before["trials"]["total"] + 4


def test_a_limit_that_is_no_good_changes_nothing(shell: Shell, tmp_path: Path) -> None:
    assert shell("run", write(tmp_path / "toy")).returncode == 0
    before = shell.json("status")
    assert "max_duration: expected " in refusal(shell("update", "--max-duration", "soon"))
    assert shell.json("status") == before
