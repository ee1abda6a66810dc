"""Where the command `shoal` begins: Ctrl-C ends it silently from its first moment on."""

import os
import signal
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line, and end the process with its exit code.

    An interrupt ends it at once, but where a command has something to leave in order: see
    `interruptible`. A KeyboardInterrupt in the middle of an import would be told as an error.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored
        signal.signal(signal.SIGINT, end)
    from shoal.cli.main import main as command_line  # noqa: PLC0415 (takes long)

    command_line()


def end(number: int, frame: FrameType | None) -> None:
    """Take an interrupt."""
    del number, frame
    os._exit(INTERRUPTED)


def unread() -> None:
    """Let what is still printed go nowhere: the reader of stdout or stderr has gone."""
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


class interruptible:  # noqa: N801 (reads like a function)
    """While entered, an interrupt is a KeyboardInterrupt."""

    def __enter__(self) -> None:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is end:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        if self._before is end:
            signal.signal(signal.SIGINT, end)
