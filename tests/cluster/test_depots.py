"""What a node keeps of the checkpoints in an object store."""

import errno
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shoal.buckets import Bucket
from shoal.runners.base import RunnerError
from shoal.runners.cluster import depots
from shoal.runners.cluster.depots import Stored

ROOT = "/where/they/are/led/from"


@pytest.fixture
def bucket(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A store with the checkpoints 0/0 to 3/0, of a thousand bytes and a little."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bucket = Bucket(url)
    for member in range(4):
        folder = tmp_path / "made" / str(member)
        folder.mkdir(parents=True)
        (folder / "weights").write_text(f"{member}" * 1000)
        bucket.publish(f"{member}/0", bucket.upload(folder, f"{member}/0"))
    return bucket


def host(bucket: Bucket) -> Stored:
    return Stored(bucket, ROOT, "k3x9q2ab")


def read(folder: str) -> str:
    return (Path(folder) / "weights").read_text()


def test_two_that_bring_the_same_at_once_do_not_take_it_from_each_other(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = host(bucket), host(bucket)
    there: list[tuple[str, int]] = []
    stream = Bucket._stream

    def streaming(self: Bucket, path: str) -> Any:
        monkeypatch.undo()  # the other one is quicker
        loaded = other.load(f"{ROOT}/0/0")
        there.append((loaded, (Path(loaded) / "weights").stat().st_ino))
        return stream(self, path)

    monkeypatch.setattr(Bucket, "_stream", streaming)
    loaded = one.load(f"{ROOT}/0/0")
    assert there == [(loaded, (Path(loaded) / "weights").stat().st_ino)]
    assert read(loaded) == "0" * 1000
    for each in (one, other):
        each.close()


def test_what_there_is_no_room_for_is_no_trials_fault(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Bucket, path: str) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    one = host(bucket)
    monkeypatch.setattr(Bucket, "_stream", full)
    with pytest.raises(RunnerError, match=r"its disk is full.* MB left"):
        one.load(f"{ROOT}/0/0")
    one.check_room("ValueError: no good")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=1 << 30, free=1000))
    with pytest.raises(RunnerError, match="its disk is full"):
        one.check_room("RuntimeError: file write failed")
    one.close()


def test_who_closes_leaves_what_others_on_the_node_have(bucket: Bucket, tmp_path: Path) -> None:
    one, other = host(bucket), host(bucket)
    loaded, staged = other.load(f"{ROOT}/1/0"), Path(other.stage(f"{ROOT}/1/1"))
    staged.mkdir(parents=True)
    (staged / "weights").write_text("new")
    one.close()
    assert read(loaded) == "1" * 1000
    upload = other.send_off(f"{ROOT}/1/1")
    assert upload is not None
    assert upload.files.keys() == {"weights"}
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (cache,) = tmp_path.glob("shoal-cache-*")
    (cache / f"staging-{ended.pid}-0").mkdir()  # of one that was killed
    other.close()
    assert not cache.exists()


@pytest.mark.parametrize("scarce", ["cache", "disk"])
def test_what_was_not_used_for_longest_makes_room(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, scarce: str
) -> None:
    if scarce == "cache":
        monkeypatch.setattr(depots, "CACHE_BYTES", 2500)
    else:
        disk = SimpleNamespace(total=1_000_000, free=98_900)
        monkeypatch.setattr("shutil.disk_usage", lambda _: disk)
    one, other = host(bucket), host(bucket)
    staged = Path(other.stage(f"{ROOT}/9/9"))
    staged.mkdir(parents=True)
    (staged / "weights").write_text("not sent yet" * 1000)
    loaded = [one.load(f"{ROOT}/{member}/0") for member in range(3)]
    assert all(map(read, loaded)), "they are in use still"
    long_ago = time.time() - depots.UNUSED_S - 1
    for age, folder in zip((1, 3, 2), loaded, strict=True):
        os.utime(Path(folder).parents[1], (long_ago - age, long_ago - age))
    os.utime(staged.parents[1], (long_ago - 9, long_ago - 9))
    other.load(f"{ROOT}/0/0")  # it is used again
    other.load(f"{ROOT}/3/0")
    assert [Path(folder).exists() for folder in loaded] == [True, False, False]
    assert staged.exists()
    for each in (one, other):
        each.close()
