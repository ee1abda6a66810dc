"""Workers, and what each has and has to do: found by that, without a walk over all of them.

With thousands of workers something comes back every few milliseconds. So whatever is asked here is
counted as it changes: a `Place` says that it has changed, and is counted anew before the next
question.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import NamedTuple, TypeAlias

from shoal.core.records import Trial

STARTING_S = 600.0  # for a worker to begin, the user's imports included


@dataclass(slots=True)
class Task:
    """An attempt of a trial that was submitted."""

    trial: Trial
    remake: bool = False  # only its state is wanted: it has ended before
    tell: bool = True  # whether its worker says that it has begun: it may be long in coming to it
    begun: bool = False
    announced: bool = False  # that it has
    used: int | None = None  # the trial whose checkpoint it reads
    deadline: float | None = None  # on the monotonic clock
    timed_out: bool = False

    @property
    def key(self) -> str:
        return f"{self.trial.id}/{self.trial.attempt}"


@dataclass(slots=True, eq=False)
class Place:
    """A worker, and what it has and has to do.

    Whoever changes what is public here has to do it by a method, or to call `touch`.
    """

    key: str
    heard: float  # when it said something last, or was given something to do
    changed: "dict[Place, None]" = field(repr=False)  # told that something has
    ready: bool = False
    leaving: bool = False  # it is one too many
    orders: deque[Task | int] = field(default_factory=deque)  # what it was told: to train, to save
    saves: int = 0  # how many of these are to save
    pending: deque[Task] = field(default_factory=deque)  # what it will be told
    holds: set[int] = field(default_factory=set)  # the trials whose states it has
    saving: dict[int, list[Task]] = field(default_factory=dict)  # by trial: and for whom
    unsaved: set[int] = field(default_factory=set)  # the trials whose states cannot be

    @property
    def tasks(self) -> list[Task]:
        """What it was told to train."""
        return [order for order in self.orders if isinstance(order, Task)]

    @property
    def ahead(self) -> int:
        """How many trials it was told to train."""
        return len(self.orders) - self.saves

    @property
    def load(self) -> int:
        """How many trials it has before it."""
        return self.ahead + len(self.pending)

    @property
    def training(self) -> Task | None:
        """What it trains now, and not what it will once it has saved something."""
        first = self.orders[0] if self.orders else None
        return first if isinstance(first, Task) else None

    def deadline(self, limit_s: float) -> float:
        """When it has taken too long for whatever it does: to begin, a trial, or saving."""
        if not self.ready:
            return self.heard + STARTING_S
        if not self.orders:
            return inf
        task = self.training
        if task is not None and task.deadline is not None:
            return task.deadline
        return self.heard + limit_s

    def touch(self) -> None:
        """Say that something has changed."""
        self.changed[self] = None

    def told(self, order: Task | int, now: float) -> None:
        """Note what it has been told to do at the time `now`."""
        if not self.orders:
            self.heard = now
        self.orders.append(order)
        self.saves += isinstance(order, int)
        self.touch()

    def done(self) -> None:
        """Note that it has done what it was told first."""
        self.saves -= isinstance(self.orders.popleft(), int)
        self.touch()

    def put(self, task: Task) -> None:
        """Have it told of `task` later."""
        self.pending.append(task)
        self.touch()

    def take(self, *, last: bool = False) -> Task:
        """What it would be told next, or last, and now will not be."""
        self.touch()
        return self.pending.pop() if last else self.pending.popleft()

    def save(self, id: int, *then: Task) -> bool:
        """Have the state of the trial `id` saved, also for `then`; whether that is new."""
        self.touch()
        new = id not in self.saving
        self.saving.setdefault(id, []).extend(then)
        return new

    def saved(self, id: int) -> list[Task]:
        """For whom the state of the trial `id` was saved, which it now is."""
        self.touch()
        return self.saving.pop(id, [])

    def withdraw(self) -> list[Task]:
        """All that has not been told to anybody, and now will not be."""
        self.touch()
        waiting = [*self.pending, *(task for tasks in self.saving.values() for task in tasks)]
        self.pending.clear()
        self.saving = {id: [] for id in self.saving}
        return waiting


class Count(NamedTuple):
    """As what a worker counts."""

    ahead: int
    load: int
    moving: int  # how many wait for it to save their states
    open: bool  # it may be given something to do
    pending: bool  # and there is something for nobody else


Buckets: TypeAlias = dict[tuple[int, bool], dict[Place, None]]


class Places:
    """The workers that there are.

    Args:
        limit_s: how long a trial, or saving, may take.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._all: dict[str, Place] = {}
        self._changed: dict[Place, None] = {}
        self._counts: dict[Place, Count] = {}
        self._load = self._moving = self._idle = 0
        self._by_load: Buckets = {}  # those that are open, by (load, True)
        self._by_ahead: Buckets = {}  # those that are open, by (ahead, pending)
        self._due: list[tuple[float, int, Place]] = []  # a heap
        self._due_at: dict[Place, float] = {}  # what counts of that
        self._number = count()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Place]:
        """All of them, the oldest first."""
        return iter(tuple(self._all.values()))

    def get(self, key: str) -> Place | None:
        """The one of this key, if it is there."""
        return self._all.get(key)

    def add(self, key: str, now: float) -> None:
        """Take in that there is another one, since the time `now`."""
        place = self._all[key] = Place(key, now, self._changed)
        place.touch()

    def pop(self, key: str) -> Place | None:
        """Take in that the one of this key is there no more."""
        place = self._all.pop(key, None)
        if place is not None:
            place.touch()
        return place

    @property
    def load(self) -> int:
        """How many trials they have before them."""
        self._count_anew()
        return self._load

    @property
    def moving(self) -> int:
        """How many trials wait for a state to be saved, to be given to somebody else."""
        self._count_anew()
        return self._moving

    @property
    def idle(self) -> int:
        """How many were told to train nothing."""
        self._count_anew()
        return self._idle

    def hungry(self, depth: int, *, more: bool) -> Place | None:
        """Whoever has least to do of those that can be given something.

        Args:
            depth: as many trials are told to one at a time, at most.
            more: whether there is something for anybody; else one has to have something pending.
        """
        self._count_anew()
        able = (key for key in self._by_ahead if key[0] < depth and (more or key[1]))
        key = min(able, default=None)
        return None if key is None else next(iter(self._by_ahead[key]))

    @property
    def ends(self) -> Sequence[Place]:
        """Whoever has least before him, and most, of those that can be given something."""
        self._count_anew()
        if not self._by_load:
            return ()
        return [next(iter(self._by_load[end(self._by_load)])) for end in (min, max)]

    def next_deadline(self) -> float:
        """When the first of them will have taken too long for something."""
        self._count_anew()
        while self._due:
            at, _, place = self._due[0]
            if self._due_at.get(place) != at:  # it is gone, or was due before
                heappop(self._due)
            elif (later := place.deadline(self._limit_s)) > at:
                heappop(self._due)
                del self._due_at[place]
                self._note_due(place, later)
            else:
                return at
        return inf

    def overdue(self, now: float) -> list[Place]:
        """Those that have taken too long for something by `now`."""
        found = []
        while self.next_deadline() <= now:
            _, _, place = heappop(self._due)
            del self._due_at[place]
            found.append(place)
        for place in found:  # it will have another one
            place.touch()
        return found

    def _note_due(self, place: Place, at: float) -> None:
        if at < self._due_at.get(place, inf):
            self._due_at[place] = at
            heappush(self._due, (at, next(self._number), place))

    def _count_anew(self) -> None:
        if not self._changed:
            return
        for place in self._changed:
            if (before := self._counts.pop(place, None)) is not None:
                self._add(place, before, -1)
            if self._all.get(place.key) is place:
                self._counts[place] = now = counted(place)
                self._add(place, now, 1)
                self._note_due(place, place.deadline(self._limit_s))
            else:
                self._due_at.pop(place, None)
        self._changed.clear()

    def _add(self, place: Place, as_: Count, times: int) -> None:
        self._load += times * as_.load
        self._moving += times * as_.moving
        self._idle += times * (as_.ahead == 0)
        if as_.open:
            for buckets, key in (
                (self._by_load, (as_.load, True)),
                (self._by_ahead, (as_.ahead, as_.pending)),
            ):
                if times > 0:
                    buckets.setdefault(key, {})[place] = None
                else:
                    del buckets[key][place]
                    if not buckets[key]:
                        del buckets[key]


def counted(place: Place) -> Count:
    """As what `place` counts now."""
    return Count(
        ahead=place.ahead,
        load=place.load,
        moving=sum(map(len, place.saving.values())),
        open=place.ready and not place.leaving,
        pending=bool(place.pending),
    )
