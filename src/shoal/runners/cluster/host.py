"""A host: what runs on a node of a cluster, and has one worker at a time below it.

Whoever leads it tells it orders, and hears what its worker says, what that prints, and how it ends.
The worker is a process of its own: so it begins warm, a crash of the user's code is told from the
loss of a node, and the host answers while something is trained.

Orders: `{"start": worker}`, `{"tell": worker, "message": what}`, `{"end": worker}` and
`{"dismiss": worker}`. What is heard:

    {"here": name of the machine, "node": id of the node}
    {"worker": key, "said": message}        see `worker/worker.py`
    {"worker": key, "gone": kind, "reason": text}
    {"staged": folder, "to": folder}        what is saved, and where it is to be: before it is said
    {"uploaded": manifest, "to": folder, "key": of what}
                                            the same, where that folder stands for an object store:
                                            after it is said, which then has "sending" in it, as
                                            the worker goes on meanwhile; None: nothing was saved
    {"missing": folder}                     it was to be loaded, and is gone
    {"printed": attempt, "stream": name of a file, "data": bytes}
    {"log": level, "text": text}
    {"useless": reason}                     it cannot do anything, and has ended
"""

import os
import shutil
import socket
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from shoal.buckets import Bucket
from shoal.core.records import LOST
from shoal.home import Folder
from shoal.runners import written
from shoal.runners.base import RunnerError
from shoal.runners.cluster.depots import Depot, Mounted, Stored
from shoal.runners.cluster.script import Script, ScriptCrew
from shoal.runners.crew import Crew, Event, Gone, ProcessCrew, Said
from shoal.runners.forkserver import Imports
from shoal.runners.gpus import Gpus
from shoal.runners.launch import environment

TICK_S = 0.5  # between two looks at what a trial has printed
CHUNK, PRINTED = 1 << 18, 16 << 20  # bytes of a stream of a trial: at a time, and in all
CLOSE_S = 10.0
STREAMS = ("stdout", "stderr", "metrics.jsonl")


@dataclass(frozen=True, slots=True)
class Duty:
    """What a host is there for.

    Attributes:
        experiment: its id.
        work: what is trained: `{"module": name, "name": name}` or `{"pickled": bytes}`; or the
            command that trains.
        directory: where trials run; None for where the host finds itself, in what was shipped.
        env: variables for them.
        argv: the arguments of whoever runs the experiment.
        imports: what its workers share.
        checkpoints: the folder in which they are, on every node; or which stands for
        store: the URL of an object store.
        hide_gpus: whether they are to see none.
    """

    experiment: str
    work: Mapping[str, Any] | Script
    directory: str | None
    env: Mapping[str, str]
    argv: Sequence[str]
    imports: Imports
    checkpoints: str
    store: str | None = None
    hide_gpus: bool = False


@dataclass(slots=True)
class Printing:
    """What a trial prints, as far as it was told."""

    folder: Path
    told: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))


class Host:
    """One host. Its methods may be called from any thread.

    Args:
        duty: what it is there for.
        node: the id of the node that it is on.
    """

    def __init__(self, duty: Duty, node: str) -> None:
        self._duty = duty
        self._heard: list[Mapping[str, Any]] = [{"here": socket.gethostname(), "node": node}]
        self._changed = threading.Condition()
        self._orders: deque[Mapping[str, Any]] = deque()
        self._early: dict[int, Sequence[Mapping[str, Any]]] = {}  # orders before their turn
        self._turn = 0
        self._printing: dict[str, Printing] = {}  # by attempt
        self._depot: Depot | None = None
        self._saving: dict[str, str] = {}  # by what it is: where it is to be, in the end
        self._crew: Crew | None = None
        self._sender = ThreadPoolExecutor(1, "shoal-sender")
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="shoal-host", daemon=True)
        self._thread.start()

    def tell(self, turn: int, orders: Sequence[Mapping[str, Any]]) -> None:
        """Take orders; they are carried out by `turn`, whichever way they come in."""
        with self._changed:
            self._early[turn] = orders
            while self._turn in self._early:
                self._orders.extend(self._early.pop(self._turn))
                self._turn += 1
            if self._crew is not None:
                self._crew.wake()

    def hear(self, seconds: float) -> list[Mapping[str, Any]]:
        """What there is to be heard, in order; after so many seconds, perhaps nothing."""
        with self._changed:
            self._changed.wait_for(lambda: self._heard, seconds)
            heard, self._heard = self._heard, []
            return heard

    def close(self) -> None:
        """End what runs below it, and leave nothing behind."""
        with self._changed:
            self._closing = True
            if self._crew is not None:
                self._crew.wake()
        self._thread.join(CLOSE_S)

    def _say(self, message: Mapping[str, Any]) -> None:
        with self._changed:
            self._heard.append(message)
            self._changed.notify_all()

    def _serve(self) -> None:
        folder: Folder | None = None
        try:
            folder = place(self._duty.experiment)
            self._lead(folder)
        except (RunnerError, OSError) as error:
            self._say({"useless": str(error)})
        except Exception:  # noqa: BLE001 (whoever leads it is told)
            self._say({"useless": traceback.format_exc()})
        finally:
            with self._changed:
                crew, self._crew = self._crew, None
            if crew is not None:
                crew.close()
            self._sender.shutdown(wait=False, cancel_futures=True)
            if folder is not None:
                shutil.rmtree(folder.path.parent, ignore_errors=True)
            if self._depot is not None:
                self._depot.close()

    def _lead(self, folder: Folder) -> None:
        duty = self._duty
        os.environ.update(duty.env)  # credentials, perhaps
        directory = Path(duty.directory or Path.cwd())
        if not directory.is_dir():
            raise RunnerError(
                f"there is no folder {directory}, where trials are to run: let it be mounted, or "
                "copied (`ship: true`; where ray.init was called before, by its working_dir)"
            )
        if duty.store is None:
            self._depot = Mounted(duty.checkpoints)
        else:
            self._depot = Stored(Bucket(duty.store), duty.checkpoints, duty.experiment)
        crew = self._made(folder, directory)
        with self._changed:
            self._crew = crew
        looked = time.monotonic()
        while not self._closing:
            self._obey(crew, self._depot, folder)
            for event in crew.wait(TICK_S):
                self._pass_on(event, self._depot)
            if time.monotonic() > looked + TICK_S:
                looked = time.monotonic()
                for key in self._printing:
                    self._tell_printed(key)

    def _made(self, folder: Folder, directory: Path) -> Crew:
        duty, gpus = self._duty, Gpus(0 if self._duty.hide_gpus else None)

        def log(level: str, text: str) -> None:
            self._say({"log": level, "text": text})

        if isinstance(duty.work, Script):
            return ScriptCrew(
                duty.work, folder=folder, directory=directory, env=duty.env, gpus=gpus, log=log
            )
        work = dict(duty.work)
        if "pickled" in work:
            file = folder.path / "work.pickle"
            file.write_bytes(work["pickled"])
            work = {"file": str(file)}
        return ProcessCrew(
            work,
            folder=folder,
            directory=directory,
            env=environment(folder, directory, duty.env),
            gpus=gpus,
            imports=replace(duty.imports, folder=directory),
            argv=duty.argv,
            log=log,
        )

    def _obey(self, crew: Crew, depot: Depot, folder: Folder) -> None:
        while self._orders:
            match self._orders[0]:
                case {"start": key}:
                    if not crew.can_start:
                        return
                    crew.start(key)
                case {"tell": key, "message": message}:
                    self._send(crew, key, message, depot, folder)
                case {"end": key}:
                    crew.end(key)
                case {"dismiss": key}:
                    crew.dismiss(key)
            self._orders.popleft()

    def _send(
        self, crew: Crew, worker: str, message: Mapping[str, Any], depot: Depot, folder: Folder
    ) -> None:
        """Tell a worker something, with this machine's folders in it."""
        match message:
            case {"train": job}:
                key, save, load = job["key"], job.get("save"), job.get("load")
                if load is not None:
                    try:
                        load = depot.load(load)
                    except FileNotFoundError as error:
                        self._say({"missing": job["load"]})
                        failed = {"failed": key, "kind": LOST, "reason": str(error)}
                        self._say({"worker": worker, "said": failed})
                        return
                if save is not None:
                    self._saving[key], save = save, depot.stage(save)
                id, _, attempt = key.partition("/")
                here = folder.trial(int(id), int(attempt))
                self._printing[key] = Printing(here)
                train = {**job, "save": save, "load": load}
                crew.send(worker, {"train": train, "folder": str(here)})
            case {"save": id, "to": to}:
                self._saving[str(id)] = to
                crew.send(worker, {"save": id, "to": depot.stage(to)})
            case _:
                crew.send(worker, message)

    def _pass_on(self, event: Event, depot: Depot) -> None:
        match event:
            case Said(worker, message):
                ended = message.get("done") or message.get("failed")
                if "failed" in message and isinstance(depot, Stored):
                    depot.check_room(message["reason"])
                if ended is not None:
                    self._printed(ended)
                key = str(ended or message.get("saved"))
                to = self._saving.pop(key, None)
                there = to is not None and ("done" in message or "seconds" in message)
                if to is not None and not there:
                    depot.drop(to)
                if to is not None and there and isinstance(depot, Stored):
                    self._say({"worker": worker, "said": {**message, "sending": True}})
                    self._sender.submit(self._send_off, depot, key, to)
                    return
                if to is not None and there:
                    self._say({"staged": depot.stage(to), "to": to})
                self._say({"worker": worker, "said": message})
            case Gone(worker, kind, reason):
                for key in list(self._printing):
                    self._printed(key)
                self._say({"worker": worker, "gone": kind, "reason": reason})

    def _send_off(self, depot: Stored, key: str, to: str) -> None:
        """Send what was saved for `key`, and tell of it."""
        try:
            upload = depot.send_off(to)
        except OSError as error:
            self._fail(str(error))
        except Exception:  # noqa: BLE001 (whoever leads us is told)
            self._fail(traceback.format_exc())
        else:
            manifest = None if upload is None else upload.dump()
            self._say({"uploaded": manifest, "to": to, "key": key})

    def _fail(self, reason: str) -> None:
        """End, as there is nothing that can be done here."""
        with self._changed:
            closing, self._closing = self._closing, True
            if self._crew is not None:
                self._crew.wake()
        if not closing:
            self._say({"useless": reason})

    def _tell_printed(self, key: str) -> None:
        """Tell what the attempt `key` has printed since it was last asked for."""
        printing = self._printing[key]
        for stream in STREAMS:
            file, told = printing.folder / stream, printing.told[stream]
            size = written.size(file)
            while told < min(size, PRINTED) and (data := written.read(file, told, CHUNK)):
                told += len(data)
                self._say({"printed": key, "stream": stream, "data": data})
            if told >= PRINTED and told < size:
                told = size << 32  # it is told once
                self._say({"printed": key, "stream": stream, "data": b"\n[the rest is left out]\n"})
            printing.told[stream] = told

    def _printed(self, key: str) -> None:
        """Tell the last of what the attempt `key` has printed, and forget it."""
        if key in self._printing:
            self._tell_printed(key)
            shutil.rmtree(self._printing.pop(key).folder, ignore_errors=True)


def place(experiment: str) -> Folder:
    """A folder for this process's part in `experiment`; those of hosts that died go."""
    root, mark = Path(tempfile.gettempdir()), f"shoal-{experiment}-"
    for old in root.glob(f"{mark}*"):
        pid = old.name.removeprefix(mark).partition("-")[0]
        if not (pid.isdigit() and psutil.pid_exists(int(pid))):
            shutil.rmtree(old, ignore_errors=True)
    there = Path(tempfile.mkdtemp(prefix=f"{mark}{os.getpid()}-"))
    folder = Folder(there / experiment)
    with suppress(FileExistsError):
        folder.path.mkdir()
    return folder
