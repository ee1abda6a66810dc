"""Folders of experiments: made whole or not at all, held by one controller, found by name."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.home import ExperimentError, Folder, Lock, create, default_home, experiments, find, link
from shoal.stores.sqlite import SqliteStore


def filled(name: str, created: float) -> object:
    def fill(folder: Folder) -> None:
        meta = {"id": folder.id, "name": name, "created": repr(created)}
        SqliteStore.create(folder.journal, meta).close()

    return fill


def made(home: Path, name: str = "digits", created: float = 1.0) -> Folder:
    return create(home, filled(name, created))  # type: ignore[arg-type]


def test_it_appears_whole(tmp_path: Path) -> None:
    seen = []

    def fill(folder: Folder) -> None:
        filled("x", 1.0)(folder)  # type: ignore[operator]
        seen.extend(experiments(tmp_path))

    folder = create(tmp_path, fill)
    assert seen == [], "it is not there while it is being made"
    assert experiments(tmp_path) == [folder]
    assert len(folder.id) == 8
    assert [path.name for path in tmp_path.iterdir()] == [folder.id]


@pytest.mark.parametrize("there_before", [True, False])
def test_or_not_at_all(tmp_path: Path, there_before: bool) -> None:
    home = tmp_path / "home"
    if there_before:
        home.mkdir()

    def fail(folder: Folder) -> None:
        (folder.path / "half").write_text("")
        raise ExperimentError("no")

    with pytest.raises(ExperimentError, match="no"):
        create(home, fail)
    assert home.exists() == there_before
    assert not there_before or list(home.iterdir()) == []


def test_what_a_killed_maker_has_left_is_swept(tmp_path: Path) -> None:
    make = (
        "import os, signal, sys; from pathlib import Path; from shoal.home import create\n"
        "create(Path(sys.argv[1]), lambda folder: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    subprocess.run([sys.executable, "-c", make, str(tmp_path)], check=False)
    (tmp_path / ".zzzzzzzz.partial").mkdir()  # killed earlier still
    assert len(list(tmp_path.iterdir())) == 2
    folder = made(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder.id]


def test_what_somebody_is_making_is_not(tmp_path: Path) -> None:
    def fill(folder: Folder) -> None:
        made(tmp_path, "meanwhile")
        filled("x", 1.0)(folder)  # type: ignore[operator]

    folder = create(tmp_path, fill)
    assert len(experiments(tmp_path)) == 2
    assert folder.journal.is_file()


@pytest.mark.parametrize(
    ("home", "expected"), [(None, 0o700), (0o755, 0o700), (0o2775, 0o2770), (0o1777, 0o700)]
)
def test_others_cannot_look_into_it_unless_home_is_shared(
    tmp_path: Path, home: int | None, expected: int
) -> None:
    if home is not None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home").chmod(home)
    mode = made(tmp_path / "home").path.stat().st_mode
    assert oct(stat.S_IMODE(mode)) == oct(expected)
    if home is None:
        assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_a_home_that_cannot_be_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match=r"experiments cannot be kept in .*Set SHOAL_HOME"):
        made(tmp_path / "file" / "home")


def test_found_by_id_name_folder_or_as_the_newest(tmp_path: Path) -> None:
    old = made(tmp_path, "digits", 1.0)
    new = made(tmp_path, "digits", 2.0)
    other = made(tmp_path, "faces", 3.0)
    assert find(tmp_path, old.id) == old
    assert find(tmp_path, "digits") == new
    assert find(tmp_path, str(old.path)) == old
    assert find(tmp_path, None) == other
    assert experiments(tmp_path) == [old, new, other]


def test_what_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="there is no experiment in"):
        find(tmp_path, None)
    folder = made(tmp_path)
    with pytest.raises(ExperimentError, match=rf"'digit'; in .*: {folder.id} \(digits\)"):
        find(tmp_path, "digit")


def test_an_experiment_that_lives_elsewhere_is_found_where_it_is(tmp_path: Path) -> None:
    folder = made(tmp_path / "away")
    link(folder, tmp_path / "home")
    assert find(tmp_path / "home", folder.id) == folder
    assert find(tmp_path / "home", None) == folder


HOLD = """
import sys
from pathlib import Path
from shoal.home import Folder, Lock
with Lock(Folder(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_controller_at_a_time_and_death_gives_the_right_back(tmp_path: Path) -> None:
    folder = made(tmp_path)
    assert folder.holder() is None
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert folder.holder() == (holder.pid, os.uname().nodename)
    with pytest.raises(ExperimentError, match=f"is being run by process {holder.pid} on"):
        Lock(folder)
    holder.kill()
    holder.communicate()
    assert folder.holder() is None
    with Lock(folder):
        assert folder.holder() == (os.getpid(), os.uname().nodename)
    assert folder.holder() is None


def test_home_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_HOME", "~/elsewhere")
    assert default_home() == Path.home() / "elsewhere"
    monkeypatch.delenv("SHOAL_HOME")
    assert default_home() == Path.home() / "shoal-experiments"
