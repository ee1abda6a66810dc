"""Workers on a Ray cluster: an actor for each, which is a host.

How many there can be is the cluster's affair: we ask for as many as are wanted, and Ray places them
as there is room. When a node is lost, its hosts are, and others are asked for. A host that was lost
may only have been out of reach: whatever it still says is not listened to, and what it still writes
goes to a place of its own. A host that can do nothing, where others can, is kept as it is: its
place on its node is then taken, and another one is asked for, which comes to be elsewhere.
"""

import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from shoal.buckets import Bucket, Upload
from shoal.checkpoints import leave_note, remove, saved
from shoal.core.records import LOST
from shoal.durable import name_last
from shoal.home import Folder
from shoal.runners.base import Log, RunnerError
from shoal.runners.cluster.connection import Cluster, Need, first_line, unfit
from shoal.runners.cluster.depots import STAGING
from shoal.runners.cluster.host import CLOSE_S, Duty, Host
from shoal.runners.crew import Event, Gone, Said, Sent, Woken

HEAR_S = 20.0  # how long a host waits for something to tell
TELL_S = 2.0  # between two lines about how many hosts there are
PUBLISHERS = 4  # manifests that are written to a store at a time
BEGINNINGS = 5  # hosts in a row that end before they are there, or can do nothing: this is wrong


@dataclass(slots=True, eq=False)
class Berth:
    """A place on the cluster: asked for, and perhaps there."""

    number: int  # never used twice: what a host says that was given up is not listened to
    actor: Any
    name: str = ""  # of the machine that it is on; empty until it is there
    node: str = ""  # the id of that
    key: str | None = None  # of the worker that it has
    turn: int = 0
    orders: list[Mapping[str, Any]] = field(default_factory=list)  # not yet sent
    proven: bool = False  # a worker has been ready there: the user's code can be run
    sending: set[str] = field(default_factory=set)  # what it has saved and is sending to a store


class ShoalHost:
    """The actor: a host, which is told and heard at the same time."""

    def __init__(self, duty: Duty) -> None:
        import ray  # noqa: PLC0415 (there is no other way to be here)

        self._host = Host(duty, ray.get_runtime_context().get_node_id())

    def tell(self, turn: int, orders: Sequence[Mapping[str, Any]]) -> None:
        self._host.tell(turn, orders)

    def hear(self, seconds: float) -> list[Mapping[str, Any]]:
        return self._host.hear(seconds)

    def close(self) -> None:
        self._host.close()


class RayCrew:
    """Workers in actors of a Ray cluster.

    Args:
        cluster: where.
        need: what each needs of a node.
        duty: what their hosts are there for.
        folder: the experiment's, here.
        log: is told what the user should know.

    Raises:
        RunnerError: (from any method) there can be none.
    """

    def __init__(
        self, cluster: Cluster, need: Need, duty: Duty, *, folder: Folder, log: Log
    ) -> None:
        self._cluster, self._need, self._duty = cluster, need, duty
        self._folder, self._log = folder, log
        self._berths: dict[int, Berth] = {}  # by number
        self._workers: dict[str, Berth] = {}  # by key
        self._vacant: dict[int, Berth] = {}  # by number: those that are there, without a worker
        self._useless: list[Berth] = []  # kept, so that nobody else is placed there
        self._why = ""  # the last of those is
        self._nodes: Counter[str] = Counter()  # how many are there, by the id of their node
        self._unsent: dict[int, Berth] = {}  # by number: those with orders
        self._asked = 0
        self._wanted = 0
        self._failures = 0
        self._said: set[str] = set()
        self._told = time.monotonic(), ""
        self._heard: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # taking it in
        self._events: deque[Event] = deque()
        self._store = None if duty.store is None else Bucket(duty.store)
        self._publishers = ThreadPoolExecutor(PUBLISHERS, "shoal-publisher")
        remove(Path(duty.checkpoints) / STAGING)  # of hosts of a controller that has died
        cluster.connect()
        self._actor = cluster.ray.remote(
            num_cpus=need.cpus,
            num_gpus=need.gpus,
            resources=dict(need.resources),
            max_restarts=0,
            max_concurrency=2,
        )(ShoalHost)
        self._duty_there = cluster.ray.put(duty)

    @property
    def can_start(self) -> bool:
        return bool(self._vacant)

    @property
    def waiting_for(self) -> str | None:
        if self._nodes:
            return None
        with self._reaching():
            never = "" if self._cluster.can_ever(self._need) else ", which no node of it has"
        many = len(self._useless)
        without = f"; done without {many} that cannot train ({self._why})" if many else ""
        return f"room in the cluster for a worker: it needs {self._need}{never}{without}"

    def want(self, workers: int) -> None:
        """Have so many workers, as soon as there is room for them."""
        self._wanted = workers
        while len(self._berths) < workers:
            self._ask()
        if (many := len(self._berths) - workers) > 0:  # or the cluster would go on to look for room
            for berth in [b for b in reversed(self._berths.values()) if not b.node][:many]:
                self._leave(berth)

    def start(self, key: str) -> None:
        berth = self._vacant.pop(next(iter(self._vacant)))
        berth.key, self._workers[key] = key, berth
        self._order(berth, {"start": key})

    def send(self, key: str, message: Mapping[str, Any]) -> None:
        if (berth := self._workers.get(key)) is not None:
            self._order(berth, {"tell": key, "message": message})

    def end(self, key: str) -> None:
        if (berth := self._workers.get(key)) is not None:
            self._order(berth, {"end": key})

    def dismiss(self, key: str) -> None:
        if (berth := self._workers.pop(key, None)) is not None:
            self._leave(berth)

    def wait(self, seconds: float) -> Sequence[Event]:
        self._flush()
        timeout = 0 if self._events else seconds
        with suppress(queue.Empty):
            take_in = self._heard.get(timeout=timeout) if timeout else self._heard.get_nowait()
            while True:
                take_in()
                take_in = self._heard.get_nowait()
        self._tell_how_many()
        events = list(self._events)
        self._events.clear()
        return events

    def wake(self) -> None:
        self._heard.put(lambda: self._events.append(Woken()))

    def close(self) -> None:
        ray, berths = self._cluster.ray, list(self._berths.values())
        berths += self._useless
        self._useless.clear()
        for known in (self._berths, self._workers, self._vacant, self._unsent):
            known.clear()
        if self._cluster.connected:
            with suppress(Exception):  # whatever is wrong with a cluster that we leave
                closing = [berth.actor.close.remote() for berth in berths if berth.node]
                if closing:
                    ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)
        for berth in berths:
            self._kill(berth)
        remove(Path(self._duty.checkpoints) / STAGING)
        self._publishers.shutdown(cancel_futures=True)
        self._cluster.disconnect()

    def _ask(self) -> None:
        number, self._asked = self._asked, self._asked + 1
        with self._reaching():
            berth = Berth(number, self._actor.remote(self._duty_there))
        self._berths[number] = berth
        self._listen(berth)

    def _listen(self, berth: Berth) -> None:
        heard, take_in = self._heard, partial(self._take_in, berth)
        with self._reaching():
            future = berth.actor.hear.remote(HEAR_S).future()
        future.add_done_callback(lambda done: heard.put(partial(take_in, done)))

    def _order(self, berth: Berth, order: Mapping[str, Any]) -> None:
        berth.orders.append(order)
        self._unsent[berth.number] = berth

    def _leave(self, berth: Berth) -> None:
        self._forget(berth)
        self._kill(berth)

    def _kill(self, berth: Berth) -> None:
        if self._cluster.connected:
            with suppress(Exception):
                self._cluster.ray.kill(berth.actor)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """While entered, Ray is asked for something.

        Raises:
            RunnerError: we are not connected any more, as when we are no node and the network was
                away for half a minute.
        """
        lost = "the cluster cannot be reached any more. Once it can be, `shoal resume` goes on"
        if not self._cluster.connected:
            raise RunnerError(lost)
        try:
            yield
        except Exception as error:  # a plain one says so (2.60)
            raise RunnerError(f"{lost}: {first_line(error)}") from error

    def _forget(self, berth: Berth) -> None:
        del self._berths[berth.number]
        self._vacant.pop(berth.number, None)
        self._unsent.pop(berth.number, None)
        if berth.node:
            self._nodes[berth.node] -= 1
            self._nodes += Counter()  # without those where none is left

    def _flush(self) -> None:
        for berth in self._unsent.values():
            with self._reaching():
                berth.actor.tell.remote(berth.turn, berth.orders)
            berth.turn, berth.orders = berth.turn + 1, []
        self._unsent.clear()

    def _take_in(self, berth: Berth, done: Future[Sequence[Mapping[str, Any]]]) -> None:
        if berth.number not in self._berths:
            return  # it was given up
        if (error := done.exception()) is not None:
            self._lost(berth, error)
            return
        self._listen(berth)
        for message in done.result():
            if berth.number in self._berths:  # or what it has just said was the end of it
                self._hear(berth, message)

    def _hear(self, berth: Berth, message: Mapping[str, Any]) -> None:
        match message:
            case {"here": str(name), "node": str(node)}:
                berth.name, berth.node, self._failures = name, node, 0
                self._nodes[node] += 1
                self._vacant[berth.number] = berth
            case {"worker": str(key)}:
                self._hear_of(berth, key, message)
            case {"staged": str(staged), "to": str(to)}:
                publish(Path(staged), Path(to))
            case {"uploaded": manifest, "to": str(to), "key": str(key)}:
                berth.sending.discard(key)
                self._publish(key, manifest, Path(to))
            case {"missing": str(path)}:
                remove(Path(path))
            case {"printed": str(key), "stream": stream, "data": data}:
                self._print(key, stream, data)
            case {"log": level, "text": text}:
                self._say(level, text)
            case {"useless": reason}:
                self._is_useless(berth, f"a worker on {berth.name}: {reason}")

    def _hear_of(self, berth: Berth, key: str, message: Mapping[str, Any]) -> None:
        """Hear what the worker `key` says, or what has become of it."""
        match message:
            case {"said": said}:
                berth.proven = berth.proven or "ready" in said
                if "sending" in said:
                    berth.sending.add(str(said.get("done", said.get("saved"))))
                self._events.append(Said(key, said))
            case {"gone": kind, "reason": reason}:
                berth.key, self._vacant[berth.number] = None, berth
                if self._workers.pop(key, None) is not None:
                    self._events.append(Gone(key, kind, reason))

    def _publish(self, key: str, manifest: str | None, to: Path) -> None:
        """Let the checkpoint that `to` stands for be what a host has uploaded, and tell of it."""
        store, place = self._store, to.relative_to(self._duty.checkpoints).as_posix()
        assert store is not None

        def publish() -> None:
            if manifest is not None:
                upload = Upload.parse(manifest)
                store.publish(place, upload)
                leave_note(to, upload)

        def there(done: Future[None]) -> None:
            done.result()  # or the run cannot go on
            self._events.append(Sent(key))

        future = self._publishers.submit(publish)  # another machine answers: nobody waits for it
        future.add_done_callback(lambda done: self._heard.put(partial(there, done)))

    def _lost(self, berth: Berth, error: BaseException) -> None:
        """A host is lost, or cannot be reached, which is the same for us."""
        self._leave(berth)
        if not berth.node:
            self._failures += 1
            if self._failures >= BEGINNINGS or not unavailable(self._cluster.ray, error):
                raise RunnerError(f"no worker can be started on the cluster: {unfit(error)}")
            return
        self._log("warning", f"a worker on {berth.name} is lost: {first_line(error)}")
        self._lost_with(berth)

    def _is_useless(self, berth: Berth, reason: str) -> None:
        """A host can do nothing: it is done without, if there is another that can, or may.

        Raises:
            RunnerError: there is none.
        """
        self._forget(berth)
        others = [other for other in self._berths.values() if other.node]
        hopeless = not others or len(self._useless) + 1 >= BEGINNINGS
        if hopeless and not any(other.proven for other in others):
            raise RunnerError(reason)
        self._useless.append(berth)
        self._why = reason
        self._log("warning", f"{berth.name} is done without: {reason}")
        self._lost_with(berth)

    def _lost_with(self, berth: Berth) -> None:
        """Tell what is lost with a host: its worker, and what that was sending."""
        if berth.key is not None and self._workers.pop(berth.key, None) is not None:
            reason = f"its worker was lost with its place on {berth.name}"
            self._events.append(Gone(berth.key, LOST, reason))
        lost = f"what it had saved was lost on its way from {berth.name}"
        self._events.extend(Sent(key, lost) for key in sorted(berth.sending))

    def _print(self, key: str, stream: str, data: bytes) -> None:
        id, _, attempt = key.partition("/")
        folder = self._folder.trial(int(id), int(attempt))
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / stream).open("ab") as file:
            file.write(data)

    def _say(self, level: str, text: str) -> None:
        """Say what each host says once, and not each time."""
        plain = "".join(char for char in text if not char.isdigit())
        if plain not in self._said:
            self._said.add(plain)
            self._log(level, text)

    def _tell_how_many(self) -> None:
        there = self._nodes.total()
        on = f", on {len(self._nodes)} nodes" if len(self._nodes) > 1 else ""
        text = f"workers on the cluster: {there} of {self._wanted}{on}"
        at, before = self._told
        whole = there == self._wanted
        if text != before and (whole or time.monotonic() > at + TELL_S):
            self._told = time.monotonic(), text
            self._log("info", text)


def publish(staged: Path, to: Path) -> None:
    """Let what a host has saved be where it is to be, if it has saved anything.

    Raises:
        OSError: the disk is full, or worse.
    """
    if saved(staged):
        remove(to)
        to.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(to)
        name_last(to)


def unavailable(ray: Any, error: BaseException) -> bool:
    """Whether `error` is the machine's doing, and may pass."""
    lasting = (ray.exceptions.RuntimeEnvSetupError, ray.exceptions.RayTaskError)
    return not isinstance(error, lasting) and "creation task" not in str(error)
