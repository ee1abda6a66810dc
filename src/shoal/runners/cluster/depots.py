"""Where a host loads checkpoints from and saves them to: a folder that all mount, or a store.

Whoever leads hosts names the folder of a checkpoint as it is on his machine. What a host saves lies
in a place of its own until he has heard of it and puts it where it belongs: if he has given the
host up, that may be somebody else's by now.
"""

import errno
import os
import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

from shoal.buckets import Bucket, Upload
from shoal.checkpoints import saved
from shoal.runners.base import RunnerError

STAGING_HERE = "staging-"  # in the cache of a node: what the host with this process id is saving
STAGING = ".shoal-staging"  # beside the members' folders: what hosts are saving
CACHE_BYTES = 20 << 30  # of what a node keeps of checkpoints
ROOM_BYTES = 1 << 20  # with less than this nothing can be saved
SPARE = 10  # the part of the disk that is to stay free
UNUSED_S = 600.0  # after which something may go from there


class Depot(Protocol):
    """What a host does with checkpoints, wherever they are."""

    def load(self, path: str) -> str:
        """Where that is on this machine.

        Raises:
            FileNotFoundError: it is not there any more.
            RunnerError: there is no room for it here.
        """
        ...

    def stage(self, path: str) -> str:
        """Where to save what will be that."""
        ...

    def drop(self, path: str) -> None:
        """Forget what may have been saved for it."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


class Mounted:
    """Checkpoints in a folder that is the same on all machines.

    Args:
        root: that folder.

    Raises:
        RunnerError: it is not there.
    """

    def __init__(self, root: str) -> None:
        if not Path(root).is_dir():
            raise RunnerError(f"there is no folder {root}, where checkpoints are")
        self._root = root
        self._staging = Path(root) / STAGING / uuid.uuid4().hex

    def load(self, path: str) -> str:
        return path

    def stage(self, path: str) -> str:
        return str(self._staging / Path(path).relative_to(self._root))

    def drop(self, path: str) -> None:
        shutil.rmtree(self.stage(path), ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)


class Stored:
    """Checkpoints in an object store; what this node has had or made of them is kept.

    Args:
        bucket: that store.
        root: the folder that stands for it where hosts are led from.
        experiment: whose they are.
    """

    def __init__(self, bucket: Bucket, root: str, experiment: str) -> None:
        self._bucket, self._root = bucket, root
        self._cache = Path(tempfile.gettempdir()) / f"shoal-cache-{experiment}"
        self._staging = self._cache / f"{STAGING_HERE}{os.getpid()}-{uuid.uuid4().hex}"
        self._staging.mkdir(parents=True)

    def load(self, path: str) -> str:
        place = self._place(path)
        upload = self._bucket.published(place)
        if upload is None:
            raise FileNotFoundError(f"{self._bucket.url}/{place} is gone")
        here = self._kept(upload.name, place)
        if not here.is_dir():
            brought = self._staging / upload.name
            try:
                self._bucket.download(place, upload, brought)
            except OSError as error:
                self.check_room(str(error))
                raise
            here.parent.mkdir(parents=True, exist_ok=True)
            try:
                brought.rename(here)
            except OSError:
                if not here.is_dir():
                    raise
                shutil.rmtree(brought)  # another host has had it brought: somebody may read that
            self._make_room()
        with suppress(OSError):
            os.utime(self._cache / upload.name)
        return str(here)

    def stage(self, path: str) -> str:
        return str(self._staging / self._place(path))

    def check_room(self, reason: str) -> None:
        """See that something, which failed for `reason`, did not because this disk is full.

        Raises:
            RunnerError: it did: it is no trial's fault, and the next one would fail as well.
        """
        free = shutil.disk_usage(self._cache).free
        if free < ROOM_BYTES or os.strerror(errno.ENOSPC) in reason:
            raise RunnerError(
                f"its disk is full: checkpoints of trials go through {self._cache}, and there are "
                f"{free >> 20} MB left"
            )

    def send_off(self, path: str) -> Upload | None:
        """Send what was saved for it; None if nothing was. May be called in any thread.

        Raises:
            OSError: it cannot be sent.
        """
        staged, place = Path(self.stage(path)), self._place(path)
        if not saved(staged):
            return None
        upload = self._bucket.upload(staged, place)
        here = self._kept(upload.name, place)
        here.parent.mkdir(parents=True)
        staged.rename(here)  # others on this node need not have it brought
        self._make_room()
        return upload

    def drop(self, path: str) -> None:
        shutil.rmtree(self.stage(path), ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)
        others = self._cache.glob(f"{STAGING_HERE}*")
        if not any(psutil.pid_exists(int(path.name.split("-")[1])) for path in others):
            shutil.rmtree(self._cache, ignore_errors=True)

    def _place(self, path: str) -> str:
        return Path(path).relative_to(self._root).as_posix()

    def _kept(self, name: str, place: str) -> Path:
        return self._cache / name / place

    def _make_room(self) -> None:
        """Let what was not used for longest go, if there is much."""
        with suppress(OSError):  # others may do the same
            kept = sorted(
                (path.stat().st_mtime, path)
                for path in self._cache.iterdir()
                if not path.name.startswith(STAGING_HERE)
            )
            sizes = {path: weight(path) for _, path in kept}
            disk = shutil.disk_usage(self._cache)
            over = max(sum(sizes.values()) - CACHE_BYTES, disk.total // SPARE - disk.free)
            for used, path in kept:
                if over <= 0 or used > time.time() - UNUSED_S:
                    break
                shutil.rmtree(path, ignore_errors=True)
                over -= sizes[path]


def weight(folder: Path) -> int:
    """How many bytes there are in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
