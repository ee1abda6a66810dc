"""The real command in real processes, and small experiments for it."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.home import ExperimentError

PATIENCE_S = 60.0

# Goes to 3 from where it is, the faster the larger `lr`. Where $GATE names a file, trials of later
# steps wait until it is there.
TRAIN = """\
import os, pathlib, sys, time
import nni

p = nni.get_next_parameter()
load, save = (pathlib.Path(p[key]) for key in ("load_checkpoint_dir", "save_checkpoint_dir"))
gate = os.environ.get("GATE")
while gate and load != save and not os.path.exists(gate):
    time.sleep(0.01)
x = float((load / "x").read_text()) if (load / "x").is_file() else 0.0
x += p["lr"] * (3.0 - x)
nni.report_intermediate_result(x)
save.mkdir(parents=True, exist_ok=True)
(save / "x").write_text(repr(x))
print("x is", x)
print("to stderr", file=sys.stderr)
nni.report_final_result(-abs(3.0 - x))
"""

CONFIG: dict[str, Any] = {
    "name": "toy",
    "command": "python3 train.py",
    "space": {
        "lr": {"float": [0.001, 0.5], "log": True},
        "batch": {"choice": [16, 32]},
    },
    "population": 4,
    "steps": 3,
    "workers": 2,
}


def write(folder: Path, script: str = TRAIN, **changes: Any) -> Path:
    """The file of an experiment in `folder`: the toy, with these changes; None takes a key out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(script)
    file = folder / "config.json"
    config = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    file.write_text(json.dumps(config))
    return file


def eventually(what: str, happens: Callable[[], Any]) -> Any:
    """What `happens` returns as soon as that is true; fails if it never is."""
    until = time.monotonic() + PATIENCE_S
    while not (value := happens()):
        assert time.monotonic() < until, f"in vain waited for: {what}"
        time.sleep(0.01)
    return value


@dataclass(frozen=True)
class Shell:
    """Runs `shoal` with experiments in a folder of its own."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        ours = {"SHOAL_HOME": str(self.home), "COLUMNS": "100"}
        return {k: v for k, v in os.environ.items() if k not in {"GATE", "SHOAL_DEBUG"}} | ours

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(*arguments),
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in out
        assert 'File "' not in err or "train.py" in err, "a traceback of ours"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *arguments: object) -> Any:
        """What a command answers with `--json`, which has to be strict."""
        ended = self(*arguments, "--json")
        assert (ended.returncode, ended.stderr) == (0, "")
        return json.loads(ended.stdout, parse_constant=pytest.fail)

    def nothing_there(self) -> bool:
        return not self.home.exists() or not any(self.home.iterdir())


def waiting(shell: Shell) -> Any:
    """The status of the newest experiment, once two trials of its step 1 wait for their gate."""

    def wait() -> bool:
        with suppress(ExperimentError):  # it is being made
            rows = shoal.open(home=shell.home).trials()
            return sum(row.state == "running" and row.step == 1 for row in rows) == 2
        return False

    eventually("step 1 to begin", wait)  # looked at from here: each command costs a process
    return shell.json("status")


@contextmanager
def running(shell: Shell, folder: Path, gate: Path) -> Iterator[Any]:
    """The status of a run that waits for `gate` in its step 1; it ends with this at the latest."""
    process = shell.start("run", write(folder), GATE=str(gate))
    yield waiting(shell)
    gate.touch()
    process.kill()
    process.communicate()


# The terminal becomes that of its session: not by a fork of the tests' process, which has threads.
ON_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """`shoal` on a terminal of 100 columns and 30 lines."""

    def __init__(self, shell: Shell, *arguments: object, **environment: str) -> None:
        self._file, theirs = pty.openpty()
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        kind = {"TERM": "xterm-256color", "LINES": "30"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *command(*arguments)],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env=shell.environment | kind | environment,
        )  # fmt: skip
        os.close(theirs)
        self.raw = ""

    def until(self, shown: str) -> None:
        """Read on until `shown` is on the screen; everything, if it never is."""
        while shown not in self.text:
            try:
                data = os.read(self._file, 65536)
            except OSError:  # it is closed at the other end
                break
            self.raw += data.decode()
        assert shown in self.text

    @property
    def text(self) -> str:
        """What was written, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.raw)

    def press(self, key: bytes) -> None:
        os.write(self._file, key)

    def end(self) -> int:
        """Read to the end: the exit code."""
        with pytest.raises(AssertionError):
            self.until("\0")
        os.close(self._file)
        return self._process.wait()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "shoal.cli.main", *map(str, arguments)]
