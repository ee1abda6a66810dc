"""What a machine does to a run: it stops processes, runs out of memory, files and space, and lies
about the time."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from tests.cli.shell import TRAIN, Shell, command, eventually, write
from tests.faults.test_disks import needs_mounts, run_on
from tests.faults.test_kill_workers import CLIMB
from tests.lab import SPACE, TOY, experiment, log_of

ONCE = """
import os, pathlib, signal, sys, time
def once(name):
    try:
        pathlib.Path(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
"""


def climbing(folder: Path, attack: str, **words: Any) -> shoal.Result:
    """A run in workers in which `attack` precedes each step."""
    folder.mkdir(exist_ok=True)
    code = CLIMB.replace("    def step(self, state, hparams):\n", f"{{}}{attack}\n")
    head = "    def step(self, state, hparams):\n"
    (folder / "climb.py").write_text(ONCE + code.replace("{}", head, 1))
    given = {"population": 4, "steps": 4, "workers": 2, "home": folder / "home", **words}
    config = shoal.Config(trainable="climb:Climb", directory=folder, space=SPACE, **given)
    return shoal.run(config, verbose=False)


def failures(result: shoal.Result) -> list[str]:
    return [row.error for row in result.trials() if row.error is not None]


# ------------------------------------------------------------------ stopped


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_script_that_is_stopped_is_ended_at_its_timeout(tmp_path: Path, warm: bool) -> None:
    stop = ONCE + "if once('stopped'): os.kill(os.getpid(), signal.SIGSTOP)\n"
    result = shoal.run(experiment(tmp_path, stop + TOY, timeout=1.5, warm=warm), verbose=False)
    assert result.state == "done"
    assert [row.state for row in result.trials()] == ["finished"] * 12
    assert len(failures(result)) == 1
    assert failures(result)[0].startswith("timeout: it ran longer than 1.5 s")


def test_a_worker_that_is_stopped_is_ended_at_its_timeout(tmp_path: Path) -> None:
    stop = "        if once('stopped'): os.kill(os.getpid(), signal.SIGSTOP)"
    result = climbing(tmp_path, stop, timeout=1.5)
    assert result.state == "done"
    assert [row.state for row in result.trials()] == ["finished"] * 16
    assert failures(result) == ["timeout: it ran longer than 1.5 s"]


# ------------------------------------------------------------------ memory


def test_a_script_that_gets_no_memory_fails_and_says_so(tmp_path: Path) -> None:
    greedy = ONCE + (
        "import resource\n"
        "if once('greedy'):\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))\n"
        "    held = bytearray(1 << 33)\n"
    )
    result = shoal.run(experiment(tmp_path, greedy + TOY, retries=0), verbose=False)
    assert result.state == "done"
    (error,) = failures(result)
    assert error.startswith("crash: exit code 1")
    assert "MemoryError" in error


@pytest.mark.parametrize("what", ["script", "worker"])
def test_what_the_machine_kills_to_have_memory_is_told(tmp_path: Path, what: str) -> None:
    kill = "if once('killed'): os.kill(os.getpid(), signal.SIGKILL)"  # as the kernel does
    if what == "script":
        result = shoal.run(experiment(tmp_path, ONCE + kill + "\n" + TOY), verbose=False)
    else:
        result = climbing(tmp_path, f"        {kill}")
    assert result.state == "done"
    (error,) = failures(result)
    assert error.startswith("killed: ")
    assert "ended by SIGKILL, as the machine does when its memory runs out" in error


# ------------------------------------------------------------------ files


def limited(shell: Shell, config: Path, most: int) -> subprocess.CompletedProcess[str]:
    """A run that may have so many files open."""
    return subprocess.run(
        command("run", config),
        env=shell.environment, capture_output=True, text=True, check=False, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)),
    )  # fmt: skip


def test_scripts_need_no_file_each(shell: Shell, tmp_path: Path) -> None:
    config = write(tmp_path, population=40, workers=40, steps=2)
    ended = limited(shell, config, 32)
    assert ended.returncode == 0, ended.stderr


def test_workers_need_one_each(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"  # without it nobody ends, so that each member needs a worker
    there = f"__import__('os').path.exists({str(gate)!r})"
    wait = f"\n        while not {there}: __import__('time').sleep(0.01)"
    step = "def step(self, state, hparams):"
    assert step in CLIMB
    (tmp_path / "climb.py").write_text(CLIMB.replace(step, step + wait))
    gate.touch()
    words: dict[str, Any] = {
        "trainable": "climb:Climb", "command": None, "population": 24, "workers": 24, "steps": 2,
        "space": {"h0": {"float": [0.0, 1.0]}, "h1": {"float": [0.0, 1.0]}},
    }  # fmt: skip
    config = write(tmp_path, **words)
    ended = limited(shell, config, 64)
    assert ended.returncode == 0, ended.stderr
    gate.unlink()
    ended = limited(shell, config, 20)
    assert ended.returncode == 1
    assert "cannot go on: more files would be open than the 20 of `ulimit -n`" in ended.stderr
    gate.touch()
    assert shell("resume").returncode == 0, "where more may be open"


@pytest.mark.soak
def test_three_hundred_workers_under_a_limit_of_a_thousand(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "climb.py").write_text(CLIMB)
    words: dict[str, Any] = {
        "trainable": "climb:Climb", "command": None, "population": 300, "workers": 300, "steps": 2,
        "space": {"h0": {"float": [0.0, 1.0]}, "h1": {"float": [0.0, 1.0]}},
    }  # fmt: skip
    ended = limited(shell, write(tmp_path, **words), 1000)
    assert ended.returncode == 0, ended.stderr


# ------------------------------------------------------------------ time

BACKWARDS = """
import itertools, sys, time
real, calls = time.time, itertools.count()
time.time = lambda: real() - 3600 * (next(calls) // 7)  # an hour back, again and again
from shoal.cli.main import main
sys.argv = ["shoal", *sys.argv[1:]]
main()
"""


def test_a_clock_that_steps_backwards(shell: Shell, tmp_path: Path) -> None:
    config = write(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", BACKWARDS, "run", str(config)],
        env=shell.environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "12 trials in" in ended.stdout
    rows = shell.json("trials")
    assert [row["state"] for row in rows] == ["finished"] * 12
    assert shell.json("status")["seconds"] >= 0
    assert all(row["started"] <= row["ended"] for row in rows)
    for member in range(4):
        times = [row["started"] for row in rows if row["member"] == member]
        assert times == sorted(times), "a member's steps follow one another"
    for what in ("status", "trials", "best", "log", "list"):
        ended = shell(what)
        assert ended.returncode == 0
    assert shell("resume", "--steps", 4).returncode == 0


# ------------------------------------------------------------------ space

FULL = (
    "mount -t tmpfs -o size=1M none {disk} && dd if=/dev/zero of={disk}/filler bs=1k count={used}"
)


@needs_mounts
def test_a_disk_that_is_full_when_a_worker_saves(shell: Shell, tmp_path: Path) -> None:
    """What is held goes on being trained; it is saved once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "climb.py").write_text(
        CLIMB.replace(
            '(path / "state.json").write_text(',
            "(path / 'large').write_bytes(b'x' * 150_000); (path / \"state.json\").write_text(",
        )
    )
    words: dict[str, Any] = {
        "trainable": "climb:Climb", "command": None, "steps": 6, "checkpoint_every": 1,
        "space": {"h0": {"float": [0.0, 1.0]}, "h1": {"float": [0.0, 1.0]}},
        "checkpoints": str(disk / "c"), "workers": 1,
    }  # fmt: skip
    config = write(tmp_path, **words)
    mount = FULL.format(disk=disk, used=600) + " 2>/dev/null"
    ended = run_on(shell, mount, "run", config)
    assert ended.returncode == 0, ended.stderr
    assert "24 trials in" in ended.stdout
    assert "could not be saved" in ended.stderr
    assert "No space left on device" in ended.stderr


@needs_mounts
def test_a_disk_that_is_full_when_a_script_saves(shell: Shell, tmp_path: Path) -> None:
    """Its trial fails; once there is room, the run can be taken up."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = TRAIN.replace("print(", "(save / 'large').write_bytes(b'x' * 50_000)\nprint(", 1)
    config = write(tmp_path, script, checkpoints=str(disk / "c"), retries=0)
    mount = FULL.format(disk=disk, used=1020) + " 2>/dev/null"
    again = f"; rm {disk}/filler; {' '.join(command('resume'))}"
    ended = run_on(shell, mount, "run", config, again=again)
    assert ended.returncode == 0, ended.stderr
    assert "all 4 trials of step 0 failed" in ended.stderr
    assert "No space left on device" in ended.stderr
    assert [row.state for row in shoal.open(home=shell.home).trials()] == ["finished"] * 12


# ------------------------------------------------------------------ noise

FLOOD = ONCE + (
    "if once('flooded'):\n    for _ in range({}):\n        os.write(1, b'x' * 1023 + b'\\n')\n"
)


def flooded(shell: Shell, folder: Path, lines: int) -> None:
    config = write(folder, FLOOD.format(lines) + TRAIN)
    running = shell.start("run", config)
    most = 0
    while running.poll() is None:
        for process in (running.pid,):
            try:
                most = max(most, psutil.Process(process).memory_info().rss)
            except psutil.Error:
                break
        time.sleep(0.01)
    assert running.wait() == 0
    running.communicate()
    assert most < 150 << 20, "nobody reads it into memory"
    sizes = [path.stat().st_size for path in shell.home.glob("*/trials/*/*/stdout")]
    assert max(sizes) >= 1024 * lines
    log = subprocess.Popen(
        command("log", "--trial", "0"), env=shell.environment, stdout=subprocess.PIPE
    )
    assert log.stdout is not None
    assert log.stdout.read(1024)
    log.stdout.close()
    eventually("it ends with its reader", lambda: log.poll() is not None)


def test_a_flood_of_output(shell: Shell, tmp_path: Path) -> None:
    flooded(shell, tmp_path, 64 << 10)


@pytest.mark.soak
def test_a_gigabyte_of_output(shell: Shell, tmp_path: Path) -> None:
    flooded(shell, tmp_path, 1 << 20)


# ------------------------------------------------------------------ the dead


def test_a_zombie_of_an_earlier_attempt_is_not_heard(tmp_path: Path) -> None:
    """Somebody goes on writing the reports of an attempt that was given up."""
    script = (
        "import json, os, pathlib, sys\n"
        "own = pathlib.Path(os.environ['NNI_OUTPUT_DIR'])\n"
        "if own.name == '1' and own.parent.name in ('2', '5'): sys.exit('given up')\n"
        "for earlier in own.parent.iterdir():\n"
        "    if earlier != own:\n"
        "        (earlier / 'metrics.jsonl').open('a').write('{\"final\": 99}\\n')\n" + TOY
    )
    result = shoal.run(experiment(tmp_path, script), verbose=False)
    assert result.state == "done"
    assert result.best is not None
    assert result.best.metric <= 1.2, "what the zombie reports counts nothing"
    assert sorted(row.attempt for row in result.trials())[-3:] == [1, 2, 2]


# ------------------------------------------------------------------ checkpoints behind our back


def spoiled(result: shoal.Result, how: str) -> int:
    """The member with the best score, whose checkpoints were spoiled."""
    assert result.best is not None
    member = result.best.lineage[-1].member
    files = list(result.checkpoints.glob(f"{member}/*/*.json"))
    assert files
    for path in files:
        if path.name.startswith("."):
            continue
        if how == "truncated":
            os.truncate(path, path.stat().st_size // 2)
        elif how == "empty":
            os.truncate(path, 0)
        else:
            path.unlink()
    return member


@pytest.mark.parametrize("how", ["truncated", "empty", "removed"])
def test_a_spoiled_checkpoint_of_a_script_costs_its_member(tmp_path: Path, how: str) -> None:
    first = shoal.run(experiment(tmp_path), verbose=False)
    member = spoiled(first, how)
    result = shoal.resume(first.id, home=tmp_path / "home", steps=5, verbose=False)
    assert result.state == "done"
    rows = result.trials()
    failed = [row for row in rows if row.error is not None]
    assert member in {row.member for row in failed}
    for row in failed:
        assert row.step == 3
        assert row.error is not None
        assert "lost checkpoint: what it was to start from is not what was saved" in row.error
    assert [row.state for row in rows if row.step == 4] == ["finished"] * 4, "it is refilled"


@pytest.mark.parametrize("how", ["truncated", "empty", "removed"])
def test_a_spoiled_checkpoint_of_a_trainable(tmp_path: Path, how: str) -> None:
    first = climbing(tmp_path, "")
    member = spoiled(first, how)
    result = shoal.resume(first.id, home=tmp_path / "home", steps=7, verbose=False)
    assert result.state == "done"
    assert failures(result) == []
    assert any(f"member {member}: steps 0 to 3 trained again" in line for line in log_of(result))
