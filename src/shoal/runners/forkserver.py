"""A fork server as the controller sees it: a process that is spoken to, and may fall silent.

The other side, and what is said between the two, is in `warm/server.py`.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.runners.launch import Launch

HOOK = Path(__file__).parent / "warm" / "hook"
HELLO_S = 60.0  # from the start of a server to its first word
LOAD_S = 600.0  # for all that it loads
SILENT_S = 10.0  # without an answer, after which it is not waited for any more
QUIET_S = 2.0  # after which it is asked whether it is there
SEND_S = 5.0  # for a message to go into the socket
END_S = 2.0  # for a server to end what it has started, and itself


@dataclass(frozen=True, slots=True)
class Imports:
    """What a server is to load before it serves.

    Attributes:
        load: the modules, in order.
        more: libraries that the user wants shared besides the well-known ones.
        folder: the script's, which is first on the path.
        environ: what the script sets before it imports them; None where it removes a variable.
    """

    load: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    folder: Path = Path()
    environ: Mapping[str, str | None] = field(default_factory=dict)


class ForkServer:
    """One fork server.

    Args:
        launch: which Python, and what it is called with.
        imports: what it is to load.
        env: its environment.
        directory: its working directory.
        log: the file that its output goes to.

    Attributes:
        ready: whether it serves.
        loading: what it is importing, or was when it died.
    """

    def __init__(
        self, launch: Launch, imports: Imports, env: Mapping[str, str], directory: Path, log: Path
    ) -> None:
        self.imports, self.ready, self.loading = imports, False, ""
        self._buffer = b""
        self._began = self._heard = time.monotonic()
        self._asked: float | None = None
        self._spoke = False
        self._link, theirs = socket.socketpair()
        self._link.settimeout(SEND_S)
        path = os.pathsep.join([str(HOOK), *filter(None, [env.get("PYTHONPATH")])])
        with theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                list(launch.argv),
                executable=launch.program,
                cwd=directory,
                env={**env, "PYTHONPATH": path, "SHOAL_WARM_LINK": str(theirs.fileno())},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C is for the controller alone
            )
        self.send(
            load=list(imports.load),
            more=list(imports.more),
            folder=str(imports.folder),
            environ=dict(imports.environ),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """For a selector: it is readable when `receive` has something."""
        return self._link.fileno()

    def send(self, **message: Any) -> None:
        """Tell it something. One that does not take it in is found out by `silent`."""
        with suppress(OSError):
            self._link.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """What it has said; None when it is gone."""
        try:
            data = self._link.recv(1 << 20)
        except (ConnectionError, TimeoutError):
            data = b""
        if not data:
            return None
        self._heard, self._asked, self._spoke = time.monotonic(), None, True
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        messages: list[dict[str, Any]] = [json.loads(line) for line in lines]
        for message in messages:
            self.loading = message.get("loading", self.loading)
            self.ready = self.ready or "loaded" in message
        return messages

    def silent(self) -> str | None:
        """Why it is not to be waited for any longer, if so; asks it now and then.

        To be called after `receive`: we may have been stopped ourselves.
        """
        now = time.monotonic()
        if not self.ready:
            if not self._spoke and now > self._began + HELLO_S:
                return f"it did not begin within {HELLO_S:g} s"
            if now > self._began + LOAD_S:
                return f"it was importing {self.loading} for {LOAD_S:g} s"
            return None
        if self._asked is not None:
            late = now > self._asked + SILENT_S
            return f"it has not answered for {SILENT_S:g} s" if late else None
        if now > self._heard + QUIET_S:
            self._asked = now
            self.send(ping=0)
        return None

    def kill(self) -> None:
        """End it at once; its keepers end what it has started."""
        self._process.kill()

    def close(self) -> int:
        """Its exit code: it ends what still runs, and then itself, or is ended after a while."""
        self._link.close()
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
