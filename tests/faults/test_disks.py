"""Disks that are full or read-only, limits and long paths: a sentence, and nothing half made."""

import os
import resource
import subprocess
from pathlib import Path

import pytest

import shoal
from tests.cli.shell import TRAIN, Shell, command, write

WRITE = (
    "import os\nopen(os.path.join(os.environ['SHOAL_TRIAL_DIR'], 'more'), 'wb').write(b'x' * {})\n"
)


def private(script: str) -> list[str]:
    """`script` in a mount namespace of its own."""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def mounts() -> bool:
    """Whether this machine lets us mount a disk for a process."""
    tried = subprocess.run(private("mount -t tmpfs none /mnt"), capture_output=True, check=False)
    return tried.returncode == 0


needs_mounts = pytest.mark.skipif(not mounts(), reason="no disk can be mounted here")


def run_on(
    shell: Shell, mount: str, *arguments: object, again: str = ""
) -> subprocess.CompletedProcess[str]:
    """A command on a disk that was mounted before, at the home."""
    return subprocess.run(
        [*private(f'{mount} && "$@" {again}'), *command(*arguments)],
        env=shell.environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@needs_mounts
@pytest.mark.parametrize("size", ["4k", "64k"])
def test_a_full_disk_at_the_beginning(shell: Shell, tmp_path: Path, size: str) -> None:
    shell.home.mkdir()
    mount = f"mount -t tmpfs -o size={size} none {shell.home}"
    left = f"; code=$?; ls -A {shell.home}; exit $code"
    ended = run_on(shell, mount, "run", write(tmp_path), again=left)
    assert ended.returncode == 2, ended
    assert ended.stderr.startswith(f"error: experiments cannot be kept in {shell.home}: the disk")
    assert "is full" in ended.stderr
    assert "Set SHOAL_HOME to another folder" in ended.stderr
    assert ended.stdout == "", "nothing is left"


@needs_mounts
def test_a_disk_that_becomes_full(shell: Shell, tmp_path: Path) -> None:
    shell.home.mkdir()
    config = write(tmp_path, WRITE.format(1 << 20) + TRAIN, steps=50, retries=0)
    ended = run_on(shell, f"mount -t tmpfs -o size=1M none {shell.home}", "run", config)
    assert ended.returncode == 1, ended
    last = ended.stderr.splitlines()[-2]
    assert "cannot go on" in last or "failed" in last
    assert "full" in ended.stderr or "No space left" in ended.stderr
    assert f'File "{Path(shoal.__file__).parent}' not in ended.stderr, "a traceback of ours"


@needs_mounts
@pytest.mark.parametrize("what", ["run", "resume", "status", "rm"])
def test_a_disk_that_is_read_only(shell: Shell, tmp_path: Path, what: str) -> None:
    config = write(tmp_path)
    assert shell("run", config).returncode == 0
    mount = f"mount --bind {shell.home} {shell.home} && mount -o remount,ro,bind {shell.home}"
    arguments: dict[str, list[object]] = {
        "run": [config],
        "resume": ["toy", "--steps", 5],
        "status": [],
        "rm": ["toy", "--yes"],
    }
    ended = run_on(shell, mount, what, *arguments[what])
    if what == "status":
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "12 of 12 finished" in ended.stdout
        return
    assert ended.returncode == 2, ended
    assert "nothing can be written at" in ended.stderr
    assert "Read-only file system" in ended.stderr
    assert shell("status").returncode == 0, "it is as it was"


@pytest.mark.parametrize(("size", "code"), [(1 << 12, 2), (200 << 10, 1)])
def test_a_limit_on_the_size_of_files(shell: Shell, tmp_path: Path, size: int, code: int) -> None:
    config = write(tmp_path, steps=400)
    ended = subprocess.run(
        command("run", config),
        env=shell.environment, capture_output=True, text=True, check=False, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    if code == 2:
        assert "cannot be kept in" in ended.stderr
        assert shell.nothing_there()
    else:
        assert "cannot go on" in ended.stderr
        assert "ulimit -f" in ended.stderr
        assert shell("resume", "--steps", 2).returncode == 0, "it goes on where there is no limit"


def long(folder: Path) -> Path:
    """A folder in `folder` whose path has 770 bytes."""
    while (missing := 770 - len(os.fsencode(folder))) > 1:
        folder /= "x" * min(200, missing - 1)
    return folder


def test_a_home_with_a_path_of_770_characters(shell: Shell, tmp_path: Path) -> None:
    home = long(tmp_path)
    assert len(str(home)) == 770
    ended = shell("run", write(tmp_path), "--home", home)
    assert ended.returncode == 2
    assert "its path is too long" in ended.stderr
    assert "Set SHOAL_HOME" in ended.stderr
    assert not (tmp_path / home.relative_to(tmp_path).parts[0]).exists(), "nothing is left behind"


def test_an_experiment_that_was_moved_too_far_down(shell: Shell, tmp_path: Path) -> None:
    assert shell("run", write(tmp_path)).returncode == 0
    home = long(tmp_path)
    home.parent.mkdir(parents=True)
    shell.home.rename(home)
    folder = next(home.iterdir())
    size = len(os.fsencode(folder / "journal.db"))
    for arguments in (["resume", folder, "--steps", 5], ["status", folder]):
        ended = shell(*arguments)
        assert ended.returncode == 2
        assert f"has a path of {size} bytes, and SQLite opens none of" in ended.stderr
    listed = shell.json("list", "--home", home)
    assert [brief["state"] for brief in listed] == ["unreadable"]
