"""What the loop needs from whatever remembers."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from shoal.core.records import Record, Seen


class Entry(NamedTuple):
    """A record of the journal, and when it was written."""

    at: float  # seconds since the epoch, for people: nothing is decided by it
    record: Record


class Store(Protocol):
    """A journal: records in the order in which they came."""

    def append(self, record: Record | Seen) -> None:
        """Take in `record`; it is durable after the next `commit`, all since the last or none."""
        ...

    def commit(self) -> None:
        """Return when everything appended would survive a power cut."""
        ...

    def read(self) -> Iterator[Entry]:
        """The journal, in order; what was seen on the way is not part of it."""
        ...
