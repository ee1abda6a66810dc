"""Stopping an experiment from another process."""

import json
import os
import signal
from pathlib import Path

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


def test_one_on_another_machine_is_to_be_stopped_there(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run, status = held(shell, write(tmp_path / "toy"), gate)
    # as the lock file of a folder that two machines share
    lock = Path(status["folder"]) / "lock"
    lock.write_text(json.dumps({"pid": os.getpid(), "host": "elsewhere"}))
    assert f"process {os.getpid()} on elsewhere: stop it there" in refusal(shell("stop"))
    gate.touch()
    run.communicate()
