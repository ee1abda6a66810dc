"""Where experiments live: `$SHOAL_HOME/<id>/`, one folder each.

<id>/journal.db   everything that was decided and that happened
<id>/lock         held by the one controller that drives it
<id>/trials/      <trial>/<attempt>/: trial.json, metrics.jsonl, stdout, stderr
<id>/checkpoints/ <member>/<step>/, unless the experiment names another folder
"""

import errno
import fcntl
import json
import os
import resource
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shoal.stores.sqlite import LONGEST_PATH, SqliteStore, StoreError, reading

# of a configuration, what whoever looks at an experiment asks for
ASKED = {
    "checkpoints", "max_trials", "metric", "mode", "population", "space", "steps", "synchronous",
    "workers",
}  # fmt: skip
PRIVATE = 0o700  # mode of a folder
ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # nothing that looks like something else


class ExperimentError(Exception):
    """An experiment that is not there, not to be had, or not to be told: the message says."""


def trouble(error: OSError) -> str:
    """What `error` means for whoever wants to keep something on a disk."""
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk is full{where}"
    if error.errno == errno.EFBIG:
        return f"a file would be larger than `ulimit -f` allows{where}"
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = f"more files would be open than the {most} of `ulimit -n`"
        return f"{limit}: raise it, or use fewer workers"
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return f"nothing can be written{where} ({error.strerror})"
    return str(error)


def default_home() -> Path:
    """`$SHOAL_HOME`, or `~/shoal-experiments`."""
    return Path(os.environ.get("SHOAL_HOME") or "~/shoal-experiments").expanduser().absolute()


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one experiment."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def journal(self) -> Path:
        return self.path / "journal.db"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def trial(self, id: int, attempt: int) -> Path:
        """Where one attempt at a trial reads and writes."""
        return self.path / "trials" / str(id) / str(attempt)

    @contextmanager
    def open(self) -> Iterator[SqliteStore]:
        """The journal, to be read.

        Raises:
            ExperimentError: it cannot be, wherever it breaks off.
        """
        try:
            with reading(self.journal) as store:
                yield store
        except StoreError as error:
            raise ExperimentError(f"experiment {self.id}: {error}") from error

    def holder(self) -> tuple[int, str] | None:
        """(pid, host) of the controller that drives the experiment now."""
        try:
            with self.lock.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    owner = json.loads(file.read())
                    return int(owner["pid"]), str(owner["host"])
        except (OSError, ValueError, KeyError):
            return None
        return None


class Lock:
    """The right to drive an experiment: one controller at a time has it, and death gives it back.

    Raises:
        ExperimentError: another controller has it, which is named.
        OSError: nobody can have it from here.
    """

    def __init__(self, folder: Folder) -> None:
        self._file = folder.lock.open("a+")
        for patience in (*[0.01] * 50, 0.0):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = folder.holder()
                if owner is None and patience:  # somebody is only looking, or is about to sign
                    time.sleep(patience)
                    continue
                self._file.close()
                pid, host = owner or ("unknown", "unknown")
                raise ExperimentError(
                    f"experiment {folder.id} is being run by process {pid} on {host}: "
                    f"`shoal stop {folder.id}` ends that"
                ) from None
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), "host": os.uname().nodename}))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.truncate(0)
        self._file.close()


def locked(folder: Folder) -> Lock:
    """The right to drive the experiment in `folder`.

    Raises:
        ExperimentError: it is not to be had.
    """
    try:
        return Lock(folder)
    except OSError as error:
        raise ExperimentError(
            f"nothing can be done with experiment {folder.id} from here: {trouble(error)}"
        ) from error


def create(home: Path, fill: Callable[[Folder], None]) -> Folder:
    """A new experiment in `home`, filled by `fill`: it appears whole, or not at all.

    What a maker that was killed has left half made is swept away.

    Raises:
        ExperimentError: `home` cannot be written to.
    """
    longest = len(os.fsencode(home)) + len(f"/.{'x' * 8}.partial/{'x' * 8}/journal.db")
    if longest > LONGEST_PATH:
        raise ExperimentError(
            f"experiments cannot be kept in {home}: its path is too long, with what goes into it "
            f"{LONGEST_PATH} bytes are the most. Set SHOAL_HOME to another folder."
        )
    new = False
    try:
        new = not home.exists()
        home.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        sweep(home)
        partial, lock = place(home)
        try:
            with lock:
                fill(partial)
                partial.path.rename(home / partial.id)
        finally:
            shutil.rmtree(partial.path.parent, ignore_errors=True)
    except (OSError, StoreError) as error:
        reason = trouble(error) if isinstance(error, OSError) else str(error)
        raise ExperimentError(
            f"experiments cannot be kept in {home}: {reason}. Set SHOAL_HOME to another folder."
        ) from error
    finally:
        if new:
            with suppress(OSError):  # it holds the experiment
                home.rmdir()
    return Folder((home / partial.id).resolve())


def place(home: Path) -> tuple[Folder, "Lock"]:
    """A folder for a new experiment, not seen as one until it is renamed, and the lock on it.

    Nobody but its owner can look into it, unless the group of `home` may write there.
    """
    shared = stat.S_IMODE(home.stat().st_mode) & 0o022 == 0o020
    while True:
        id = "".join(ALPHABET[byte % len(ALPHABET)] for byte in os.urandom(8))
        partial = Folder(partial_of(home, id) / id)
        try:
            partial.path.mkdir(parents=True)
            inherited = partial.path.stat().st_mode & stat.S_ISGID
            partial.path.chmod(inherited | (0o770 if shared else PRIVATE))
            lock = Lock(partial)
        except (FileNotFoundError, ExperimentError):
            continue  # swept before it was locked
        if partial.lock.exists():
            return partial, lock


def sweep(home: Path) -> None:
    """Delete what is half made in `home` by makers that are gone."""
    for path in home.glob(".*.partial"):
        with suppress(OSError):
            path.rmdir()  # nothing is in it yet
        with suppress(OSError, ExperimentError):
            for folder in map(Folder, path.iterdir()):
                with Lock(folder):  # its maker would have it
                    shutil.rmtree(path)


def partial_of(home: Path, id: str) -> Path:
    """Where an experiment is while it is made."""
    return home / f".{id}.partial"


def exists(home: Path, id: str) -> bool:
    """Whether there is an experiment `id` in `home`, or one is being made."""
    return (home / id).exists() or partial_of(home, id).exists()


def link(folder: Folder, home: Path) -> None:
    """Let an experiment that lives elsewhere be found in `home` as well, if that can be written."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        (home / folder.id).symlink_to(folder.path)
    except OSError:
        return  # it can be named by its folder


def experiments(home: Path) -> list[Folder]:
    """The experiments in `home`, oldest first."""
    return sorted(folders(home), key=lambda folder: (created(folder), folder.id))


def find(home: Path, name: str | None) -> Folder:
    """The experiment with that id, name or folder; of one name, the newest; None: of all.

    Raises:
        ExperimentError: there is none.
    """
    if name is not None:
        for path in (home / name, Path(name).expanduser().absolute()):
            if Folder(path).journal.is_file():
                return Folder(path.resolve())
    there = experiments(home)
    if name is not None:
        found = [folder for folder in there if name_of(folder) == name]
    else:
        found = next(([f] for f in reversed(there) if readable(f)), there)
    if found:
        return found[-1]
    if name is None:
        raise ExperimentError(f"there is no experiment in {home} yet: `shoal run CONFIG` makes one")
    known = ", ".join(f"{folder.id} ({name_of(folder)})" for folder in there[-5:][::-1]) or "none"
    raise ExperimentError(f"no experiment has the id, name or folder {name!r}; in {home}: {known}")


def readable(folder: Folder) -> bool:
    """Whether there is anything to be told of it."""
    with suppress(ExperimentError), folder.open() as store:
        next(store.read(), None)
        return is_experiment(store.meta())
    return False


def is_experiment(meta: Mapping[str, str]) -> bool:
    """Whether a journal that says this of itself is an experiment's."""
    try:
        config, created = json.loads(meta["config"]), float(meta["created"])
        told = config.keys() >= ASKED and isinstance(config["space"], dict)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return False
    return "name" in meta and told and created >= 0


def name_of(folder: Folder) -> str:
    """What the user called it."""
    return _meta(folder).get("name", "")


def created(folder: Folder) -> float:
    """When it was made, in seconds since the epoch."""
    try:
        return float(_meta(folder).get("created", "0"))
    except ValueError:
        return 0.0


def folders(home: Path) -> Iterator[Folder]:
    """The experiments in `home`, in no order; none is opened."""
    with suppress(OSError):
        for path in home.iterdir():
            if not path.name.startswith(".") and _has_journal(path):
                yield Folder(path.resolve())


def _has_journal(path: Path) -> bool:
    try:
        return Folder(path).journal.is_file()
    except OSError:  # somebody else's
        return False


def _meta(folder: Folder) -> dict[str, str]:
    with suppress(ExperimentError), folder.open() as store:
        return store.meta()
    return {}
