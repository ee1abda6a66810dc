"""Whatever happens to the processes between controller and trial, nobody waits for ever."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import shoal
from shoal.runners import forkserver, processes
from tests.lab import TOY, experiment, log_of, until

ONCE = """
import os, signal, subprocess, sys, time
def once(name):
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
def server():
    with open(f"/proc/{os.getppid()}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
"""
warm_and_cold = pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])


@warm_and_cold
def test_a_trial_that_stops_its_keeper(tmp_path: Path, warm: bool) -> None:
    attack = ONCE + "if once('did'): os.kill(os.getppid(), signal.SIGSTOP)\n"
    result = shoal.run(experiment(tmp_path, attack + TOY, warm=warm))
    assert result.state == "done"
    assert result.progress.finished == 12


@warm_and_cold
def test_a_trial_that_stops_its_server(
    tmp_path: Path, warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forkserver, "SILENT_S", 0.5)
    monkeypatch.setattr(forkserver, "QUIET_S", 0.1)
    attack = ONCE + "if once('did'): os.kill(server(), signal.SIGSTOP); time.sleep(600)\n"
    result = shoal.run(experiment(tmp_path, attack + TOY, warm=warm))
    assert result.state == "done"
    assert result.progress.finished == 12
    assert any("has not answered for 0.5 s" in line for line in log_of(result))
    assert any(row.attempt > 1 for row in result.trials()), "its trials were lost, not failed"


@warm_and_cold
@pytest.mark.parametrize("who", ["os.getppid()", "server()"], ids=["keeper", "server"])
def test_a_trial_that_kills_who_looks_after_it(tmp_path: Path, warm: bool, who: str) -> None:
    attack = ONCE + f"if once('did'): os.kill({who}, signal.SIGKILL); time.sleep(600)\n"
    result = shoal.run(experiment(tmp_path, attack + TOY, warm=warm))
    assert result.state == "done"
    assert result.progress.finished == 12


def test_a_trial_that_kills_its_server_each_time_fails(tmp_path: Path) -> None:
    attack = (
        ONCE
        + "if os.environ['NNI_TRIAL_SEQ_ID'] == '1':\n"
        + "    os.kill(server(), signal.SIGKILL); time.sleep(600)\n"
    )
    result = shoal.run(experiment(tmp_path, attack + TOY, workers=1, retries=0))
    assert result.state == "done"
    error = result.trials()[1].error
    assert error is not None
    assert "the fork server was ended" in error


def test_an_import_that_takes_for_ever_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "WAIT_S", 0.5)
    monkeypatch.setattr(forkserver, "LOAD_S", 2.0)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "stuck.py").write_text("import time\ntime.sleep(600)\n")
    config = experiment(tmp_path, "import time; time.sleep(0.4)\n" + TOY, preload=["stuck"])
    result = shoal.run(config)
    assert result.state == "done"
    assert any("begin without shared imports: stuck is slow" in line for line in log_of(result))
    assert any("stuck is left to each trial" in line for line in log_of(result))


SERVICE = (
    ONCE
    + """
def daemon(seconds, **env):
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        command = [sys.executable, "-c", f"import time; time.sleep({seconds})"]
        service = subprocess.Popen(command, start_new_session=True, env=env)
        os.write(write, str(service.pid).encode())
        os._exit(0)
    os.wait()
    return int(os.read(read, 20))
"""
)


@warm_and_cold
def test_a_process_belongs_to_the_trial_that_started_it(tmp_path: Path, warm: bool) -> None:
    trial = (
        SERVICE
        + """
if os.environ["NNI_TRIAL_SEQ_ID"] == "0":
    pid = daemon(600)
    while not os.path.exists("ended"):
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(pid, 0)
    open("service", "w").write(str(pid))
else:
    import atexit; atexit.register(lambda: open("ended", "w").close())
"""
    )
    result = shoal.run(experiment(tmp_path, trial + TOY, population=2, steps=1, warm=warm))
    assert [row.state for row in result.trials()] == ["finished"] * 2
    left = [line for line in log_of(result) if "left" in line]
    assert left == ["trial 0 left 1 processes behind: they were ended"]
    assert not psutil.pid_exists(int((tmp_path / "service").read_text()))


@warm_and_cold
@pytest.mark.parametrize("who", ["os.getppid()", "server()"], ids=["keeper", "server"])
def test_nobody_is_left_when_who_looks_after_it_is_killed(
    tmp_path: Path, warm: bool, who: str
) -> None:
    attack = (
        SERVICE
        + f"""
if once("did"):
    open("service", "w").write(str(daemon(600, CLEAN="1")))
    os.kill({who}, signal.SIGKILL)
    time.sleep(600)
"""
    )
    result = shoal.run(experiment(tmp_path, attack + TOY, warm=warm))
    assert result.state == "done"
    pid = int((tmp_path / "service").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


HANG = SERVICE + (
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "open('service', 'w').write(str(daemon(600, CLEAN='1')))\n"
    "os.rename('service', 'pids')\n"
    "if 'stop': os.kill({who}, signal.SIGSTOP)\n"
    "time.sleep(600)\n"
)


@pytest.mark.parametrize("who", ["server()", "os.getpid()"], ids=["server", "trial"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_controller_ends_whatever_its_children_do(
    tmp_path: Path, who: str, number: signal.Signals
) -> None:
    (tmp_path / "trial.py").write_text(HANG.replace("{who}", who))
    (tmp_path / "c.yml").write_text(
        "command: python3 trial.py\nspace: {x: {float: [0, 1]}}\npopulation: 1\nsteps: 1\n"
        f"home: {tmp_path / 'home'}\nexploit: {{truncation: 0.5}}\n"
    )
    command = [str(Path(sys.executable).with_name("shoal")), "run", str(tmp_path / "c.yml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        until((tmp_path / "pids").exists)
        family = psutil.Process(run.pid).children(recursive=True)
        family.append(psutil.Process(int((tmp_path / "pids").read_text())))
        began = time.monotonic()
        run.send_signal(number)
        run.wait(30)
        assert time.monotonic() - began < 10
    until(lambda: not any(alive(process) for process in family))


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != "zombie"
    except psutil.NoSuchProcess:
        return False


assert os.name == "posix"


RACE = """
import json, os, socket
from shoal.runners.warm import server
ours, theirs = socket.socketpair()
it = server.Server(theirs.fileno())
keeper = os.fork()
if keeper == 0:
    os._exit(0)
it._keepers[keeper] = "0/1"
os.waitid(os.P_PID, keeper, os.WEXITED | os.WNOWAIT)
reap = os.waitpid
def waitpid(pid, options):
    told = json.dumps({"ended": "0/1", "status": 0, "left": 0}).encode() + b"\\n"
    ended = reap(pid, options)
    os.write(it._tell, told)  # in the last moment
    return ended
os.waitpid = waitpid
it._reap()
print(ours.recv(4096).decode())
"""


def test_a_keeper_that_has_told_and_ended_was_not_killed() -> None:
    told = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, check=True)
    assert '"ended": "0/1"' in told.stdout
    assert "lost" not in told.stdout
