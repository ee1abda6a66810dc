"""Read what trials have written: whatever it is, nobody waits for it, or needs much memory."""

import os
import stat
from pathlib import Path

KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFSOCK: "a socket",
}


def read(file: Path, offset: int, limit: int) -> bytes:
    """At most `limit` bytes of `file` from `offset` on; none where it is no regular file."""
    if kind(file) is not None:  # looked at first: to open a device may do something
        return b""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(file, flags)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        return os.pread(descriptor, limit, offset)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def size(file: Path) -> int:
    """How many bytes `file` has, as it says; 0 where it is no regular file."""
    try:
        status = file.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def kind(file: Path) -> str | None:
    """What there is in place of a regular file, in words; None for one, and for nothing at all."""
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"not to be reached ({error.strerror})"
    return None if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "no file")


def unfit(folder: Path) -> str | None:
    """Why `folder` cannot be read as a checkpoint, if it cannot: what is no file and no folder.

    Links are followed to files, and not into folders.
    """
    try:
        mode = folder.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{folder} cannot be read: {error.strerror}"
    if not stat.S_ISDIR(mode):
        return f"{folder} is {KINDS.get(stat.S_IFMT(mode), 'a file')}, where a folder is expected"
    todo = [str(folder)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif not entry.is_file() and not entry.is_dir() and Path(entry.path).exists():
                        form = stat.S_IFMT(entry.stat().st_mode)
                        return (
                            f"{entry.path} is {KINDS.get(form, 'no file')}, which nobody can load"
                        )
        except OSError as error:
            return f"{error.filename} cannot be read: {error.strerror}"
    return None
