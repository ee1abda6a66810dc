"""Streams that are closed, and readers that go away; messages that nobody can read."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import shoal
from tests.cli.shell import Shell, command, write
from tests.lab import SPACE, log_of


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


def piped(shell: Shell, argv: list[str], *, both: bool) -> int:
    """The exit code of a command whose reader goes away after a line."""
    process = subprocess.Popen(
        argv, env=shell.environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if both else subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process.wait(timeout=60)


@pytest.mark.parametrize("both", [True, False])
def test_a_run_whose_reader_goes_away_goes_on(shell: Shell, tmp_path: Path, both: bool) -> None:
    assert piped(shell, command("run", write(tmp_path / "toy")), both=both) == 0
    assert shoal.open(home=shell.home).state == "done"


def test_a_table_whose_reader_goes_away_is_no_error(shell: Shell, tmp_path: Path) -> None:
    assert shell("run", write(tmp_path / "toy", steps=400, population=2)).returncode == 0
    assert piped(shell, command("trials"), both=False) == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_at_the_start(shell: Shell, tmp_path: Path, closed: str) -> None:
    argv = " ".join(map(str, command("run", write(tmp_path / "toy"))))
    ended = subprocess.run(
        ["bash", "-c", f"{argv} {closed}"], env=shell.environment, timeout=60, check=False,
        capture_output=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, b"") or closed == "2>&-"
    assert shoal.open(home=shell.home).state == "done"


PROGRAM = """
import sys, shoal
def train(trial):
    (trial.save / "x").write_text("1")
    return trial.hparams["lr"]
if __name__ == "__main__":
    result = shoal.run(train, space={"lr": shoal.Float(1e-3, 0.5)}, population=4, steps=30)
    open(sys.argv[1], "w").write(result.state)
"""


def test_a_program_whose_reader_goes_away_goes_on(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    ended = tmp_path / "ended"
    argv = [sys.executable, str(tmp_path / "program.py"), str(ended)]
    assert piped(shell, argv, both=True) == 0
    assert ended.read_text() == "done"


def run(work: Any, home: Path, **words: Any) -> shoal.Result:
    given: Any = {"space": SPACE, "population": 4, "steps": 4, "workers": 2, "home": home}
    return shoal.run(work, **{**given, **words})


def reports_late(trial: Any) -> float:
    def watch() -> None:
        for n in range(30):
            trial.report(float(n))
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()
    time.sleep(0.05)
    (trial.save / "x").write_text("1")
    return float(trial.hparams["h0"])


def test_what_is_reported_after_the_end_is_put_down_to_no_other_trial(tmp_path: Path) -> None:
    result = run(reports_late, tmp_path)
    assert result.state == "done"
    told = [row["intermediate"] for row in result.export()]
    assert all(values == [float(n) for n in range(len(values))] for values in told)


def patches_json(trial: Any) -> float:
    json.dumps = lambda *_, **__: "no JSON at all"
    json.loads = lambda *_, **__: None
    (trial.save / "x").write_text("1")
    return float(trial.hparams["h0"])


def test_a_function_that_patches_json_ends_nothing(tmp_path: Path) -> None:
    result = run(patches_json, tmp_path)
    assert (result.state, result.tally.finished) == ("done", 16)


def speaks_for_itself(trial: Any) -> float:
    """Writes to its own link to the controller, as a library that closes all files might."""
    (trial.save / "x").write_text("1")
    if trial.member == 1 and trial.step == 1 and trial.attempt == 1:
        for descriptor in range(3, 20):
            try:
                if str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith("socket:"):
                    os.write(descriptor, b"not a message\n")
            except OSError:
                continue
        time.sleep(30)
    return float(trial.hparams["h0"])


def test_a_worker_that_says_what_cannot_be_read_is_done_without(tmp_path: Path) -> None:
    result = run(speaks_for_itself, tmp_path)
    assert (result.state, result.tally.finished) == ("done", 16)
    (row,) = (row for row in result.trials() if row.error)
    assert (row.member, row.step, row.attempt) == (1, 1, 2)
    assert "it said what cannot be read: b'not a message'" in str(row.error)


def explains_at_length(trial: Any) -> float:
    (trial.save / "x").write_text("1")
    if trial.member == 0 and trial.step == 1:
        raise ValueError("x" * 30_000_000)
    return float(trial.hparams["h0"])


def test_a_reason_without_end_is_cut_where_it_is_made(tmp_path: Path) -> None:
    result = run(explains_at_length, tmp_path, steps=2)
    assert result.folder.journal.stat().st_size < 1_000_000
    (row,) = (row for row in result.trials() if row.error)
    assert row.error is not None
    assert "characters) ..." in row.error
    assert max(map(len, log_of(result))) < 1000
