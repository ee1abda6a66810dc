"""A store that forgets when the process ends: for tests, and for tuning by hand."""

import time
from collections.abc import Iterator

from shoal.core.records import Failed, Finished, Record, Seen, Trial
from shoal.stores.base import Entry


class MemoryStore:
    """A journal in a list."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._entries: list[Entry] = []
        self._pending: list[Entry] = []

    def append(self, record: Record | Seen) -> None:
        if isinstance(record, Trial | Finished | Failed):
            self._pending.append(Entry(time.time(), record))
        else:
            self.seen.append(record)

    def commit(self) -> None:
        self._entries += self._pending
        self._pending.clear()

    def read(self) -> Iterator[Entry]:
        return iter(self._entries)
