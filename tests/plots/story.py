"""Journals of a few records, for pictures that can be worked out by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.core.records import Record, Seen
from shoal.history import History, Reader
from shoal.stores.sqlite import SqliteStore
from tests.made import put

SPACE = {"lr": {"float": [1e-4, 1.0], "log": True}, "kind": {"choice": ["a", "b"]}}


def history_of(
    path: Path,
    records: Sequence[Record | Seen],
    *,
    population: int = 2,
    higher: bool = True,
    space: Any = SPACE,
) -> History:
    """What is read of a journal of `records`, one a second, from second 100 on."""
    store = SqliteStore.create(path / "journal.db", {})
    for second, record in enumerate(records):
        put(store, record, 100.0 + second)
    store.commit()
    reader = Reader(population, "accuracy", higher, space)
    reader.read(store)
    store.close()
    return reader.history()


def trace(figure: Any, name: str, nth: int = 0) -> Any:
    """The `nth` part of a picture with that name."""
    return [part for part in figure.data if part.name == name][nth]


def plain(values: NDArray[Any]) -> list[Any]:
    """Values as a test writes them: None for a gap."""
    return [None if np.isnan(value) else value for value in np.asarray(values, float).tolist()]
