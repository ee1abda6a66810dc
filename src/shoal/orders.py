"""What a running experiment is told: files in its folder, which whoever runs it takes.

It works wherever the folder can be written to, from another machine, too.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from shoal.home import ExperimentError, Folder, trouble

# to go on after a pause; to pause; to end once what runs has ended; to end at once
Wanted = Literal["go on", "pause", "stop", "stop now"]


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants of a running experiment."""

    wanted: Wanted | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)  # of its limits, see `config.LIMITS`


def put(folder: Folder, order: Order, whom: tuple[int, str]) -> Path:
    """Leave `order` for the process `whom`, (pid, host); the file, which is gone once it was taken.

    Raises:
        ExperimentError: nothing can be left there.
    """
    place = folder.path / "orders"
    name = f"{time.time_ns():020d}-{os.getpid()}"
    written, file = place / f".{name}", place / f"{name}.json"
    try:
        place.mkdir(exist_ok=True)
        message = {"to": whom, "wanted": order.wanted, "changes": dict(order.changes)}
        written.write_text(json.dumps(message))
        written.rename(file)
    except OSError as error:
        raise ExperimentError(f"experiment {folder.id} cannot be told: {trouble(error)}") from error
    return file


def taken(folder: Folder) -> Iterator[Order]:
    """What was left for this process, in order; each is gone once it was seen to."""
    us = [os.getpid(), os.uname().nodename]
    for file in waiting(folder):  # it may be whatever somebody has put there
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            told = json.loads(file.read_bytes())
            wanted, changes = told["wanted"], dict(told["changes"])
            known = wanted is None or wanted in get_args(Wanted)
            if known and told["to"] == us:  # and nobody who has ended since
                yield Order(wanted, changes)
        with suppress(OSError):
            file.unlink()


def waiting(folder: Folder) -> list[Path]:
    """The orders that nobody has taken yet."""
    try:
        files = list((folder.path / "orders").iterdir())
    except OSError:  # nobody has ordered anything
        return []
    return sorted(file for file in files if file.suffix == ".json" and file.name[0] != ".")
