"""Where a trial's prints go: to files in its own folder, made once there is something to say.

What C code writes is not seen here: it goes where the worker's own output goes.
"""

import sys
from contextlib import suppress
from io import TextIOBase
from pathlib import Path
from typing import TextIO


class Stream(TextIOBase):
    """In the place of `sys.stdout` or `sys.stderr`, whoever has got hold of it and for how long."""

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, otherwise: TextIO) -> None:
        self._otherwise = otherwise  # between trials
        self._path: Path | None = None
        self._file: TextIO | None = None

    def turn_to(self, path: Path | None) -> None:
        """Let what is written from now on go to the file `path`."""
        if self._file is not None:
            with suppress(OSError):  # a full disk
                self._file.close()
        self._path, self._file = path, None

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Write `text`; how many characters that is."""
        if self._path is None:
            return self._otherwise.write(text)
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding=self.encoding, errors=self.errors)
        return self._file.write(text)

    def flush(self) -> None:
        (self._file or self._otherwise).flush()

    def fileno(self) -> int:
        """The file's, or what the worker itself prints to."""
        return (self._file or self._otherwise).fileno()


class Output:
    """Python's output, of one trial after the other."""

    def __init__(self) -> None:
        self._streams = {"stdout": Stream(sys.stdout), "stderr": Stream(sys.stderr)}
        sys.stdout, sys.stderr = self._streams.values()

    def turn_to(self, folder: Path | None) -> None:
        """Let what is printed from now on go to `stdout` and `stderr` in `folder`."""
        for name, stream in self._streams.items():
            stream.turn_to(None if folder is None else folder / name)
