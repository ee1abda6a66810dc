"""Trials of the real fork server, spoken to by hand; and the same command as a shell runs it."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.runners.forkserver import ForkServer, Imports
from shoal.runners.launch import NNI_PATH, Launch, as_a_shell_has_it


@dataclass(frozen=True)
class Ended:
    """How a trial ended, and what it left."""

    code: int
    out: str
    err: str
    seconds: float = 0.0
    left: int = 0


class Held:
    """A fork server for `command` in `folder`."""

    def __init__(
        self, folder: Path, command: str, *load: str, more: tuple[str, ...] = (),
        environ: Mapping[str, str | None] = {}, **env: str,
    ) -> None:  # fmt: skip
        self.folder, self._count = folder, 0
        self.env = environment(env)
        self.launch = Launch.of(command, folder, self.env)
        assert self.launch.command is None, "it is not held"
        self.env = as_a_shell_has_it(self.env, self.launch, folder)
        imports = Imports(load, more, self.launch.folder, environ)
        log = folder / "server.log"
        self.server = ForkServer(self.launch, imports, self.env, folder, log)
        self.said: list[dict[str, Any]] = []

    def hear(self, *words: str, seconds: float = 60.0) -> dict[str, Any]:
        """The next message with one of `words`, which must come in time."""
        until = time.monotonic() + seconds
        while True:
            for index, message in enumerate(self.said):
                if any(word in message for word in words):
                    return self.said.pop(index)
            assert select.select([self.server], [], [], until - time.monotonic())[0], words
            messages = self.server.receive()
            assert messages is not None, f"the server ended: {self.log()}"
            self.said += messages

    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def start(self, **env: str) -> Path:
        """Begin a trial; the folder that its output goes to."""
        if not self.server.ready:
            self.hear("loaded")
        self._count += 1
        out = self.folder / f"out{self._count}"
        out.mkdir()
        self.server.send(
            start=out.name, command=None, argv=[self.launch.program, *self.launch.argv],
            cwd=str(self.folder), env=env, note=str(out / "imports.json"),
            out=str(out / "stdout"), err=str(out / "stderr"),
        )  # fmt: skip
        return out

    def run(self, **env: str) -> Ended:
        """A trial from beginning to end."""
        out, began = self.start(**env), time.monotonic()
        ended = self.hear("ended", "lost")
        code = os.waitstatus_to_exitcode(ended["status"])
        out_, err = (out / "stdout").read_text(), (out / "stderr").read_text()
        return Ended(code, out_, err, time.monotonic() - began, ended["left"])

    def close(self) -> None:
        assert self.server.close() == 0, self.log()


def by_a_shell(folder: Path, command: str, **env: str) -> Ended:
    """What `command` does as a process of its own."""
    done = subprocess.run(
        ["/bin/bash", "-c", command], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
        env=environment(env), start_new_session=True, check=False, text=True, timeout=120,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def environment(env: Mapping[str, str]) -> dict[str, str]:
    path = [str(NNI_PATH), *([env["PYTHONPATH"]] if "PYTHONPATH" in env else [])]
    here = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return here | dict(env) | {"PYTHONPATH": os.pathsep.join(path)}


PYTHON = f"{sys.executable} script.py"
