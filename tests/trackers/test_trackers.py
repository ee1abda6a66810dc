"""What trackers are told, read back with their own libraries."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from wandb.proto.wandb_internal_pb2 import Record

import shoal
from shoal.config import TRACKERS, ConfigError
from shoal.home import ExperimentError
from shoal.result import Result
from shoal.trackers import KNOWN
from shoal.trackers.following import Following, Progress, tell_all, track
from shoal.trackers.steps import About, Reading, Step, flat
from tests.lab import experiment as lab
from tests.lab import log_of
from tests.made import experiment

SPACE: Any = {
    "lr": {"float": [1e-4, 1.0], "log": True},
    "batch": {"choice": [16, 32]},
    "kind": {"choice": ["sgd", "adam"]},
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """An experiment that is done, with copies and failures."""
    home = tmp_path_factory.mktemp("tracked")
    return experiment(home, population=4, steps=6, space=SPACE, failing=0.1, name="made here")


def finished(result: Result, member: int) -> dict[int, float]:
    """The metric of a member by step."""
    rows = (row for row in result.trials() if row.member == member)
    return {row.step: row.metric for row in rows if row.metric is not None}


def copies(result: Result) -> dict[tuple[int, int], tuple[int, int]]:
    """(member, step): (member, step) of whom it copied."""
    rows = result.trials()
    return {
        (row.member, row.step): (donor.member, donor.step)
        for row in rows
        if row.parent is not None and (donor := rows[row.parent]).member != row.member
    }


class Notes:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.about: About | None = None
        self.flushed = 0
        self.state = ""

    def begin(self, about: About) -> None:
        self.about = about

    def step(self, step: Step) -> None:
        self.steps.append(step)

    def flush(self) -> None:
        self.flushed += 1

    def end(self, state: str) -> None:
        self.state = state


# ------------------------------------------------------------------ what they are told


def test_a_tracker_is_told_of_each_step(result: Result) -> None:
    notes = Notes()
    assert track(result.folder, notes, None, lambda: False) == len(notes.steps)
    assert notes.about is not None
    assert (notes.about.id, notes.about.name, notes.state) == (result.id, "made here", "done")
    good = [step for step in notes.steps if step.error is None]
    rows = {row.id: row for row in result.trials()}
    assert {step.trial: step.metric for step in good} == {
        id: row.metric for id, row in rows.items() if row.metric is not None
    }
    for step in good:
        row = rows[step.trial]
        assert (step.member, step.step, step.hparams) == (row.member, row.step, row.hparams)
    assert any(step.error for step in notes.steps), "of failures, too"
    told = {(s.member, s.step): (s.donor.member, s.donor.step) for s in good if s.donor is not None}
    assert told == {key: donor for key, donor in copies(result).items() if key[1] in
                    finished(result, key[0])}  # fmt: skip
    best = [step.metric for step in good if step.best and step.metric is not None]
    assert best == sorted(best)
    assert result.best is not None
    assert best[-1] == result.best.metric


def test_a_copy_is_told_in_words(result: Result) -> None:
    rows = result.trials()
    for _, step in Reading(result.folder, higher=True).new():
        if step.donor is None:
            assert step.copied == ""
            continue
        parent = rows[step.trial].parent
        assert parent is not None
        before, after = rows[parent].hparams, step.hparams
        assert step.explored == {n: (before[n], after[n]) for n in after if before[n] != after[n]}
        for name in step.explored:
            assert f"{name} " in step.copied
        assert step.copied.startswith(f"copied member {step.donor.member} (step {step.donor.step})")


def test_nested_choices_are_flat() -> None:
    nested = {
        "optimizer": {"_name": "sgd", "momentum": 0.9, "more": {"_name": "x", "a": 1}},
        "b": 2,
    }
    assert flat(nested) == {
        "optimizer": "sgd", "optimizer/momentum": 0.9, "optimizer/more": "x",
        "optimizer/more/a": 1, "b": 2,
    }  # fmt: skip
    assert flat({"layers": [1, 2]}) == {"layers": "[1, 2]"}


def test_what_is_read_on_comes_once(tmp_path: Path) -> None:
    result = experiment(tmp_path, population=3, steps=5, until=7)
    reading = Reading(result.folder, higher=True)
    first = [step for _, step in reading.new()]
    ended = [row for row in result.trials() if row.ended is not None]
    assert len(first) == len(ended) > 0
    assert list(reading.new()) == []


# ------------------------------------------------------------------ TensorBoard


def events(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """(step, value) by tag of an event file, read with TensorBoard's own format."""
    found: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for file in sorted(folder.glob("events.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16
            for value in event.summary.value:
                text = value.tensor.string_val
                said = text[0].decode() if text else value.simple_value
                found[value.tag].append((event.step, said))
    return found


def test_tensorboard(result: Result, tmp_path: Path) -> None:
    tell_all(result.folder, f"tensorboard={tmp_path}", Path("/"))
    (root,) = tmp_path.iterdir()
    assert root.name == f"made-here-{result.id}"
    assert sorted(path.name for path in root.iterdir()) == [
        "best", "member-0", "member-1", "member-2", "member-3",
    ]  # fmt: skip
    for member in range(4):
        got = events(root / f"member-{member}")
        assert dict(got["metric"]) == pytest.approx(finished(result, member))
        rows = [row for row in result.trials() if row.member == member]
        assert dict(got["hparams/lr"]) == pytest.approx({r.step: r.hparams["lr"] for r in rows})
        assert [step for step, _ in got["copies/text_summary"]] == sorted(
            step for copier, step in copies(result) if copier == member
        )
        assert got["hparams/kind/text_summary"][0] == (0, rows[0].hparams["kind"])
        failed = [row.step for row in rows if row.state == "failed"]
        assert sorted({step for step, _ in got["failures/text_summary"]}) == failed
    assert result.best is not None
    best = events(root / "best")["metric"]
    assert best[-1][1] == pytest.approx(result.best.metric)
    steps = [step for step, _ in best]
    assert steps == sorted(set(steps)), "one value a step"
    tops = {
        s: max(r.metric for r in result.trials() if r.metric is not None and r.step <= s)
        for s in steps
    }
    assert dict(best) == pytest.approx(tops)


# ------------------------------------------------------------------ MLflow


def test_tensorboard_with_more_members_than_files(tmp_path: Path) -> None:
    result = experiment(tmp_path / "home", population=70, steps=3)
    tell_all(result.folder, "tensorboard", tmp_path)
    for member in (0, 35, 69):
        (folder,) = tmp_path.glob(f"runs/*/member-{member}")
        assert dict(events(folder)["metric"]) == pytest.approx(finished(result, member))


@pytest.fixture(params=["file", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Iterator[str]:
    """The URI of a tracking store."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    if request.param == "file":
        yield "mlruns"
    else:
        yield f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.mark.filterwarnings("ignore")  # of its own libraries
def test_mlflow(result: Result, tmp_path: Path, store: str) -> None:
    for _ in range(2):  # as after a resume: the same runs are found
        tell_all(result.folder, f"mlflow={store}", tmp_path)
    uri = (tmp_path / store).as_uri() if store == "mlruns" else store
    from mlflow.tracking import MlflowClient  # noqa: PLC0415 (a second, where it is not needed)

    client = MlflowClient(tracking_uri=uri)
    made = client.get_experiment_by_name("made here")
    assert made is not None
    runs = client.search_runs([made.experiment_id])
    by_member = {run.data.tags.get("shoal.member"): run for run in runs}
    assert sorted(by_member, key=str) == ["0", "1", "2", "3", None]
    parent = by_member[None]
    assert parent.data.tags["shoal.experiment"] == result.id
    for member in range(4):
        run = by_member[str(member)]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        rows = [row for row in result.trials() if row.member == member]
        assert run.data.params["kind"] == rows[0].hparams["kind"]

        def series(name: str, run: str = run.info.run_id) -> dict[int, float]:
            return {one.step: one.value for one in client.get_metric_history(run, name)}

        assert series("metric") == pytest.approx(finished(result, member))
        assert series("hparams/lr") == pytest.approx({r.step: r.hparams["lr"] for r in rows})
        for copier, step in copies(result):
            if copier == member:
                donor = copies(result)[copier, step]
                said = run.data.tags[f"shoal.copy.{step}"]
                assert said.startswith(f"copied member {donor[0]} (step {donor[1]})")
                assert by_member[str(donor[0])].info.run_id in said
    assert result.best is not None
    assert f"member {result.best.lineage[-1].member} " in parent.data.tags["shoal.best"]


# ------------------------------------------------------------------ Weights & Biases


def logged(file: Path) -> Iterator[Record]:
    """What is in a file of a W&B run: a log as LevelDB writes it, after a header of 7 bytes."""
    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 < len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def run_in(file: Path) -> dict[str, Any]:
    """What a file of a W&B run says: id, group, project, config, rows."""
    run, rows = dict[str, Any](), list[dict[str, Any]]()
    for record in logged(file):
        if record.HasField("run"):
            said = record.run
            run |= {"id": said.run_id, "group": said.run_group, "project": said.project}
            run["config"] = {item.key: json.loads(item.value_json) for item in said.config.update}
        if record.HasField("history"):
            items = record.history.item
            rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return {**run, "rows": rows}


def test_wandb(result: Result, tmp_path: Path) -> None:
    home = str(result.folder.path.parent)
    kept = tmp_path / "kept"
    kept.mkdir()
    environment = os.environ | {
        "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(kept),
    }  # fmt: skip
    command = ["-m", "shoal", "export", result.id, "--home", home, "--format", "wandb"]
    ended = subprocess.run(
        [sys.executable, *command, "-o", "project"], cwd=tmp_path, env=environment, check=False,
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert not (tmp_path / "wandb").exists()
    files = sorted((kept / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 4
    for file in files:
        run = run_in(file)
        member = int(run["id"].removeprefix(f"{result.id}-"))
        assert (run["group"], run["project"]) == (result.id, "project")
        rows = {row["_step"]: row for row in run["rows"]}
        metrics = {step: row["metric"] for step, row in rows.items() if "metric" in row}
        assert metrics == pytest.approx(finished(result, member))
        ours = [row for row in result.trials() if row.member == member]
        assert {s: row["hparams/kind"] for s, row in rows.items()} == {
            row.step: row.hparams["kind"] for row in ours
        }
        assert run["config"]["kind"] == ours[0].hparams["kind"]
        copied = {s: row["copied/member"] for s, row in rows.items() if "copied/member" in row}
        assert copied == {
            step: donor for (copier, step), (donor, _) in copies(result).items() if copier == member
        }


# ------------------------------------------------------------------ while a run goes on


def test_a_run_is_followed_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    config = lab(tmp_path, track=["tensorboard=logs"])
    result = shoal.run(config, verbose=False)
    (root,) = (tmp_path / "logs").iterdir()
    shoal.resume(result.id, home=tmp_path / "home", steps=5, verbose=False)
    for member in range(4):
        steps = [step for step, _ in events(root / f"member-{member}")["metric"]]
        assert steps == [0, 1, 2, 3, 4], "each once, over both lives"
    assert not [line for line in log_of(result) if "told no more" in line]


def test_a_tracker_that_fails_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a folder is wanted")
    result = shoal.run(lab(tmp_path, track=["tensorboard=logs"]), verbose=False)
    assert result.state == "done"
    (said,) = [line for line in log_of(result) if "told no more" in line]
    assert "tensorboard=logs: " in said
    assert "`shoal export --format tensorboard` writes all of it later" in said


def test_whoever_watches_and_raises_ends_no_run(tmp_path: Path) -> None:
    class Clumsy(shoal.Observer):
        def changed(self, tuner: shoal.Tuner, waiting: str) -> None:
            raise ZeroDivisionError("oh")

        def ended(self) -> None:
            raise AssertionError("it is told no more")

    result = shoal.run(lab(tmp_path), observer=Clumsy(), verbose=False)
    assert result.state == "done"
    assert "Clumsy is told no more: ZeroDivisionError: oh" in log_of(result)


def test_progress_is_kept_by_tracker(tmp_path: Path) -> None:
    result = experiment(tmp_path, population=2, steps=2)
    one, other = (Progress(result.folder, what) for what in ("mlflow", "tensorboard=x"))
    one.save(3)
    other.save(5)
    assert Progress(result.folder, "mlflow").seq == 3
    assert Progress(result.folder, "tensorboard=x").seq == 5
    assert Progress(result.folder, "tensorboard=y").seq == 0


# ------------------------------------------------------------------ what cannot be


def test_an_unknown_tracker_is_refused() -> None:
    assert set(KNOWN) == set(TRACKERS)
    with pytest.raises(ConfigError, match="expected one of tensorboard, mlflow, wandb"):
        shoal.Config(command="x", space=SPACE, track=["comet"])


def test_without_its_library_nothing_is_begun(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(KNOWN, "mlflow", ("shoal.trackers.mlflow", "no_such_library"))
    with pytest.raises(ExperimentError, match=r"pip install shoal\[mlflow\]"):
        shoal.run(lab(tmp_path, track=["mlflow"]), verbose=False)
    assert not (tmp_path / "home").exists()


def test_following_before_it_began_has_an_end() -> None:
    Following("tensorboard").ended()
