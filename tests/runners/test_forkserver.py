"""A script in a fork of the server does what it does as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from shoal.runners import forkserver
from tests.lab import until


class Server:
    """The real fork server, spoken to by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._link, theirs = socket.socketpair()
        self._link.settimeout(60)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shoal.runners.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=folder,
                start_new_session=True,
            )
        self._lines = self._link.makefile("r")
        self._count = 0

    def send(self, **message: Any) -> None:
        self._link.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._lines.readline())
        return message

    def preload(self, *names: str, script: str | None = None) -> dict[str, Any]:
        folder = str(self.folder)
        self.send(cwd=folder, folder=folder, script=script, preload=names or None, skip={})
        return self.receive()

    def start(self, argv: list[str], *, module: str | None = None, **env: str) -> Path:
        """Begin a trial; the folder that its output goes to."""
        self._count += 1
        out = self.folder / f"out{self._count}"
        out.mkdir()
        self.send(
            start=out.name, command=None, argv=argv, module=module, unbuffered=False,
            cwd=str(self.folder), env={**os.environ, **env},
            out=str(out / "stdout"), err=str(out / "stderr"),
        )  # fmt: skip
        assert self.receive()["started"] == out.name
        return out

    def run(self, argv: list[str], *, module: str | None = None) -> tuple[int, str, str]:
        out = self.start(argv, module=module)
        ended = self.receive()
        assert ended["ended"] == out.name
        code = os.waitstatus_to_exitcode(ended["status"])
        return code, (out / "stdout").read_text(), (out / "stderr").read_text()

    def close(self) -> int:
        self._lines.close()
        self._link.close()
        return self.process.wait(30)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    assert server.close() == 0


SCRIPTS = {
    "prints": "print('hello'); import sys; print('oh', file=sys.stderr)",
    "argv": "import sys; print(sys.argv, sys.path[0], __name__, __file__, __spec__)",
    "exit code": "import sys; sys.exit(41)",
    "exit code beyond a byte": "import sys; sys.exit(259)",
    "exit with text": "import sys; sys.exit('no data')",
    "exit with nothing": "import sys; sys.exit()",
    "traceback": "def f():\n    raise ValueError('deep')\n\nf()",
    "chained traceback": "try:\n  1 / 0\nexcept ZeroDivisionError as e:\n  raise KeyError from e",
    "syntax error": "print('never')\ndef broken(:",
    "interrupt": "raise KeyboardInterrupt",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "an open file is flushed": "f = open('made', 'w'); f.write('whole'); print('x', end='')",
    "an open file that a function holds": (
        "def f(x=open('made', 'w')): pass\nf.__defaults__[0].write('whole')"
    ),
    "a finaliser": "class A:\n    def __del__(self): print('gone', flush=True)\na = A()",
    "exit functions": "import atexit; atexit.register(print, 'one'); atexit.register(print, 'two')",
    "a thread is waited for": (
        "import threading\ne = threading.Event()\n"
        "threading.Thread(target=lambda: (e.wait(), print('thread'))).start()\n"
        "threading.Timer(0.1, e.set).start()"
    ),
    "its own module": "import mine; print(mine.VALUE, mine.__file__)",
    "pickling what it defines": (
        "import pickle\nclass A: x = 3\nprint(pickle.loads(pickle.dumps(A())).x, A.__module__)"
    ),
    "signals are as usual": (
        "import signal\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler,"
        " signal.getsignal(signal.SIGCHLD), signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    ),
    "pool by fork": (
        "import multiprocessing as mp\n"
        "if __name__ == '__main__':\n"
        "    with mp.get_context('fork').Pool(2) as pool: print(pool.map(abs, [-1, -2]))"
    ),
    "pool by spawn": (
        "import multiprocessing as mp\ndef double(x): return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    with mp.get_context('spawn').Pool(1) as pool: print(pool.map(double, [1, 2]))"
    ),
    "a process of its own": "import os; print(os.getpid() == os.getpgrp() == os.getsid(0))",
    "stdin is empty": "import sys; print(repr(sys.stdin.read()))",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_as_if_started_by_hand(server: Server, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.py").write_text("VALUE = 7\n")
    (tmp_path / "script.py").write_text(SCRIPTS[name] + "\n")
    by_hand = subprocess.run(
        [sys.executable, "script.py", "--lr", "0.1"], cwd=tmp_path, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, start_new_session=True, check=False,
    )  # fmt: skip
    made = (tmp_path / "made").read_text() if (tmp_path / "made").exists() else None
    (tmp_path / "made").unlink(missing_ok=True)
    server.preload("multiprocessing.pool", "pickle", "threading", "random")
    code, out, err = server.run(["script.py", "--lr", "0.1"])
    assert (code, out, err) == (by_hand.returncode, by_hand.stdout, by_hand.stderr)
    assert ((tmp_path / "made").read_text() if made else None) == made


def test_a_module_too(server: Server, tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "go.py").write_text("import sys; print(sys.argv, __name__, sys.path[0])")
    by_hand = subprocess.run(
        [sys.executable, "-m", "pkg.go", "a"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert server.run(["-m", "a"], module="pkg.go") == (0, by_hand.stdout, "")


def test_forks_do_not_draw_the_same_numbers(server: Server, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import random, numpy as np; print(random.random(), np.random.rand())"
    )
    assert server.preload(script=str(tmp_path / "script.py"))["ready"] == ["random", "numpy"]
    draws = [server.run(["script.py"])[1].split() for _ in range(3)]
    assert len({a for a, _ in draws}) == len({b for _, b in draws}) == 3


def test_what_was_imported_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("import os; print('imported by', os.getpid(), flush=True)")
    (tmp_path / "script.py").write_text("import heavy, sys; print('heavy' in sys.modules)")
    assert server.preload("heavy")["ready"] == ["heavy"]
    assert server.run(["script.py"])[:2] == (0, "True\n"), "it was not imported again"


THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
DEVICE = "import os\nfd = os.open({device!r}, os.O_RDONLY)\n"


def test_an_import_that_starts_threads_is_left_to_the_trial(server: Server, tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(THREAD)
    (tmp_path / "outer.py").write_text("import threaded\n")
    (tmp_path / "script.py").write_text(
        "import sys; before = 'threaded' in sys.modules\n"
        "import json, outer, threading; print(before, threading.active_count())"
    )
    told = server.preload("json", "outer", "csv")
    assert told == {"ready": ["json", "csv"], "left": {"outer": "it starts threads"}}
    assert server.run(["script.py"])[:2] == (0, "False 2\n")


def test_threads_that_survive_a_fork_are_no_reason(server: Server) -> None:
    # numpy's BLAS starts a pool on import, ends it before a fork and starts it anew when needed
    assert server.preload("numpy", "sklearn.linear_model")["left"] == {}


def test_an_import_that_fails_is_left_to_the_trial(server: Server, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit('not today')\n")
    told = server.preload("broken", "no_such_module", "json")
    assert told["ready"] == ["json"]
    assert told["left"] == {
        "broken": "importing it failed: SystemExit: not today",
        "no_such_module": "importing it failed: ModuleNotFoundError: No module named "
        "'no_such_module'",
    }


def test_an_import_that_opens_a_gpu_is_left_to_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "dev" / "nvidia0"
    device.parent.mkdir()
    device.touch()
    monkeypatch.setattr(forkserver, "GPU_DEVICES", (str(device.parent / "nvidia"),))
    assert forkserver.unsafe() != f"it opens {device}"
    with device.open():
        assert forkserver.is_gpu(str(device))
        assert any(map(forkserver.is_gpu, forkserver.open_files()))
    assert not any(map(forkserver.is_gpu, forkserver.open_files()))


def test_the_devices_it_looks_for() -> None:
    assert forkserver.is_gpu("/dev/nvidia0")
    assert forkserver.is_gpu("/dev/nvidiactl")
    assert forkserver.is_gpu("/dev/kfd")
    assert not forkserver.is_gpu("/dev/null")


def test_a_signal_reaches_the_whole_session(server: Server, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\nos.mkfifo('ready'); open('ready', 'w').close()\n"
        "time.sleep(600)"
    )
    out = server.start(["script.py"])
    while not (tmp_path / "ready").exists():
        assert server.process.poll() is None
    (tmp_path / "ready").open().close()
    child = int((out / "stdout").read_text())
    server.send(signal=out.name, number=int(signal.SIGTERM))
    assert os.waitstatus_to_exitcode(server.receive()["status"]) == -signal.SIGTERM
    until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie")


def test_trials_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    server = Server(tmp_path)
    (tmp_path / "script.py").write_text(
        "import os, time\nos.mkfifo('ready'); open('ready', 'w').write(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    server.start(["script.py"])
    while not (tmp_path / "ready").exists():
        assert server.process.poll() is None
    pid = int((tmp_path / "ready").read_text())
    descriptor = os.pidfd_open(pid)
    server.process.kill()
    import select  # noqa: PLC0415

    assert select.select([descriptor], [], [], 30)[0], "it is still there"
    os.close(descriptor)
    server.close()
