"""The commands that look at an experiment, and the one that removes it."""

import csv
import json
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

import shoal
from tests.cli.shell import TRAIN, Shell, Terminal, write
from tests.cli.test_main import held, refusal

TRIAL = {
    "id", "member", "step", "hparams", "parent", "state", "metric", "checkpoint", "attempt",
    "started", "ended", "error", "metrics", "intermediate",
}  # fmt: skip


def test_trials(done: Shell) -> None:
    trials = done.json("trials")
    assert [set(trial) for trial in trials] == [TRIAL] * 12
    assert [trial["id"] for trial in trials] == list(range(12))
    assert {trial["state"] for trial in trials} == {"finished"}
    first, last = trials[0], trials[-1]
    assert (first["member"], first["step"], first["parent"], first["error"]) == (0, 0, None, None)
    assert first["checkpoint"] is None, "nobody needs it any more"
    assert Path(last["checkpoint"], "x").is_file()
    assert set(last["hparams"]) == {"lr", "batch"}
    began, ended = (datetime.fromisoformat(last[key]) for key in ("started", "ended"))
    assert began <= ended
    table = done("trials").stdout.splitlines()
    assert table[0].split()[:6] == ["trial", "member", "step", "state", "metric", "took"]
    assert len(table) == 13


def test_best_schedule_and_lineage(done: Shell) -> None:
    trials, best = done.json("trials"), done.json("best")
    assert set(best) == TRIAL | {"schedule"}
    assert best["metric"] == max(trial["metric"] for trial in trials)
    assert trials[best["id"]] == {key: best[key] for key in TRIAL}
    lineage, schedule = done.json("lineage"), done.json("schedule")
    assert schedule == best["schedule"]
    assert [step["step"] for step in schedule] == list(range(len(lineage)))
    assert [step["hparams"] for step in schedule] == [trial["hparams"] for trial in lineage]
    assert lineage[-1]["id"] == best["id"]
    assert lineage[0]["parent"] is None
    assert [trial["parent"] for trial in lineage[1:]] == [trial["id"] for trial in lineage[:-1]]
    assert f"trial {best['id']} (member {best['member']}, step 2)" in done("best").stdout
    assert done("schedule").stdout.split()[:2] == ["steps", "member"]
    assert len(done("lineage").stdout.splitlines()) == 1 + len(lineage)


def test_status(done: Shell) -> None:
    status = done.json("status")
    folder = done.home / status["id"]
    best = done.json("best")
    assert status == {
        "id": status["id"],
        "name": "toy",
        "state": "done",
        "reason": "",
        "folder": str(folder),
        "controller": None,
        "population": 4,
        "steps": 3,
        "workers": 2,
        "step": 3,
        "trials": {"finished": 12, "running": 0, "failed": 0, "total": 12},
        "failures": "",
        "seconds": status["seconds"],
        "best": {key: best[key] for key in ("id", "metric", "checkpoint")},
        "control": None,
        "checkpoints": str(folder / "checkpoints"),
        "health": [text for text in status["health"] if "descend" in text],
    }
    assert status["seconds"] > 0
    table = done("status").stdout
    assert table.startswith(f"toy  {status['id']}  done\n")
    assert "12 of 12 finished" in table


@pytest.mark.parametrize("by", ["id", "name", "folder", "none"])
def test_an_experiment_is_named_by_id_name_or_folder(done: Shell, by: str) -> None:
    status = done.json("status")
    which = [] if by == "none" else [status[by]]
    assert done.json("status", *which)["id"] == status["id"]


def test_list_has_the_newest_first(shell: Shell, tmp_path: Path) -> None:
    assert shell.json("list") == []
    assert "there is no experiment" in shell("list").stderr
    file = write(tmp_path / "toy", steps=1)
    for name in ("one", "two"):
        assert shell("run", file, "--name", name).returncode == 0
    newest, older = shell.json("list")
    assert (newest["name"], older["name"]) == ("two", "one")
    assert newest == {
        "id": newest["id"],
        "name": "two",
        "state": "done",
        "created": newest["created"],
        "population": 4,
        "trials": {"finished": 4, "failed": 0, "total": 4},
        "seconds": newest["seconds"],
        "best": shell.json("best")["metric"],
        "folder": str(shell.home / newest["id"]),
    }
    assert datetime.fromisoformat(newest["created"]) > datetime.fromisoformat(older["created"])
    assert shell.json("status")["name"] == "two"
    broken = shell.home / "broken" / "journal.db"
    broken.parent.mkdir()
    broken.write_text("no journal")
    ended = shell("list")
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert (lines[3].split(), lines[4]) == (["broken", "unreadable"], "")
    assert "cannot be read as a journal" in lines[5]


def test_the_metric_is_shown_as_reported_when_less_is_better(shell: Shell, tmp_path: Path) -> None:
    script = TRAIN.replace("-abs(3.0 - x)", "{'loss': abs(3.0 - x)}")
    file = write(tmp_path / "toy", script, mode="min", metric="loss")
    ended = shell("run", file)
    assert ended.returncode == 0
    best = shell.json("best")
    assert 0 < best["metric"] < 3
    assert best["metric"] == min(trial["metric"] for trial in shell.json("trials"))
    assert shell.json("list")[0]["best"] == best["metric"]
    assert f"best loss      {best['metric']:.3f}" in ended.stdout
    assert f"best {best['metric']:.3f} (member" in ended.stderr


def test_log(done: Shell) -> None:
    lines = done("log").stdout.splitlines()
    assert lines[-1].endswith("info     done")
    datetime.fromisoformat(lines[-1][:19])


def test_the_output_of_a_trial(done: Shell) -> None:
    ended = done("log", "--trial", 3)
    assert ended.stdout.startswith("x is ")
    assert ended.stderr.splitlines()[1:] == ["to stderr"]
    assert "trial 3, attempt 1: " in ended.stderr
    assert "has no trial 99; it has 12 trials" in refusal(done("log", "--trial", 99))


def test_a_log_is_followed_to_the_end(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run, _ = held(shell, write(tmp_path / "toy"), gate)
    log = shell.start("log", "-f")
    assert log.stdout is not None
    lines = iter(log.stdout.readline, "")
    run.send_signal(signal.SIGINT)
    assert any("interrupted: no new trials" in line for line in lines)
    assert log.poll() is None, "it waits for more"
    gate.touch()
    assert any("info     stopped: interrupted" in line for line in lines)
    log.communicate()
    assert log.returncode == 0
    run.communicate()


def test_a_trial_is_followed_to_its_end(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = TRAIN.replace("gate = ", "print('begun', flush=True)\ngate = ")
    run, _ = held(shell, write(tmp_path / "toy", script), gate)
    log = shell.start("log", "-f", "--trial", 4)
    assert log.stdout is not None
    assert log.stdout.readline() == "begun\n"
    gate.touch()
    assert log.communicate()[0].startswith("x is ")
    assert log.returncode == 0
    run.communicate()


def test_following_is_ended_with_ctrl_c(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = TRAIN.replace("gate = ", "print('begun', flush=True)\ngate = ")
    run, _ = held(shell, write(tmp_path / "toy", script), gate)
    log = shell.start("log", "-f", "--trial", 4)
    assert log.stdout is not None
    assert log.stdout.readline() == "begun\n"
    log.send_signal(signal.SIGINT)
    assert log.communicate()[1].split("\n")[1:] == ["", ""], "only what it follows"
    assert log.returncode == 130
    gate.touch()
    run.communicate()
    assert run.returncode == 0, "the experiment goes on"


def test_export_as_json(done: Shell, tmp_path: Path) -> None:
    file = tmp_path / "trials.json"
    ended = done("export", "-o", file)
    assert (ended.returncode, ended.stdout) == (0, "")
    exported = json.loads(file.read_text())
    trials = done.json("trials")
    assert len(exported) == 12
    for row, trial in zip(exported, trials, strict=True):
        assert list(row) == [
            "parameter", "value", "trialJobId", "intermediate", "member", "step", "parent", "state",
            "metrics",
        ]  # fmt: skip
        assert list(row["parameter"]) == [
            "lr",
            "batch",
            "load_checkpoint_dir",
            "save_checkpoint_dir",
        ]
        assert row["value"] == trial["metric"]
        assert row["trialJobId"] == f"{trial['id']:05}"
        assert row["intermediate"] == [pytest.approx(3.0 + trial["metric"])]
        assert (row["member"], row["parent"]) == (trial["member"], trial["parent"])
    assert done("export", "-o", "-", "--format", "json").stdout == file.read_text()


def test_export_as_csv(done: Shell, tmp_path: Path) -> None:
    file = tmp_path / "trials.csv"
    assert done("export", "--output", file).returncode == 0
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0]) == [
        "lr", "batch", "load_checkpoint_dir", "save_checkpoint_dir", "reward", "trialJobId",
        "member", "step", "parent", "state",
    ]  # fmt: skip
    trials = done.json("trials")
    assert [float(row["reward"]) for row in rows] == [trial["metric"] for trial in trials]
    assert [float(row["lr"]) for row in rows] == [trial["hparams"]["lr"] for trial in trials]
    assert rows[0]["parent"] == ""
    assert done("export", "-o", tmp_path / "x", "--format", "csv").returncode == 0
    assert (tmp_path / "x").read_bytes() == file.read_bytes()


def test_an_export_is_strict_json_and_says_what_is_nested(shell: Shell, tmp_path: Path) -> None:
    script = TRAIN.replace("_result(x)", "_result({'default': x, 'gap': float('inf')})")
    space = {"lr": {"float": [0.1, 0.5]}, "layers": {"choice": [[1, 2], [3]]}}
    assert shell("run", write(tmp_path / "toy", script, space=space, steps=1)).returncode == 0
    exported: Any = json.loads(
        shell("export", "-o", "-", "--format", "json").stdout, parse_constant=pytest.fail
    )
    assert exported[0]["intermediate"][0]["gap"] is None
    rows = list(csv.DictReader(shell("export", "-o", "-", "--format", "csv").stdout.splitlines()))
    assert json.loads(rows[0]["layers"]) in ([1, 2], [3])


def test_export_as_parquet(done: Shell, tmp_path: Path) -> None:
    file = tmp_path / "trials.parquet"
    assert done("export", "-o", file).returncode == 0
    table = parquet.read_table(file)
    trials = done.json("trials")
    for key in ("member", "step", "parent", "state"):
        assert table[key].to_pylist() == [trial[key] for trial in trials]
    for name in trials[0]["hparams"]:
        assert table[name].to_pylist() == [trial["hparams"][name] for trial in trials]
    assert str(table.schema.field("lr").type) == "double"
    assert str(table.schema.field("batch").type) == "int64"


def test_an_export_to_a_tracker(done: Shell, tmp_path: Path) -> None:
    ended = done("export", "--format", "tensorboard", "-o", tmp_path / "runs")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.startswith("12 steps of toy (")
    assert ended.stderr.endswith(f" told to tensorboard={tmp_path / 'runs'}\n")
    assert len(list(tmp_path.glob("runs/toy-*/member-*/events.*"))) == 4
    (tmp_path / "file").touch()
    refused = refusal(done("export", "--format", "tensorboard", "-o", tmp_path / "file"))
    assert "tensorboard=" in refused


def test_an_export_that_cannot_be_written_leaves_nothing(done: Shell, tmp_path: Path) -> None:
    said = refusal(done("export", "-o", tmp_path / "x.txt"))
    assert "ends in none of .json, .csv, .parquet" in said
    there = tmp_path / "a folder.csv"
    there.mkdir()
    (there / "full").touch()
    assert "cannot be written" in refusal(done("export", "-o", there))
    assert "cannot be written" in refusal(done("export", "-o", tmp_path / "nowhere" / "x.csv"))
    assert list(tmp_path.iterdir()) == [there]


def test_the_report(done: Shell, tmp_path: Path) -> None:
    file = tmp_path / "seen.html"
    ended = done("report", "toy", "-o", file)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert f"in {file}" in ended.stderr
    text = file.read_text()
    assert text.startswith("<!doctype html>")
    assert done("report", "-o", "-").stdout == text
    assert "cannot be written" in refusal(done("report", "-o", tmp_path / "nowhere" / "x.html"))


def test_rm_deletes_the_experiment_and_its_checkpoints(shell: Shell, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    file = write(tmp_path / "toy", checkpoints=str(checkpoints), steps=1)
    assert shell("run", file).returncode == 0
    assert any(checkpoints.iterdir())
    assert "--yes deletes toy" in refusal(shell("rm", "toy"))
    assert len(shell.json("list")) == 1
    ended = shell("rm", "toy", "--yes")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert shell.nothing_there()
    assert not checkpoints.exists()


def test_rm_refuses_one_that_runs(shell: Shell, tmp_path: Path) -> None:
    run, status = held(shell, write(tmp_path / "toy"), tmp_path / "gate")
    assert f"is being run by process {run.pid}" in refusal(shell("rm", status["id"], "--yes"))
    (tmp_path / "gate").touch()
    run.communicate()
    assert run.returncode == 0


@pytest.mark.parametrize(("reply", "code", "left"), [(b"n\n", 130, 1), (b"y\n", 0, 0)])
def test_rm_asks(shell: Shell, tmp_path: Path, reply: bytes, code: int, left: int) -> None:
    assert shell("run", write(tmp_path / "toy", steps=1)).returncode == 0
    terminal = Terminal(shell, "rm", "toy")
    terminal.until("[y/N]")
    assert "Delete toy" in terminal.text
    terminal.press(reply)
    assert terminal.end() == code
    assert len(shell.json("list")) == left


def test_a_long_table_comes_page_by_page(shell: Shell, tmp_path: Path) -> None:
    script = "import nni\np = nni.get_next_parameter()\nnni.report_final_result(p['lr'])\n"
    file = write(tmp_path, script, population=8, steps=4)
    assert shell("run", file).returncode == 0
    result = shoal.open(home=shell.home)
    pages = list(result.pages(size=5))
    assert [len(page) for page in pages] == [5, 5, 5, 5, 5, 5, 2]
    assert [row for page in pages for row in page] == result.trials()
    lines = shell("trials").stdout.splitlines()
    assert len(lines) == 33
    assert [int(line.split()[0]) for line in lines[1:]] == list(range(32))
    rows = shell.json("trials")
    assert rows == [row.json() for row in result.trials()]
    assert shell("trials", "--json").stdout == json.dumps(rows, indent=2) + "\n"
    copied = [
        row["id"]
        for row in rows
        if row["parent"] is not None and rows[row["parent"]]["member"] != row["member"]
    ]
    assert [i for i, line in enumerate(lines[1:]) if "←" in line] == copied
