"""A journal is damaged, one page after the other: it is said, repaired, and the run goes on."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.home import ExperimentError, Folder
from shoal.repair import Repair, repair
from tests.cli.shell import TRAIN, Shell, write
from tests.faults.test_kill_workers import prepared

PAGE = 4096
FAILS = TRAIN.replace(
    "nni.report_final",
    "first = os.environ['NNI_OUTPUT_DIR'].endswith('/1')\n"
    "if int(1e6 * x) % (2 if first else 10) == 0: sys.exit('bad luck')\n"
    "nni.report_final",
)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of scripts, some of which failed."""
    root = tmp_path_factory.mktemp("scripts")
    shell = Shell(root / "home")
    config = write(root, FAILS, population=6, steps=12)
    assert shell("run", config).returncode == 0
    return next(shell.home.iterdir())


def copied(folder: Path, to: Path) -> Folder:
    shutil.copytree(folder, to)
    return Folder(to)


def damaged(folder: Path, to: Path, how: bytes = b"\0") -> Iterator[tuple[int, Folder]]:
    """Copies of an experiment, each with another page of its journal lost."""
    for page in range(1, (folder / "journal.db").stat().st_size // PAGE):
        copy = copied(folder, to / f"page{page}")
        data = bytearray(copy.journal.read_bytes())
        data[page * PAGE : (page + 1) * PAGE] = how * PAGE
        copy.journal.write_bytes(data)
        yield page, copy


def yes(plan: Repair) -> bool:
    return True


def repaired_or_none(folder: Folder) -> Repair | None:
    """What a repair came to; None where the page was the one that says what the experiment is."""
    try:
        return repair(folder, yes)
    except ExperimentError as error:
        if "its configuration, cannot be read" not in str(error):
            raise
        return None


def trials(folder: Folder) -> list[Any]:
    kept = ("member", "step", "hparams", "parent", "metric")
    return [[getattr(row, key) for key in kept] for row in shoal.Result(folder).trials()]


def states(folder: Folder) -> set[tuple[int, str]]:
    return {(row.id, row.state) for row in shoal.Result(folder).trials()}


@pytest.mark.parametrize("how", [b"\0", b"\x5a"], ids=["zeros", "noise"])
def test_any_page_of_a_run_of_scripts_is_lost(scripts: Path, tmp_path: Path, how: bytes) -> None:
    before, repaired = trials(Folder(scripts)), 0
    # nothing says of the last ones whether they had failed: they are run again
    again = {(id, "interrupted") for id in range(len(before) - 6, len(before))}
    for page, folder in damaged(scripts, tmp_path, how):
        if (done := repaired_or_none(folder)) is None:
            continue
        assert trials(folder) == before, page
        assert states(folder) <= states(Folder(scripts)) | again, page
        if not done.sound:
            repaired += 1
            assert done.kept is not None
            assert done.kept.stat().st_size == (scripts / "journal.db").stat().st_size
            assert repair(folder, yes).sound
    assert repaired >= 5


def test_there_was_something_to_tell(scripts: Path) -> None:
    rows = shoal.Result(Folder(scripts)).trials()
    assert {row.state for row in rows} == {"finished", "failed"}
    assert any(row.state == "finished" and row.attempt > 1 for row in rows)


def test_the_end_of_the_file_is_lost(scripts: Path, tmp_path: Path) -> None:
    before = trials(Folder(scripts))
    size = (scripts / "journal.db").stat().st_size
    for part in (0.4, 0.6, 0.8):
        folder = copied(scripts, tmp_path / f"{part}")
        with folder.journal.open("r+b") as file:
            file.truncate(int(part * size))
        with pytest.raises(ExperimentError, match=rf"`shoal repair {part}` says what can be"):
            trials(folder)
        assert not repair(folder, yes).sound
        assert trials(folder) == before


@pytest.mark.parametrize("pages", [0, 1, 30, 50_000, 2**31, 2**32 - 1])
def test_a_header_that_lies_about_the_length(scripts: Path, tmp_path: Path, pages: int) -> None:
    folder = copied(scripts, tmp_path / "lies")
    with folder.journal.open("r+b") as file:
        file.seek(28)
        file.write(pages.to_bytes(4))
    assert not repair(folder, yes).sound
    assert trials(folder) == trials(Folder(scripts))


@pytest.mark.parametrize("synchronous", [True, False])
def test_any_page_of_a_run_in_workers_is_lost_and_it_goes_on(
    tmp_path: Path, synchronous: bool
) -> None:
    root = prepared(tmp_path / "x", steps=20, synchronous=synchronous)
    config = shoal.Config.restore(json.loads((root / "config.json").read_text()))
    made = shoal.run(config, verbose=False)
    before, repaired = trials(made.folder), 0
    for page, folder in damaged(made.folder.path, tmp_path / "home"):
        if repaired_or_none(folder) is None:
            continue
        left = trials(folder)
        assert [row[:4] for row in left] == [row[:4] for row in before[: len(left)]], page
        if left != before:
            repaired += 1
            if repaired % 3:
                continue  # each takes a second
            shoal.resume(str(folder.path), verbose=False)
            again = trials(folder)
            assert len(again) == len(before)
            assert not synchronous or again == before, "decided and trained again"
    assert repaired >= 3


LOOKING = ("status", "trials", "best", "schedule", "lineage", "log", "list", "resume")


def test_nobody_stumbles_over_a_damaged_journal(
    scripts: Path, tmp_path: Path, shell: Shell
) -> None:
    for page, folder in damaged(scripts, shell.home):
        if page % 4:
            shutil.rmtree(folder.path)  # some of them will do
            continue
        said = ""
        for what in LOOKING:
            ended = shell(what, *([] if what == "list" else [folder.id]))  # no traceback of ours
            assert ended.returncode in {0, 2}, (page, what, ended.stderr)
            said += ended.stderr
        if "cannot be read" in said:
            assert f"`shoal repair {folder.id}`" in said or "not the journal of an" in said
        shutil.rmtree(folder.path)


def test_the_command(scripts: Path, shell: Shell) -> None:
    shutil.copytree(scripts, shell.home / "whole")
    assert "there is nothing to repair" in shell("repair", "whole").stderr
    folder = Folder(shell.home / "whole")
    data = bytearray(folder.journal.read_bytes())
    data[-4 * PAGE :] = bytes(4 * PAGE)
    folder.journal.write_bytes(data)
    ended = shell("repair", "whole")
    assert ended.returncode == 2
    assert "records can be read" in ended.stderr
    assert "nobody is there to be asked: --yes repairs whole" in ended.stderr
    ended = shell("repair", "whole", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert "the damaged file is kept as" in ended.stderr
    assert trials(folder) == trials(Folder(scripts))
    assert shell("resume", "whole").returncode == 0


def test_nothing_can_be_made_of_nothing(scripts: Path, shell: Shell) -> None:
    for name, text in (("a", b"not a database" * 999), ("b", b"")):
        folder = copied(scripts, shell.home / name)
        folder.journal.write_bytes(text)
        ended = shell("repair", name, "--yes")
        assert ended.returncode == 2
        assert ended.stderr.startswith("error: experiment ")
    db = sqlite3.connect(copied(scripts, shell.home / "c").journal)
    db.execute("DELETE FROM meta")
    db.commit()
    db.close()
    assert "its configuration, cannot be read" in shell("repair", "c", "--yes").stderr
