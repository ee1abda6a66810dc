"""The real command in real processes, and small experiments for it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

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


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "shoal.cli.main", *map(str, arguments)]
