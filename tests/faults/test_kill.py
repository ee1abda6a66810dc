"""Killed at any moment, an experiment goes on to the same end; nothing outlives its controller."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

import psutil
import pytest

import shoal
from shoal.home import Folder, find
from shoal.runners.launch import EXPERIMENT
from tests.lab import TOY, experiment, log_of, until

# A controller that kills itself around a commit of its journal, when so many records have come.
CONTROLLER = """
import json, os, signal, sys
import shoal
from shoal.stores.sqlite import SqliteStore

folder, records, moment = sys.argv[1], int(sys.argv[2]), sys.argv[3]
append, commit, count = SqliteStore.append, SqliteStore.commit, 0

def counting(store, record):
    global count
    append(store, record)
    count += type(record).__name__ in ("Trial", "Finished", "Failed")

def dying(store):
    if count >= records and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    commit(store)
    if count >= records:
        os.kill(os.getpid(), signal.SIGKILL)

SqliteStore.append, SqliteStore.commit = counting, dying
if os.path.isdir(folder + "/home"):
    shoal.resume(home=folder + "/home")
else:
    config = shoal.Config.restore(json.load(open(folder + "/config.json")))
    shoal.run(config)
"""


def controller(folder: Path, records: int, moment: str, seconds: float = 120) -> int:
    """The exit code of a controller that lives for `records` records, and ends in `seconds`."""
    command = [sys.executable, "-c", CONTROLLER, str(folder), str(records), moment]
    return subprocess.run(command, check=False, timeout=seconds).returncode


def exported(folder: Path) -> str:
    return json.dumps(shoal.open(home=folder / "home").export(), indent=1)


def prepared(folder: Path, **fields: object) -> Path:
    folder.mkdir()
    config = experiment(folder, **fields)  # type: ignore[arg-type]
    (folder / "config.json").write_text(json.dumps(config.dump()))
    return folder


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = prepared(tmp_path_factory.mktemp("unbroken") / "x")
    assert controller(folder, 10**9, "never") == 0
    return exported(folder)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "records",
    [1, 8, 20, *(pytest.param(n, marks=pytest.mark.soak) for n in (2, 3, 5, 11, 13, 17, 23, 24))],
)
def test_killed_once_it_ends_as_if_it_had_not_been(
    tmp_path: Path, unbroken: str, records: int, moment: str
) -> None:
    folder = prepared(tmp_path / "x")
    assert controller(folder, records, moment) == -signal.SIGKILL
    assert shoal.open(home=folder / "home").state == "killed"
    assert controller(folder, 10**9, "never") == 0
    assert exported(folder) == unbroken


def test_killed_again_and_again_it_still_gets_there(tmp_path: Path, unbroken: str) -> None:
    folder = prepared(tmp_path / "x")
    kills = 0
    # two records a life: the trial that is decided again, and one that is new
    while controller(folder, 3, "after") == -signal.SIGKILL:
        kills += 1
        assert kills < 100
    assert kills > 5
    assert exported(folder) == unbroken


def killed_at_random(folder: Path, kills: int, most_s: float) -> None:
    """End the controllers of a run at `kills` random moments, one after the other, then let it end.

    Each is killed while it begins, runs or saves.
    """
    rng = Random(1)
    for _ in range(kills):
        command = [sys.executable, "-c", CONTROLLER, str(folder), str(10**9), "never"]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            code = running.wait(rng.uniform(0, most_s))
            assert code == 2 or not (folder / "home").exists(), "it was over before its time"
        running.kill()
        running.wait()
    assert controller(folder, 10**9, "never", 400) == 0


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_killed_at_200_random_moments(tmp_path: Path) -> None:
    steps = 500
    whole = prepared(tmp_path / "whole", steps=steps)
    assert controller(whole, 10**9, "never", 400) == 0
    folder = prepared(tmp_path / "x", steps=steps)
    killed_at_random(folder, 200, 0.8)
    assert exported(folder) == exported(whole)
    rows = shoal.open(home=folder / "home").trials()
    assert sum(row.attempt > 1 for row in rows) >= 50, "trials were killed with it"


@pytest.mark.parametrize("workers", [1, 8])
def test_the_number_of_slots_changes_nothing(tmp_path: Path, unbroken: str, workers: int) -> None:
    folder = prepared(tmp_path / "x", workers=workers)
    assert controller(folder, 10**9, "never") == 0
    assert exported(folder) == unbroken


def test_another_seed_is_another_run(tmp_path: Path, unbroken: str) -> None:
    folder = prepared(tmp_path / "x", seed=1)
    assert controller(folder, 10**9, "never") == 0
    assert exported(folder) != unbroken


def test_an_asynchronous_run_survives_too(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "x", synchronous=False)
    for records in (5, 7, 9):
        assert controller(folder, records, "after") == -signal.SIGKILL
    assert controller(folder, 10**9, "never") == 0
    rows = shoal.open(home=folder / "home").trials()
    assert [row.state for row in rows] == ["finished"] * 12
    assert sorted((row.member, row.step) for row in rows) == [
        (member, step) for member in range(4) for step in range(3)
    ]


# Each trial says that it has come, and then hangs with a child and a daemon of its own.
HANG = """
import os, subprocess, sys, time
import nni
nni.get_next_parameter()
child = [sys.executable, "-c", "import time; time.sleep(600)"]
one = subprocess.Popen(child)
two = subprocess.Popen(child, start_new_session=True)
with open(os.environ["NNI_OUTPUT_DIR"] + "/pids.tmp", "w") as file:
    file.write(f"{os.getpid()} {one.pid} {two.pid}")
os.rename(file.name, os.environ["NNI_OUTPUT_DIR"] + "/pids")
"""
FOREVER = HANG + "time.sleep(600)\n"


def started(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, str(folder), str(10**9), "never"],
        stderr=subprocess.DEVNULL,
    )


def pids_of(folder: Path, trials: int) -> list[int]:
    """The processes of the first trials, once they are there."""
    found = until(lambda: (f := sorted(folder.glob("home/*/trials/*/1/pids")))[trials - 1 :] and f)
    return [int(pid) for file in found for pid in file.read_text().split()]


def gone(pids: list[int]) -> bool:
    def dead(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return all(map(dead, pids))


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_outlives_its_controller(tmp_path: Path, number: int, warm: bool) -> None:
    folder = prepared(tmp_path / "x", script=FOREVER, warm=warm)
    process = started(folder)
    pids = pids_of(folder, 2)
    process.send_signal(number)
    process.wait(60)
    until(lambda: gone(pids))
    home = folder / "home"
    until(lambda: not left_of(find(home, None)))
    assert shoal.open(home=home).state == ("killed" if number == signal.SIGKILL else "stopped")


def left_of(folder: Folder) -> list[int]:
    """Processes that an experiment has started and that are still there."""
    return [
        process.pid
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get(EXPERIMENT) == str(folder.path)
    ]


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_what_a_trial_leaves_behind_is_ended_with_it(tmp_path: Path, warm: bool) -> None:
    result = shoal.run(experiment(tmp_path, HANG + TOY, population=2, steps=1, warm=warm))
    pids = [
        int(pid)
        for file in result.folder.path.glob("trials/*/1/pids")
        for pid in file.read_text().split()
    ]
    assert len(pids) == 6
    assert gone(pids)
    assert result.state == "done"
    assert sum("behind: they were ended" in line for line in log_of(result)) == 2


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_what_ends_with_a_trial_was_not_left_behind(tmp_path: Path, warm: bool) -> None:
    pool = (
        "import multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        assert pool.map(abs, [-1]) == [1]\n"
    )
    indented = "".join(f"    {line}\n" for line in TOY.splitlines())
    result = shoal.run(experiment(tmp_path, pool + indented, population=2, steps=1, warm=warm))
    assert result.state == "done"
    assert not [line for line in log_of(result) if "behind" in line]


def test_a_fork_server_that_dies_costs_nothing_but_time(tmp_path: Path, unbroken: str) -> None:
    kill_server = (
        "import os, signal\n"
        "flag = os.path.join(os.environ['NNI_CODE_DIR'], 'killed')\n"
        "if os.environ['NNI_TRIAL_SEQ_ID'] == '5' and not os.path.exists(flag):\n"
        "    open(flag, 'w').close()\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    signal.pause()\n"
    )
    result = shoal.run(experiment(tmp_path, kill_server + TOY))
    assert (tmp_path / "killed").exists()
    assert json.dumps(result.export(), indent=1) == unbroken


def test_a_second_controller_is_refused(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "x", script=FOREVER)
    process = started(folder)
    pids_of(folder, 2)
    with pytest.raises(
        shoal.ExperimentError, match=rf"process {process.pid} on {os.uname().nodename}"
    ):
        shoal.resume(home=folder / "home")
    process.kill()
    process.wait()


def test_a_fresh_run_never_loads_what_an_earlier_one_left(tmp_path: Path) -> None:
    config = experiment(tmp_path, checkpoints=tmp_path / "checkpoints")
    first = shoal.run(config)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(shoal.ExperimentError, match=f"those of experiment {first.id}"):
        shoal.run(config)
    assert sorted(tmp_path.rglob("*")) == before, "it leaves nothing half made"


def test_checkpoints_of_nobody_known_are_refused_as_well(tmp_path: Path) -> None:
    stale = tmp_path / "checkpoints" / "3" / "0" / "model.pth"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    with pytest.raises(shoal.ExperimentError, match="of an earlier run"):
        shoal.run(experiment(tmp_path, checkpoints=tmp_path / "checkpoints"))
    assert stale.read_text() == "old"
