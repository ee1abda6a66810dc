"""Run trials in warm workers, which train members one step after the other and hold their states.

A member's state stays where it is: in the memory of the worker that did its last step. It is saved
when another worker is to go on from it, as often as `checkpoint_every` says, and at the end. A
state that is neither held nor saved is made again: the steps from the nearest checkpoint on are
trained again, under the hyperparameters and seeds that are in the journal. So a worker that dies,
a run that goes on after a crash and a checkpoint that somebody removed are one case.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from shoal.checkpoints import Checkpoints, saved
from shoal.core.chance import number
from shoal.core.records import (
    LOST,
    Failed,
    Finished,
    Measured,
    Report,
    Result,
    Saved,
    Seen,
    Started,
    Trial,
)
from shoal.home import Folder
from shoal.runners.base import Log, withdrawn
from shoal.runners.crew import Crew, Gone, Said, Sent, Woken
from shoal.runners.outcome import Objective, failure, measure
from shoal.runners.pace import GATHER_S, Pace
from shoal.runners.places import Place, Places, Task
from shoal.runners.script import IN_THE_WAY

TICK_S = 1.0  # how long a wait lasts at most
SETTLING = 2  # times that saving at the end is tried, as workers may die at it
LOSSES = 3  # of the worker before a trial has begun, after which the trial is taken for the cause

Every = Literal["auto"] | int


class WorkerRunner:
    """Leads a crew of workers.

    Args:
        crew: the workers.
        folder: the experiment's.
        checkpoints: where states are saved to.
        objective: which of the numbers that come back counts, and which way.
        workers: how many there are at most.
        population: how many trials may be submitted at a time.
        seed: of the experiment.
        timeout_s: how long a trial may run.
        every: after how many steps a member is saved; "auto" for as often as costs little.
        hold: whether workers hold states; else each is saved after its step, and let go.
        synchronous: whether all that may copy a state is submitted before that goes on.
        log: is told what the user should know.
    """

    def __init__(
        self,
        crew: Crew,
        *,
        folder: Folder,
        checkpoints: Checkpoints,
        objective: Objective,
        workers: int,
        population: int,
        seed: int,
        timeout_s: float | None,
        every: Every,
        hold: bool,
        synchronous: bool,
        log: Log,
    ) -> None:
        self._crew, self._folder = crew, folder
        self._holds_states: bool | None = None  # whether they train a trainable; they will say so
        self._checkpoints, self._objective = checkpoints, objective
        checkpoints.remade = True  # they may: what somebody could be made from is not deleted
        self._population, self._hold = population, hold
        self.resize(workers)
        self._seed, self._every, self._log = seed, every, log
        self._limit_s = float("inf") if timeout_s is None else timeout_s
        self._synchronous = synchronous
        self._places = Places(self._limit_s)
        self._anywhere: deque[Task] = deque()  # what no worker holds the state for
        self._wanted: Counter[int] = Counter()  # by trial: how many that wait go on from its state
        self._holders: dict[int, dict[Place, None]] = {}  # by trial: who holds its state
        self._live = checkpoints.live
        self._changes = self._live.follow()
        self._doubtful: set[int] = set()  # whose states perhaps nobody needs any more
        # by attempt or state: who has saved it, and what is to be done when it is there, or lost
        self._sending: dict[str, tuple[Place, Callable[[str | None], None]]] = {}
        self._unsaved_s: dict[int, float] = {}  # by trial: what making its state again would cost
        self._events: list[Report | Seen] = []
        self._reported: Counter[str] = Counter()
        self._losses: Counter[int] = Counter()
        self._started = self._most = 0
        self._uncopied = self._unhanded = False  # whether that was told
        self._lessening = False  # some workers are too many
        self._pace = Pace()

    @property
    def free(self) -> int:
        return self._room - len(self._anywhere) - self._places.load

    @property
    def waiting_for(self) -> str | None:
        if self._places.ends:
            return None
        return self._crew.waiting_for or "a worker to begin"

    def submit(self, trial: Trial) -> None:
        self._queue(Task(trial))

    def wait(self) -> Sequence[Report | Seen]:
        self._fill()
        self._take_in(0 if self._events else self._until_next())
        gathered = time.monotonic() + GATHER_S
        while self._busy and (left := gathered - time.monotonic()) > 0:
            if self._take_in(left):
                break
        self._keep_time()
        events, self._events = self._events, []
        return events

    @property
    def _busy(self) -> bool:
        """Whether something has come back, and every worker still has something to do."""
        return bool(self._events) and not self._places.idle

    def wake(self) -> None:
        self._crew.wake()

    def resize(self, slots: int) -> None:
        self._workers = min(slots, self._population)
        # who holds states has to know who will copy them
        self._room = self._population if self._hold else self._workers

    def withdraw(self) -> None:
        waiting = [*self._anywhere]
        self._anywhere.clear()
        for place in self._places:
            waiting += place.withdraw()
        for task in waiting:
            self._forget(task)
            self._events.append(withdrawn(task.trial))

    @property
    def holds(self) -> bool:
        return bool(self._holders)

    def settle(self, until: float) -> None:
        for _ in range(SETTLING):
            left = {id for id in self._checkpoints.live if not self._checkpoints.has(id)}
            while left and self._holds_states is None:  # all had ended before, and was not saved
                self._crew.want(1)
                if not self._places and self._crew.can_start:
                    self._start()
                woken = self._take_in(self._until_next())
                self._keep_time()
                if woken or time.monotonic() >= until:
                    return
            if not (left and self._holds_states):
                return
            for id in sorted(left):
                if id in self._holders:
                    self._save(id)
                else:
                    self._queue(Task(self._checkpoints.population.trials[id], remake=True))
            while self._anywhere or any(p.orders or p.pending or p.saving for p in self._places):
                self._fill()
                woken = self._take_in(min(self._until_next(), max(0.0, until - time.monotonic())))
                self._keep_time()
                if woken or time.monotonic() >= until:  # whoever waits for us has had enough
                    return

    def close(self) -> None:
        self._crew.close()

    # ------------------------------------------------------------------ who does what

    def _queue(self, task: Task) -> None:
        if (parent := task.trial.parent) is not None:
            self._wanted[parent] += 1
        self._put(task)

    def _put(self, task: Task) -> None:
        parent = task.trial.parent
        if parent is not None and parent in self._holders:
            self._holder(parent).put(task)
        else:
            self._anywhere.append(task)

    def _forget(self, task: Task) -> None:
        """`task` does not go on from anybody's state any more."""
        if (parent := task.trial.parent) is not None:
            self._wanted[parent] -= 1
            self._doubtful.add(parent)

    def _fill(self) -> None:
        """Give every worker something to do."""
        self._drop()
        self._lessen()
        waiting = len(self._anywhere) + self._places.load
        self._most = min(self._workers, max(waiting, self._most))
        self._crew.want(self._most)
        while len(self._places) < min(self._workers, waiting) and self._crew.can_start:
            self._start()
        self._balance()
        depth = self._pace.depth
        while place := self._places.hungry(depth, more=bool(self._anywhere)):
            self._give(place, place.take() if place.pending else self._anywhere.popleft())

    def _lessen(self) -> None:
        """Let those go that are too many, once what they hold is saved and others can do."""
        if not self._lessening and len(self._places) <= self._workers:
            return
        self._lessening = len(self._places) > self._workers
        for age, place in enumerate(self._places):
            place.leaving = age >= self._workers
            place.touch()
            if not place.leaving:
                continue
            for task in [place.take() for _ in range(len(place.pending))]:
                parent = task.trial.parent
                held = parent in place.holds - place.unsaved  # else it is made again
                if parent is None or not held or self._checkpoints.has(parent):
                    self._anywhere.append(task)
                else:
                    self._save(parent, task)
            for id in place.holds - place.saving.keys() - place.unsaved:
                if id in self._checkpoints.live and not self._checkpoints.has(id):
                    self._save(id)
            sending = any(sender is place for sender, _ in self._sending.values())
            if place.orders or place.saving or sending:
                continue
            for id in list(place.holds):
                self._let_go(id, place)
            self._places.pop(place.key)
            self._crew.dismiss(place.key)

    def _start(self) -> None:
        key = f"worker-{self._started}"
        self._started += 1
        self._places.add(key, time.monotonic())
        self._crew.start(key)

    def _balance(self) -> None:
        """Move members from a worker with many to do to one with few, where that is quicker.

        Moving saves on one side and loads on the other, so it takes about twice as long as a save.
        """
        while self._pace.worth_moving and (ends := self._places.ends):
            least, most = ends
            if most.load - least.load - self._places.moving < 2 or not most.pending:
                return
            task = most.take(last=True)
            parent = task.trial.parent
            assert parent is not None
            if self._checkpoints.has(parent):
                self._give(least, task)
                return
            self._save(parent, task)

    def _give(self, place: Place, task: Task) -> None:
        message = self._job(place, task) if self._holds_states else self._call(task)
        if message is None:
            return
        place.told(task, time.monotonic())
        message["tell"] = task.tell = message.get("load") is not None and self._pace.slow
        folder = self._folder.trial(task.trial.id, task.trial.attempt)
        self._crew.send(place.key, {"train": message, "folder": str(folder)})
        self._head(place)

    def _call(self, task: Task) -> dict[str, Any] | None:
        """What a worker is told of a trial of a function."""
        trial, checkpoints = task.trial, self._checkpoints
        self._forget(task)
        load = checkpoints.load(trial)
        if checkpoints.lost(trial):
            reason = f"it was to start from {load}, which is gone"
            self._events.append(Failed(trial.id, "lost checkpoint", reason, trial.attempt))
            return None
        try:
            checkpoints.prepare(trial)
        except OSError as error:
            if error.errno not in IN_THE_WAY:  # a full disk is not this trial's
                raise
            reason = f"there is something in the place of its folder: {error}"
            self._events.append(Failed(trial.id, "bad files", reason, trial.attempt))
            return None
        nothing = load is not None and not saved(load)  # its parent had saved nothing
        if nothing and not self._unhanded:
            self._unhanded = True
            where = f"member {trial.member} begins step {trial.step} anew"
            why = f"trial {trial.parent} saved nothing in the folder that it was given (trial.save)"
            self._log("warning", f"{where}: {why}. This is told once")
        return {
            "key": task.key,
            "steps": [self._told(trial)],
            "load": None if load is None or nothing else str(load),
            "save": str(checkpoints.save(trial)),
        }

    def _job(self, place: Place, task: Task) -> dict[str, Any] | None:
        """What a worker is told of a trial of a trainable."""
        trial, parent = task.trial, task.trial.parent
        self._forget(task)
        job: dict[str, Any] = {"key": task.key, "steps": [self._told(trial)]}
        if not self._hold:
            self._checkpoints.expect(trial.id)
            job["save"] = str(self._checkpoints.save(trial))
        if parent is None:
            return job
        held = parent in place.holds
        wanted = self._hold and (self._wanted[parent] > 0 or (task.remake and held))
        if held:
            if not wanted and self._to_be_saved(parent):
                self._save(parent)
            job |= {"state": parent, "copy": wanted}
        else:
            job |= self._made_again(task, parent) | {"copy": wanted}
        if wanted:
            self._has(place, parent)
        elif held:
            self._let_go(parent, place)
        return job

    def _made_again(self, task: Task, id: int) -> dict[str, Any]:
        """How `task` comes to the state of the trial `id`, which nobody who does it holds."""
        checkpoints = self._checkpoints
        origin, way = checkpoints.way(id)
        if way:
            first, last = way[0].step, way[-1].step
            which = f"step {first}" if first == last else f"steps {first} to {last}"
            what = f"member {way[-1].member}: {which} trained again, whose states were not saved"
            self._log("info", what)
        steps = [*map(self._told, way), self._told(task.trial)]
        if origin is None:
            return {"steps": steps}
        task.used = origin
        checkpoints.use(origin)
        load = str(checkpoints.save(checkpoints.population.trials[origin]))
        return {"steps": steps, "state": origin, "load": load}

    def _told(self, trial: Trial) -> dict[str, Any]:
        parent = None if trial.parent is None else self._checkpoints.population.trials[trial.parent]
        return {
            "id": trial.id,
            "member": trial.member,
            "step": trial.step,
            "attempt": trial.attempt,
            "hparams": trial.hparams,
            "seed": number(self._seed, trial.member, trial.step) >> 32,
            "fresh": parent is None or parent.member != trial.member,
        }

    def _holder(self, id: int) -> Place:
        """Who has come to hold the state of the trial `id` last."""
        return next(reversed(self._holders[id]))

    def _has(self, place: Place, id: int) -> None:
        """Take in that `place` holds the state of the trial `id`."""
        place.holds.add(id)
        holders = self._holders.setdefault(id, {})
        holders.pop(place, None)
        holders[place] = None
        self._doubtful.add(id)

    def _let_go(self, id: int, place: Place) -> None:
        place.holds.discard(id)
        holders = self._holders.get(id, {})
        holders.pop(place, None)
        if not holders:
            self._holders.pop(id, None)

    def _drop(self) -> None:
        """Let workers forget the states that nobody can need any more."""
        live = self._checkpoints.live
        if live is not self._live:
            self._live, self._changes = live, live.follow()
            self._doubtful.update(self._holders)
        doubtful = self._doubtful | self._changes
        self._changes.clear()
        self._doubtful.clear()
        stale: dict[Place, list[int]] = {}
        for id in sorted(doubtful & self._holders.keys()):
            if id not in live and not self._wanted[id]:
                for place in self._holders[id]:
                    if id not in place.saving:
                        stale.setdefault(place, []).append(id)
        for place, ids in stale.items():
            for id in ids:
                self._let_go(id, place)
            self._crew.send(place.key, {"drop": ids})

    # ------------------------------------------------------------------ saving

    def _to_be_saved(self, id: int) -> bool:
        """Whether the state of the trial `id`, which is about to be changed, is worth saving."""
        if self._checkpoints.has(id) or not self._pace.can_afford:
            return False
        best = self._checkpoints.population.best
        if best is not None and best.trial.id == id:
            return True
        return not self._synchronous and self._may_be_copied(id)

    def _may_be_copied(self, id: int) -> bool:
        """Whether the trial `id` is among the best half of what others are compared with."""
        population = self._checkpoints.population
        latest, trial = population.latest.donors, population.trials[id]
        newest: Result | None = population.newest(trial.member)
        if newest is None or newest.trial.id != id:
            return False
        return 2 * latest.rank(newest) >= len(latest)

    def _due(self, trial: Trial) -> bool:
        """Whether the state of `trial`, which has just ended, is to be saved by now."""
        if isinstance(self._every, int):
            return (trial.step + 1) % self._every == 0
        return self._pace.due(self._unsaved_s[trial.id])

    def _save(self, id: int, *then: Task) -> None:
        """Have the state of the trial `id` saved; after that, `then` is for anybody to do."""
        place = self._holder(id)
        if place.save(id, *then):
            place.told(id, time.monotonic())
            self._checkpoints.expect(id)
            to = self._checkpoints.save(self._checkpoints.population.trials[id])
            self._crew.send(place.key, {"save": id, "to": str(to)})

    def _saved(self, place: Place, id: int, message: Mapping[str, Any], lost: str | None) -> None:
        if lost is not None:
            return  # with its worker, which we know of
        then = place.saved(id)
        self._doubtful.add(id)
        if "error" in message:
            place.unsaved.add(id)
            trial = self._checkpoints.population.trials[id]
            self._not_saved(trial, message["error"])
        else:
            self._checkpoints.published(id)
            self._unsaved_s[id] = 0.0
            self._events.append(Saved(id, message["seconds"]))
            self._pace.saved(message["seconds"])
        for task in then:
            if "error" in message:
                self._put(task)
            else:
                self._anywhere.append(task)

    def _not_saved(self, trial: Trial, why: str) -> None:
        self._checkpoints.trouble = f"member {trial.member} could not be saved: {why}"
        self._log("warning", self._checkpoints.trouble)

    # ------------------------------------------------------------------ what comes back

    def _take_in(self, seconds: float) -> bool:
        """Hear what has happened, after so many seconds at most; whether somebody has woken us."""
        woken = False
        for event in self._crew.wait(seconds):
            match event:
                case Said(key, message):
                    if (place := self._places.get(key)) is not None:
                        place.heard = time.monotonic()
                        self._hear(place, message)
                case Gone():
                    self._gone(event)
                case Sent(key, lost):
                    if key in self._sending:
                        self._sending.pop(key)[1](lost)
                case Woken():
                    woken = True
        return woken

    def _hear(self, place: Place, message: Mapping[str, Any]) -> None:
        """Take in what a worker says; what nobody awaits of it is not heard."""
        match message:
            case {"ready": _, "holds states": bool(holds_states)}:
                place.ready = True
                place.touch()
                self._holds_states = self._checkpoints.remade = holds_states
            case {"saved": int(id), "seconds": float()} | {"saved": int(id), "error": str()}:
                if not place.orders or place.orders[0] != id:
                    self._distrust(place, message)
                    return
                place.done()
                self._head(place)
                self._once_there(place, str(id), message, partial(self._saved, place, id, message))
            case {"uncopied": str(why)}:
                if not self._uncopied:
                    self._uncopied = True
                    what = "states are saved and loaded to copy them"
                    self._log("warning", f"{what}, which takes longer: {why}")
            case (
                {"loading": str(key)} | {"remaking": str(key)} | {"begun": str(key)}
                | {"reported": str(key), "value": _}
                | {"done": str(key), "value": _, "seconds": float()}
                | {"failed": str(key), "kind": str(), "reason": str()}
            ):  # fmt: skip
                self._hear_of(place, key, message)
            case _:
                self._distrust(place, message)

    def _hear_of(self, place: Place, key: str, message: Mapping[str, Any]) -> None:
        """Take in what a worker says of the attempt `key`."""
        task = place.training
        if task is None or task.key != key:
            if "done" in message or "failed" in message:
                self._distrust(place, message)
            return  # a thread of it outlives the trial, and still reports
        match message:
            case {"begun": _}:
                self._begin(place, task)
            case {"reported": _, "value": value}:
                trial, index = task.trial, self._reported[key]
                self._reported[key] += 1
                self._events.append(Measured(trial.id, index, value, trial.attempt))
            case {"done": _} | {"failed": _}:
                self._over(place, task, message)
            case _:
                self._watch(place, task)

    def _distrust(self, place: Place, message: Mapping[str, Any]) -> None:
        """Do without a worker that says what it was not asked for."""
        self._log("warning", f"{place.key} is ended: it said what nobody awaits, {message!s:.200}")
        self._crew.end(place.key)

    def _once_there(
        self,
        place: Place,
        key: str,
        message: Mapping[str, Any],
        then: Callable[[str | None], None],
    ) -> None:
        """Call `then` when what was saved for `key` is where it is to be; its worker goes on."""
        if message.get("sending"):
            self._sending[key] = place, then
        else:
            then(None)

    def _head(self, place: Place) -> None:
        """Take what `place` has to do first for begun, where it will not say so."""
        task = place.training
        if task is not None and not task.tell and not task.begun:
            self._begin(place, task)

    def _begin(self, place: Place, task: Task) -> None:
        task.begun = True
        self._watch(place, task)
        if self._pace.slow and not task.remake:
            task.announced = True
            self._events.append(Started(task.trial.id, task.trial.attempt))

    def _watch(self, place: Place, task: Task) -> None:
        task.deadline = time.monotonic() + self._limit_s
        place.touch()

    def _over(self, place: Place, task: Task, message: Mapping[str, Any]) -> None:
        """Take in how a trial came out."""
        place.done()
        self._head(place)
        self._reported.pop(task.key, None)
        self._unuse(task)
        trial = task.trial
        if "failed" in message:
            if message["kind"] == LOST and trial.parent is not None:
                self._let_go(trial.parent, place)
            if not task.remake:
                kind, reason = message["kind"], message["reason"]
                self._events.append(Failed(trial.id, kind, reason, trial.attempt))
            else:
                self._log("warning", f"trial {trial.id} was not made again: {message['reason']}")
            return
        self._pace.trained(message["seconds"])
        if not (task.announced or task.remake):
            self._events.append(Started(trial.id, trial.attempt, message["seconds"]))
        self._once_there(place, task.key, message, partial(self._came_out, place, task, message))

    def _came_out(
        self, place: Place, task: Task, message: Mapping[str, Any], lost: str | None
    ) -> None:
        """Take in the value of a trial, what it has saved being there, or lost."""
        trial = task.trial
        if lost is not None:
            if not task.remake:
                self._events.append(Failed(trial.id, LOST, lost, trial.attempt))
            return
        if self._holds_states and not self._hold:
            self._checkpoints.published(trial.id)
        elif self._holds_states:
            self._has(place, trial.id)
            before = self._unsaved_s.get(trial.parent, 0.0) if trial.parent is not None else 0.0
            self._unsaved_s[trial.id] = before + message["seconds"]
        if task.remake:
            if self._hold:
                self._save(trial.id)
            return
        report = self._judged(trial, message["value"])
        self._events.append(report)
        held = self._holds_states and self._hold
        if held and isinstance(report, Finished) and self._due(trial):
            self._save(trial.id)

    def _judged(self, trial: Trial, value: Any) -> Report:
        failed = failure(value, self._objective.metric)
        if failed is not None:
            return Failed(trial.id, *failed, trial.attempt)
        metric, metrics = measure(value, self._objective.metric)
        assert metric is not None
        score = self._objective.score(metric)
        there = not (self._holds_states and self._hold) and saved(self._checkpoints.save(trial))
        if there and not self._holds_states:
            self._checkpoints.send(trial)  # its worker has seen that it lasts
        return Finished(trial.id, score, metrics, there, trial.attempt)

    def _unuse(self, task: Task) -> None:
        if task.used is not None:
            self._checkpoints.unuse(task.used)
            task.used = None

    def _gone(self, event: Gone) -> None:
        """A worker is gone, and with it the states that it held."""
        place = self._places.pop(event.key)
        if place is None:  # it was to go
            return
        for id in list(place.holds):
            self._let_go(id, place)
        first = place.orders[0] if place.orders else None
        if isinstance(first, int):  # it was saving
            self._not_saved(self._checkpoints.population.trials[first], event.reason)
        tasks = place.tasks
        for task in tasks:
            self._unuse(task)
        head = tasks[0] if tasks else None
        if head is not None and (report := self._lost_with(event, head)) is not None:
            tasks.pop(0)
            if not head.remake:
                self._events.append(report)
        for task in tasks:
            self._wanted_again(task)
        for task in (*tasks, *place.withdraw()):  # what is being sent will be there, but for nobody
            self._put(task)

    def _wanted_again(self, task: Task) -> None:
        task.begun, task.announced, task.deadline = False, False, None
        if task.trial.parent is not None:
            self._wanted[task.trial.parent] += 1

    def _lost_with(self, event: Gone, task: Task) -> Failed | None:
        """The report of the trial at which a worker ended; None if it is to be done elsewhere."""
        trial = task.trial
        if task.timed_out:
            reason = f"it ran longer than {self._limit_s:g} s"
            return Failed(trial.id, "timeout", reason, trial.attempt)
        if not task.begun:
            self._losses[trial.id] += 1
            if self._losses[trial.id] <= LOSSES:
                return None
        return Failed(trial.id, event.kind, event.reason, trial.attempt)

    def _keep_time(self) -> None:
        now = time.monotonic()
        for place in self._places.overdue(now):
            place.heard = now
            if (task := place.training) is not None:
                task.timed_out = task.begun
                task.deadline = now + TICK_S
            self._crew.end(place.key)

    def _until_next(self) -> float:
        return max(0.0, min(TICK_S, self._places.next_deadline() - time.monotonic()))
