"""Checkpoints: `<root>/<member>/<step>`, written by trials, kept by who can still need them.

What a folder holds is the trial's affair. An exploit copies no bytes: the trial is pointed to the
folder of the one it starts from.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from shoal.buckets import Bucket, Upload
from shoal.core.live import Live
from shoal.core.population import Population
from shoal.core.records import Trial
from shoal.durable import AtOnce, Later, boot, make_last

Keep = Literal["live", "all", "lineage"]
WORKERS = ".shoal.json"  # in a checkpoint: a worker has saved it, with what it knows of it
AWAY = ".shoal.away.json"  # in a checkpoint: all that there is here, as the rest is in a store
LASTS = ".lasts"  # beside that, once it would survive a power cut
BACKLOG = 64  # checkpoints to be made last or deleted, before anybody waits for it


class Checkpoints:
    """The checkpoints of one experiment under `root`.

    Args:
        root: the folder; it is made when the first trial needs it.
        population: whose trials they are of.
        keep: "live": what a live member, a running trial or the best score can need; "lineage":
            that and all its ancestors, so that the whole history of the best is there; "all".
        later: makes what was saved last, and deletes what nobody needs, in this order: whenever the
            power fails, what the journal says is there, or what it can be made from.
        store: where they are sent as well, each once it is saved, and had from where they are not
            here.
        sending: sends and deletes there, in order.
        here: whether trials run on this machine, and need them on it.

    Attributes:
        live: the trials that were last said to be needed.
    """

    def __init__(
        self,
        root: Path,
        population: Population,
        keep: Keep = "live",
        later: Later | None = None,
        *,
        store: Bucket | None = None,
        sending: Later | None = None,
        here: bool = True,
    ) -> None:
        self.root, self.population, self.keep = root, population, keep
        self._later, self._sending = later or AtOnce(), sending or AtOnce()
        self._store, self._here = store, here
        self._leaving: set[int] = set()  # are about to be deleted
        self.live = Live()
        self._changes = self.live.follow()
        self._remade = False
        self.trouble = ""  # why the last state that could not be saved could not
        self._there = set(self._found())
        self._origins: dict[int, int] = {}  # by live trial: the one whose checkpoint it needs
        self._needed: dict[int, set[int]] = {}  # the same the other way round
        self._children = Counter[int]()  # by ancestor of those: how many of its children are kept
        self._used = Counter[int]()  # by trial: how many are reading its checkpoint
        self._doubtful = set(self._there)  # perhaps needless now

    def save(self, trial: Trial) -> Path:
        """The folder that `trial` saves to."""
        return self.root / str(trial.member) / str(trial.step)

    def load(self, trial: Trial) -> Path | None:
        """The folder that `trial` starts from: that of its parent, None for a fresh start."""
        return None if trial.parent is None else self.save(self.population.trials[trial.parent])

    def prepare(self, trial: Trial) -> None:
        """Let `trial` find nothing in the folder that it will make, as if it had never run.

        Raises:
            OSError: the disk is full, or of no use in another way.
        """
        self.expect(trial.id)
        member = self.save(trial).parent
        if member.is_symlink() or not member.is_dir():  # a trial may have put anything there
            member.unlink(missing_ok=True)
        remove(self.save(trial))
        member.mkdir(parents=True, exist_ok=True)
        self._appeared(trial.id)

    def expect(self, id: int) -> None:
        """Let nothing be under way that would delete what the trial `id` is about to save."""
        if id in self._leaving:
            self._later.flush()
            self._sending.flush()

    def unsaved(self, live: Live) -> str:
        """Why nothing is left of what was trained, where `live` is needed; empty: something is.

        Of states that workers hold; a function or command may have nothing to save. A checkpoint of
        an earlier step is something: what came after can be made again from it.
        """
        if not self.remade or not live or self._there:
            return ""
        return self.trouble

    def has(self, id: int) -> bool:
        """Whether the checkpoint of the trial `id` is there, as far as is known."""
        return id in self._there

    def published(self, id: int) -> None:
        """Take in that the trial `id` has a checkpoint now, and have it made last.

        It may be used at once. Whoever resumes after a power cut takes it for one only if it lasts.
        """
        folder = self.save(self.population.trials[id])

        def last() -> None:
            with suppress(FileNotFoundError):  # it was deleted, or is being saved again
                make_last(folder, self.root)
                (folder / LASTS).touch()
                make_last(folder, folder)

        self._later(last)
        self.send(self.population.trials[id])
        self._appeared(id)

    def last(self, trial: Trial, then: Callable[[OSError | None], None]) -> None:
        """Make what `trial` has saved last, and then call `then`, in whatever thread that is."""
        folder = self.save(trial)

        def last() -> None:
            try:
                make_last(folder, self.root)
            except OSError as error:
                then(error)
            else:
                then(None)

        self._later(last)
        self.send(trial)

    def send(self, trial: Trial) -> None:
        """Have what `trial` has saved sent to the store, if that is not where it is."""
        store, folder = self._store, self.save(trial)
        if store is None:
            return

        def send() -> None:
            with suppress(FileNotFoundError):  # nobody needs it any more
                if saved(folder) and not (folder / AWAY).exists():
                    store.publish(place(trial), store.upload(folder, place(trial)))

        self._sending(send)

    def bring(self, id: int) -> bool:
        """Whether the checkpoint of the trial `id` is on this machine, after having it brought.

        Raises:
            OSError: it cannot be brought, or the disk is full.
        """
        folder = self.save(self.population.trials[id])
        if saved(folder) and not (folder / AWAY).exists():
            return True
        there = place(self.population.trials[id])
        if self._store is None or (upload := self._store.published(there)) is None:
            return False
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._store.download(there, upload, folder)
        return True

    def _at_hand(self, id: int) -> bool:
        """Whether a trial can load the checkpoint of the trial `id`."""
        folder = self.save(self.population.trials[id])
        if self._store is not None and self._here:
            return self.bring(id)
        if self._store is None or saved(folder):
            return saved(folder)
        upload = self._store.published(place(self.population.trials[id]))
        if upload is not None:
            leave_note(folder, upload)
        return upload is not None

    def _appeared(self, id: int) -> None:
        self._there.add(id)
        self._doubtful.add(id)
        parent = self.population.trials[id].parent
        if not self._remade or parent is None:
            return
        before = self._origin(parent)
        for live in tuple(self._needed.get(before, ())):  # it may be nearer to some of these
            if (origin := self._origin(live)) != before:
                self._need(live, origin)
                self._forget(live, before)

    def use(self, id: int) -> None:
        """Keep the checkpoint of the trial `id`, whoever needs it next, as it is being read."""
        self._used[id] += 1

    def unuse(self, id: int) -> None:
        """Take in that one reader of the checkpoint of the trial `id` has done with it."""
        self._used[id] -= 1
        self._doubtful.add(id)

    @property
    def remade(self) -> bool:
        """Whether what was not saved is made again from an ancestor's checkpoint.

        Then it is the nearest one that is kept.
        """
        return self._remade

    @remade.setter
    def remade(self, remade: bool) -> None:
        if remade != self._remade:
            self._remade = remade
            self._need_anew(self._origins.copy())

    def way(self, id: int) -> tuple[int | None, list[Trial]]:
        """(the nearest ancestor of the trial `id` that was saved, what to train from there).

        That is itself and nothing to train where it was saved, and None and all of its lineage
        where no ancestor was.
        """
        steps: list[Trial] = []
        here: int | None = id
        while here is not None and not (here in self._there and self._is_there(here)):
            steps.append(self.population.trials[here])
            here = steps[-1].parent
        return here, steps[::-1]

    def _is_there(self, id: int) -> bool:
        there = self._at_hand(id)
        if not there:  # somebody has removed it
            self._there.discard(id)
        return there

    def lost(self, trial: Trial) -> bool:
        """Whether what `trial` is to start from was saved and is not there any more."""
        if trial.parent is None or trial.parent in self.population.unsaved:
            return False
        return not self._at_hand(trial.parent)

    def retain(self, live: Live) -> None:
        """Delete the checkpoints that no trial in `live` needs.

        Time goes into what has changed since the last call, not into how many are live.
        """
        if live is not self.live:
            self.live, self._changes = live, live.follow()
            self._need_anew(live)
        elif changed := self._changes.copy():
            self._changes.clear()
            for id in changed:
                if id in live and id not in self._origins:
                    self._need(id, self._origin(id))
            for id in changed:
                if id not in live and (origin := self._origins.pop(id, None)) is not None:
                    self._forget(id, origin)
        if self.keep == "all":
            self._doubtful.clear()
        for id in self._doubtful & self._there:
            if not (self._is_needed(id) or self._used[id]):
                self._leave(id)
        self._keep_up()
        self._doubtful = {id for id in self._doubtful if self._used[id]}

    def _keep_up(self) -> None:
        """Wait for what is to be done, if that is much: the disk is not to fill up meanwhile."""
        for later in (self._later, self._sending):
            if later.waiting > BACKLOG:
                later.flush()

    def settle(self) -> None:
        """Return when all that is to last lasts, and all that is to be deleted is gone.

        Raises:
            OSError: the disk is full, or worse.
        """
        self._later.flush()
        self._sending.flush()

    def _leave(self, id: int) -> None:
        self._there.discard(id)
        self._leaving.add(id)
        trial, store = self.population.trials[id], self._store
        folder = self.save(trial)

        def leave() -> None:
            remove(folder)
            if store is None:
                self._leaving.discard(id)

        def leave_store() -> None:
            assert store is not None
            store.remove(place(trial))
            self._leaving.discard(id)

        self._later(leave)
        if store is not None:
            self._sending(leave_store)

    def _found(self) -> Iterator[int]:
        """The trials whose checkpoints are there."""
        here = {f"{path.parent.name}/{path.name}": path for path in self.root.glob("*/*")}
        there = {place for place, path in here.items() if lasts(path)}
        unsent: set[str] = set()
        if self._store is not None:
            away = set(self._store.places())
            for name in away & (here.keys() - there):  # the power has failed, and that has it
                remove(here[name])
            unsent = there - away  # a controller that has died was about to
            there |= away
        for trial in self.population.trials if there else ():
            if place(trial) in there:
                yield trial.id
                if place(trial) in unsent:
                    self.send(trial)

    def _origin(self, id: int) -> int:
        """The trial whose checkpoint the trial `id` needs: its own, or the nearest that is there.

        The first of its lineage where there is none.
        """
        while self._remade and id not in self._there:
            if (parent := self.population.trials[id].parent) is None:
                break
            id = parent
        return id

    def _need_anew(self, live: Iterable[int]) -> None:
        before, self._origins, self._needed = self._needed, {}, {}
        self._children.clear()
        self._doubtful |= before.keys() | self._there
        for id in live:
            self._need(id, self._origin(id))

    def _need(self, id: int, origin: int) -> None:
        """Take in that the live trial `id` needs the checkpoint of `origin`."""
        self._origins[id] = origin
        needed = self._is_needed(origin)
        self._needed.setdefault(origin, set()).add(id)
        while self.keep == "lineage" and not needed:
            parent = self.population.trials[origin].parent
            if parent is None:
                break
            needed = self._is_needed(parent)
            self._children[parent] += 1
            origin = parent

    def _forget(self, id: int, origin: int) -> None:
        """Take in that the trial `id` does not need the checkpoint of `origin` any more."""
        self._doubtful.add(origin)
        self._needed[origin].discard(id)
        if not self._needed[origin]:
            del self._needed[origin]
        while self.keep == "lineage" and not self._is_needed(origin):
            parent = self.population.trials[origin].parent
            if parent is None:
                break
            self._children[parent] -= 1
            self._doubtful.add(parent)
            origin = parent

    def _is_needed(self, id: int) -> bool:
        return id in self._needed or self._children[id] > 0


def place(trial: Trial) -> str:
    """What the checkpoint of `trial` is called in a store, and below any root."""
    return f"{trial.member}/{trial.step}"


def leave_note(folder: Path, upload: Upload) -> None:
    """Let `folder` say that what belongs into it is in a store.

    Raises:
        OSError: the disk is full, or worse.
    """
    remove(folder)
    folder.mkdir(parents=True)
    (folder / AWAY).write_text(upload.dump())


def away(folder: Path) -> Upload | None:
    """What belongs into `folder`, if that is in a store and not here."""
    try:
        return Upload.parse((folder / AWAY).read_bytes())
    except (OSError, ValueError):
        return None


def lasts(folder: Path) -> bool:
    """Whether `folder` is a checkpoint, and as it was saved, even if the power has failed since.

    A script's is, if the journal says that it has finished. A worker's is, if its files are there
    and as long as they were, and it was noted that it lasts or the machine was not down since.
    """
    if not folder.is_dir():
        return False
    if not (folder / WORKERS).exists():
        return True
    try:
        ours = json.loads((folder / WORKERS).read_bytes())
        missing = shortened(folder, ours.get("files", {}))
    except (OSError, ValueError, AttributeError, TypeError):
        return False
    if missing is not None:
        return False
    return (folder / LASTS).exists() or (boot() is not None and ours.get("boot") == boot())


def lengths(folder: Path) -> dict[str, int]:
    """How long each file in `folder` is, by its path there: what it takes to miss one."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def shortened(folder: Path, before: Mapping[str, int]) -> str | None:
    """What is missing in `folder` of files that were as long as `before` says; None: nothing."""
    for name, length in before.items():
        try:
            now = (folder / name).stat().st_size
        except OSError:
            return f"{folder / name} is gone"
        if now < length:
            return f"{folder / name} has {now} bytes, and had {length}"
    return None


def saved(folder: Path) -> bool:
    """Whether there is anything in `folder`."""
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def remove(folder: Path) -> None:
    """Delete `folder` with all it holds, if it is there; also what is there in its place."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:  # rmtree would wait for somebody to write to a FIFO
        with suppress(OSError):
            folder.unlink()
