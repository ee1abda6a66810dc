"""A worker's process: `python -m shoal.runners.worker SOCKET`.

It connects to the controller, says who it is, is told what to train, and does as it is told until
the controller is gone.
"""

import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from json import dumps, loads  # as they are now: what is trained may put others in their place
from pathlib import Path
from threading import Lock
from typing import Any

from shoal.runners.worker.output import Output
from shoal.runners.worker.worker import Worker, explained
from shoal.trainable import made, problem


def main() -> int:
    """The exit code of the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the controller's
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(sys.argv[1])
    lines = link.makefile("rb")

    ours, speaking = os.getpid(), Lock()

    def tell(message: Mapping[str, Any]) -> None:
        if os.getpid() != ours:  # a process that was forked off: it is no worker
            return
        if "done" in message or "failed" in message:  # whoever hears it may look at what it printed
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):  # a full disk
                    stream.flush()
        data = dumps(message).encode() + b"\n"
        with speaking:  # a thread of a trial may report at any time
            link.sendall(data)

    with suppress(BrokenPipeError, ConnectionResetError):
        tell({"worker": os.environ["SHOAL_WORKER"], "pid": os.getpid()})
        order = loads(lines.readline() or "null")
        if order is None:
            return 0
        sys.argv = order["argv"]
        sys.path[:] = order["path"]
        try:
            worker = Worker(loaded(order["work"]), tell)
        except BaseException as error:  # noqa: BLE001 (the user's imports)
            tell({"unusable": explained(error)})
            return 1
        output = Output()
        tell({"ready": os.getpid(), "holds states": worker.holds_states})
        for line in lines:
            message = loads(line)
            output.turn_to(Path(message["folder"]) if "folder" in message else None)
            worker.do(message)
            output.turn_to(None)
    return 0


def loaded(work: Mapping[str, str]) -> Any:
    """What is to be trained: the `name` in a `module`, or what was pickled to a `file`."""
    if "file" in work:
        import cloudpickle  # noqa: PLC0415 (only where it is needed)

        return made(cloudpickle.loads(Path(work["file"]).read_bytes()))
    found: Any = import_module(work["module"])
    for part in work["name"].split("."):
        found = getattr(found, part)
    if (why := problem(found)) is not None:
        raise TypeError(why)
    return made(found)


if __name__ == "__main__":
    sys.exit(main())
