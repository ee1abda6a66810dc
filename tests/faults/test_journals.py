"""One journal that cannot be read spoils nothing but its own experiment."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.shell import Shell, write


def sql(statement: str) -> Callable[[Path], None]:
    def execute(journal: Path) -> None:
        db = sqlite3.connect(journal)
        db.execute(statement)
        db.commit()
        db.close()

    return execute


def scrambled(journal: Path) -> None:
    data = bytearray(journal.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    journal.write_bytes(data)


SPOIL: dict[str, tuple[Callable[[Path], object], str]] = {
    "malformed": (scrambled, "cannot be read as a journal"),
    "truncated": (lambda j: j.write_bytes(j.read_bytes()[:5000]), "cannot be read as a journal"),
    "no database": (lambda j: j.write_bytes(b"not a database" * 100), "file is not a database"),
    "empty": (lambda j: j.write_bytes(b""), "it has no table"),
    "no table": (sql("DROP TABLE meta"), "it has no table meta"),
    "no journal in it": (sql("DROP TABLE journal"), "it has no table journal"),
    "newer": (sql("UPDATE meta SET value = '99' WHERE key = 'version'"), "has format 99"),
    "strange": (sql("UPDATE meta SET value = 'x' WHERE key = 'version'"), "has format x"),
    "no config": (sql("DELETE FROM meta WHERE key = 'config'"), "not the journal of an experiment"),
    "bad config": (sql("UPDATE meta SET value = '{' WHERE key = 'config'"), "not the journal of"),
    "no date": (sql("UPDATE meta SET value = 'x' WHERE key = 'created'"), "not the journal of an"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one experiment."""
    root = tmp_path_factory.mktemp("made")
    shell = Shell(root / "home")
    assert shell("run", write(root / "toy"), "--name", "good").returncode == 0
    return shell.home


ALIKE = {"truncated", "no journal in it", "strange", "bad config", "no date"}  # to others


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[pytest.mark.soak] * (how in ALIKE)) for how in SPOIL]
)
def test_it_is_listed_and_can_be_deleted(shell: Shell, made: Path, how: str) -> None:
    spoil, reason = SPOIL[how]
    shutil.copytree(made, shell.home)
    good = next(shell.home.iterdir())
    bad = shell.home / "aaaaaaaa"
    shutil.copytree(good, bad)
    spoil(bad / "journal.db")

    listed = shell.json("list")
    assert [(brief["id"], brief["state"]) for brief in listed] == [
        (good.name, "done"), ("aaaaaaaa", "unreadable"),
    ]  # fmt: skip
    assert reason in listed[1]["reason"]
    table = shell("list")
    assert table.returncode == 0
    assert "unreadable" in table.stdout
    assert reason in table.stdout

    assert shell("status").stdout.startswith(f"good  {good.name}"), "the newest that there is"
    for command in ("trials", "resume"):
        ended = shell(command, "aaaaaaaa")
        assert ended.returncode == 2, command
        assert ended.stderr.startswith("error: "), command
    ended = shell("rm", "aaaaaaaa", "--yes")
    assert (ended.returncode, bad.exists(), good.exists()) == (0, False, True)
    assert "aaaaaaaa (unreadable) is deleted" in ended.stderr
