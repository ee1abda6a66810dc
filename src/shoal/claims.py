"""Whose checkpoints a folder holds: one experiment's, which a fresh run would load as its own."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from shoal.buckets import Bucket
from shoal.checkpoints import remove, saved

OWNER = ".shoal.json"  # in such a folder: whose it is
CLAIM_S = 10.0  # a claim takes a millisecond: whoever takes this long will not be waited for


class CheckpointError(Exception):
    """A folder that cannot hold the checkpoints of this experiment: the message says what to do."""


def claim(
    root: Path, experiment: str, home: Path, exists: Callable[[Path, str], bool], *, new: bool
) -> None:
    """Make `root` the checkpoint folder of `experiment`, or see that it still is.

    Of several at the same moment one gets it.

    Args:
        root: the folder.
        experiment: an id.
        home: where that experiment lives, to be written down.
        exists: whether there is an experiment with this id in this home.
        new: whether it is about to begin, and can have no checkpoints yet.

    Raises:
        CheckpointError: it holds checkpoints already, which a fresh run would load as its own, or
            it is another experiment's, or it cannot be written to.
    """
    if new and owner_of(root) != experiment:
        _refuse_members(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _owner_file(root) as file:
            owner, whose = _owner(file.buffer.read())
            if owner == experiment:
                return
            if owner and (not new or exists(Path(whose or home), owner)):
                which = "by now " if not new else ""
                raise CheckpointError(
                    f"{root} is {which}the checkpoint folder of experiment {owner}: name another "
                    f"folder, or `shoal rm {owner}`."
                )
            if new:
                _refuse_members(root)
            file.seek(0)
            file.truncate()
            file.write(json.dumps({"experiment": experiment, "home": str(home)}) + "\n")
    except OSError as error:
        raise CheckpointError(f"{root} cannot hold checkpoints: {error}") from error


def claim_bucket(
    url: str, experiment: str, home: Path, exists: Callable[[Path, str], bool], *, new: bool
) -> None:
    """Make a place in an object store that of the checkpoints of `experiment`; see `claim`.

    Of several at the same moment one gets it, where the store has conditional writes.

    Raises:
        CheckpointError: it is another experiment's, holds checkpoints, or cannot be reached.
    """
    try:
        bucket = Bucket(url)
        claimed = json.dumps({"experiment": experiment, "home": str(home)}).encode()
        while True:
            before = bucket.read(OWNER)
            owner, whose = _owner(before or b"")
            if owner == experiment:
                return
            if owner and (not new or exists(Path(whose or home), owner)):
                raise CheckpointError(
                    f"{url} holds the checkpoints of experiment {owner}: name another place, or "
                    f"`shoal rm {owner}`."
                )
            if new and (there := next(bucket.places(), None)) is not None:
                raise CheckpointError(
                    f"{url} already holds checkpoints ({there}), of an earlier run: a fresh run "
                    "would load them as its own. Empty it, or name another place."
                )
            if bucket.swap(OWNER, before, claimed):
                return
    except OSError as error:
        raise CheckpointError(f"{url} cannot hold checkpoints: {error}") from error


def release_bucket(url: str, experiment: str) -> None:
    """Delete the checkpoints of `experiment` in an object store.

    Raises:
        CheckpointError: it cannot be reached.
    """
    try:
        bucket = Bucket(url)
        if _owner(bucket.read(OWNER) or b"")[0] == experiment:
            for place in list(bucket.places()):
                bucket.remove(place)
            bucket.erase(OWNER)
    except OSError as error:
        raise CheckpointError(f"checkpoints in {url} cannot be deleted: {error}") from error


def _refuse_members(root: Path) -> None:
    there = next(members(root), None)
    if there is None:
        return
    if not there.is_dir():
        raise CheckpointError(
            f"{there} is in the place of member {there.name}'s checkpoints. Remove it, or name "
            "another folder for checkpoints."
        )
    owner = owner_of(root)
    whose = f"those of experiment {owner}" if owner else "of an earlier run"
    forward = f"`shoal resume {owner}`, or `shoal rm {owner}`, or" if owner else "Empty it, or"
    raise CheckpointError(
        f"{root} already holds checkpoints ({there.name}/...), {whose}: a fresh run would load "
        f"them as its own. {forward} name another folder."
    )


@contextmanager
def _owner_file(root: Path) -> Iterator[TextIO]:
    """The file that says whose `root` is, which nobody else reads or writes meanwhile."""
    path = root / OWNER
    while True:
        if path.is_symlink() or (path.exists() and not path.is_file()):  # a trial's doing
            raise FileExistsError(f"{path} is no file: remove it")
        with path.open("a+", encoding="utf-8") as file:
            _lock(file)
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                file.seek(0)
                yield file
                return
            # it was released as we waited for it


def _lock(file: TextIO) -> None:
    until = time.monotonic() + CLAIM_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(
                    f"another process has held {file.name} for {CLAIM_S:g} s"
                ) from None
            time.sleep(0.02)


def owner_of(root: Path) -> str | None:
    """The experiment whose checkpoints `root` holds, as far as it says."""
    path = root / OWNER
    try:
        return _owner(path.read_bytes())[0] if path.is_file() else None
    except OSError:
        return None


def _owner(text: bytes) -> tuple[str | None, str | None]:
    """(the owner, its home), as far as `text` says."""
    try:
        written = json.loads(text)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(written, dict):
        return None, None
    owner, home = written.get("experiment"), written.get("home")
    return owner if isinstance(owner, str) else None, home if isinstance(home, str) else None


def members(root: Path) -> Iterator[Path]:
    """What there is in `root` in a member's name, but for empty folders."""
    if root.is_dir():
        for path in sorted(root.iterdir()):
            if path.name.isascii() and path.name.isdigit() and (saved(path) or not path.is_dir()):
                yield path


def release(root: Path, experiment: str, population: int) -> None:
    """Delete the checkpoints of `experiment` in `root`, and `root` too if nothing else is in it."""
    if owner_of(root) != experiment:
        return
    for path in members(root):
        if int(path.name) < population:
            remove(path)
    (root / OWNER).unlink(missing_ok=True)
    if not saved(root):
        remove(root)
