"""A folder of checkpoints is one experiment's."""

import fcntl
import os
from pathlib import Path

import pytest

from shoal import claims
from shoal.claims import OWNER, CheckpointError, claim, owner_of, release

HOME = Path("/experiments")


def new(root: Path, experiment: str = "mine", *, there: bool = True) -> None:
    claim(root, experiment, HOME, lambda home, _: there and home == HOME, new=True)


def again(root: Path, experiment: str = "mine") -> None:
    claim(root, experiment, HOME, lambda *_: True, new=False)


def test_a_folder_is_one_experiments(tmp_path: Path) -> None:
    new(tmp_path / "c")
    new(tmp_path / "c")
    assert owner_of(tmp_path / "c") == "mine"
    (tmp_path / "c" / "0" / "0").mkdir(parents=True)
    again(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"those of experiment mine.*shoal resume mine"):
        new(tmp_path / "c", "other")


def test_a_folder_with_no_checkpoints_yet_is_taken_too(tmp_path: Path) -> None:
    new(tmp_path)
    with pytest.raises(CheckpointError, match="is the checkpoint folder of experiment mine"):
        new(tmp_path, "other")
    new(tmp_path, "other", there=False)
    assert owner_of(tmp_path) == "other", "but not by an experiment that is gone"


def test_who_goes_on_finds_its_folder_or_none(tmp_path: Path) -> None:
    new(tmp_path, "other")
    with pytest.raises(CheckpointError, match="by now the checkpoint folder of experiment other"):
        again(tmp_path)
    (tmp_path / OWNER).unlink()
    (tmp_path / "0" / "0").mkdir(parents=True)
    again(tmp_path)
    assert owner_of(tmp_path) == "mine"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"experiment": 1}', "[" * 100_000, "\xff"])
def test_a_file_that_says_nothing_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / OWNER).write_text(text, encoding="latin-1")
    assert owner_of(tmp_path) is None
    again(tmp_path)
    assert owner_of(tmp_path) == "mine"


def test_what_is_no_file_in_its_place_is_waited_for_by_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / OWNER)
    assert owner_of(tmp_path) is None
    with pytest.raises(CheckpointError, match="is no file: remove it"):
        again(tmp_path)
    release(tmp_path, "mine", 8)


def test_whoever_holds_a_folders_file_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "CLAIM_S", 0.1)
    with (tmp_path / OWNER).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match=r"another process has held .* for 0.1 s"):
            new(tmp_path)
    new(tmp_path)


def test_other_files_in_the_folder_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "7").mkdir()  # empty: nothing to load
    new(tmp_path)
    (tmp_path / "0" / "0").mkdir(parents=True)
    (tmp_path / "2026" / "photos").mkdir(parents=True)
    release(tmp_path, "other", 8)
    assert (tmp_path / "0").exists()
    release(tmp_path, "mine", 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2026", "7", "data", "train.py"]


def test_a_folder_of_nothing_else_goes_with_its_checkpoints(tmp_path: Path) -> None:
    new(tmp_path / "c")
    (tmp_path / "c" / "0" / "0").mkdir(parents=True)
    release(tmp_path / "c", "mine", 8)
    assert not (tmp_path / "c").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot hold checkpoints"):
        new(tmp_path / "file" / "c")
