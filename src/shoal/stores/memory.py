"""A store that forgets when the process ends: for tests, and for tuning by hand."""

import time
from collections.abc import Iterator

from shoal.core.records import Measured, Record
from shoal.stores.base import Entry


class MemoryStore:
    """A journal in a list."""

    def __init__(self) -> None:
        self.measured: list[Measured] = []
        self._entries: list[Entry] = []
        self._pending: list[Entry] = []

    def append(self, record: Record | Measured) -> None:
        if isinstance(record, Measured):
            self.measured.append(record)
        else:
            self._pending.append(Entry(time.time(), record))

    def commit(self) -> None:
        self._entries += self._pending
        self._pending.clear()

    def read(self) -> Iterator[Entry]:
        return iter(self._entries)
