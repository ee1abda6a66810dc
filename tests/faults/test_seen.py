"""What goes wrong is seen: while it runs, at its end, and by whoever looks later."""

import math
import os
import re
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.history import History
from shoal.home import ExperimentError
from shoal.plots.exploits import exploited, shares
from shoal.show import tables
from shoal.web import answers
from shoal.web.followed import Followed
from tests.cli.shell import TRAIN, Shell, write
from tests.lab import SPACE, log_of


def nan_in_one(trial: Any) -> float:
    (trial.save / "x").write_text("1")
    return math.nan if trial.member == 1 else float(trial.hparams["h0"])


def crash_in_one(trial: Any) -> float:
    (trial.save / "x").write_text("1")
    if trial.member == 1:
        raise ValueError("member 1 never works")
    return float(trial.hparams["h0"])


def nothing_works(trial: Any) -> float:
    raise ValueError("nothing works")


def saves_nothing(trial: Any) -> float:
    return float(trial.hparams["h0"])


def run(work: Any, home: Path, **words: Any) -> shoal.Result:
    given = {"space": SPACE, "population": 4, "steps": 3, "home": home}
    return shoal.run(work, **{**given, **words})


def test_a_metric_that_is_nan_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(nan_in_one, tmp_path)
    shown = capsys.readouterr().err
    line = "trial 1 (member 1, step 0) failed: nan: its final result is nan"
    assert shown.count(f"warning: {line}\n") == 1
    assert "done  9 trials in" in shown
    assert "3 failed: nan\n" in shown
    assert line in log_of(result)
    assert "9 of 12 trials finished, 3 failed: nan" in repr(result)
    status = result.status()
    assert (status["trials"]["failed"], status["failures"]) == (3, "nan")
    assert "3 failed: nan" in " ".join(" ".join(tables.status(result)).split())
    assert result.brief()["trials"]["failed"] == 3
    assert "3" in tables.listing([result.brief()])[1].split()


def test_a_script_that_raises_in_one_member_is_told(shell: Shell, tmp_path: Path) -> None:
    script = TRAIN.replace(
        "print(", "assert os.environ['NNI_TRIAL_SEQ_ID'] != '1', 'one'\nprint(", 1
    )
    ended = shell("run", write(tmp_path / "toy", script))
    assert ended.returncode == 0
    assert "warning: trial 1 (member 1, step 0) failed: crash: exit code 1\n" in ended.stderr
    assert "1 failed: AssertionError: one\n" in ended.stdout
    assert "1 failed: AssertionError: one" in shell("status").stdout
    assert shell.json("list")[0]["trials"]["failed"] == 1


def test_who_shows_nothing_warns_once(tmp_path: Path) -> None:
    with pytest.warns(shoal.ShoalWarning, match="3 of 12 trials failed: nan") as caught:
        run(nan_in_one, tmp_path, verbose=False)
    assert [Path(one.filename).name for one in caught] == [Path(__file__).name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(saves_nothing, tmp_path, verbose=False, steps=1)


def test_what_fails_in_the_same_way_again_is_not_tried_again(tmp_path: Path) -> None:
    runs: list[tuple[Any, dict[str, Any], int]] = [
        (nan_in_one, {}, 1),
        (crash_in_one, {}, 2),
        (nan_in_one, {"retries": 2}, 3),
    ]
    for work, words, attempts in runs:
        result = run(work, tmp_path, **words)
        assert {row.attempt for row in result.trials() if row.state == "failed"} == {attempts}


def test_the_best_of_a_run_in_which_all_failed_says_why_there_is_none(tmp_path: Path) -> None:
    with pytest.warns(shoal.ShoalWarning, match="it failed: all 4 trials of step 0 failed"):
        result = run(nothing_works, tmp_path, verbose=False)
    assert result.best_so_far is None
    with pytest.raises(ExperimentError, match=r"has finished: all 4 .*nothing works"):
        result.best  # noqa: B018 (it raises)


def test_a_function_that_saves_nothing_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(saves_nothing, tmp_path)
    said = [line for line in log_of(result) if "saved nothing" in line]
    assert len(said) == 1
    assert re.match(r"member \d begins step 1 anew: trial \d saved nothing", said[0])
    assert result.best.checkpoint is None
    assert "none: nothing was saved" in capsys.readouterr().err


class Dies:
    """A trainable whose `save` ends in a way of its own."""

    def __init__(self, how: str) -> None:
        self.how = how

    def init(self, hparams: Any, seed: int) -> dict[str, float]:
        return {"x": 0.0}

    def step(self, state: Any, hparams: Any) -> Any:
        state["x"] += hparams["h0"]
        return state, state["x"]

    def save(self, state: Any, path: Path) -> None:
        match self.how:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                sys.exit("no room for it")
            case "interrupt":
                raise KeyboardInterrupt
            case "raise":
                raise OSError("no room for it")
            case _:
                os._exit(0)

    def load(self, path: Path) -> Any:
        raise AssertionError


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("kill", "was ended by SIGKILL"),
        ("exit", "SystemExit: no room for it"),
        ("interrupt", "KeyboardInterrupt"),
        ("raise", "OSError: no room for it"),
        ("_exit", "ended with exit code 0"),
    ],
)
def test_a_run_of_which_nothing_was_saved_has_failed(tmp_path: Path, how: str, why: str) -> None:
    with pytest.warns(shoal.ShoalWarning, match="nothing that was trained could be saved"):
        result = run(Dies(how), tmp_path, steps=4, workers=2, verbose=False)
    assert result.state == "failed"
    assert "nothing that was trained could be saved: member " in result.reason
    assert why in result.reason
    assert any("could not be saved" in line and why in line for line in log_of(result))
    assert result.best.checkpoint is None, "what was trained is known all the same"


def fails_after_a_copy(trial: Any) -> float:
    (trial.save / "member").write_text(str(trial.member))
    source = trial.load and (trial.load / "member").read_text()
    if source and source != str(trial.member):
        raise ValueError("a copy never works")
    return float(trial.member)


def test_copies_whose_trial_failed_are_shown_and_counted(tmp_path: Path) -> None:
    with pytest.warns(shoal.ShoalWarning):
        result = run(fails_after_a_copy, tmp_path, steps=4, retries=0, verbose=False)
    history = History.of(result)
    found = exploited(history)
    assert len(found.trial) == history.copied.sum() > 3
    assert found.failed.all()
    _, better, _ = shares(found, history.steps)
    assert better.tolist() == [0.0] * len(better), "none was better for it"
    followed = Followed.of(result.folder)
    followed.refresh()
    told = answers.exploits(followed.now(), page=0, size=10)
    assert [one["failed"] for one in told["exploits"]] == [True] * len(found.trial)
    assert [one["after"] for one in told["exploits"]] == [None] * len(found.trial)


class Handle:
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot copy a handle")


class Uncopyable:
    """A trainable whose states have something that cannot be copied."""

    def init(self, hparams: Any, seed: int) -> Any:
        return {"x": 0.0, "open": Handle()}

    def step(self, state: Any, hparams: Any) -> Any:
        state["x"] += hparams["h0"]
        return state, state["x"]

    def save(self, state: Any, path: Path) -> None:
        (path / "x").write_text(repr(state["x"]))

    def load(self, path: Path) -> Any:
        return self.init({}, 0) | {"x": float((path / "x").read_text())}


class Unloadable(Uncopyable):
    def load(self, path: Path) -> Any:
        raise RuntimeError("load is not written yet")


def test_a_state_that_cannot_be_copied_is_told_once_with_the_reason(tmp_path: Path) -> None:
    result = run(Uncopyable, tmp_path, steps=6, workers=1, exploit={"truncation": 0.5})
    said = [line for line in log_of(result) if "to copy them" in line]
    assert len(said) == 1
    assert "copy.deepcopy fails: TypeError: cannot copy a handle" in said[0]
    assert {row.state for row in result.trials()} == {"finished"}


def test_a_state_that_cannot_be_copied_blames_no_region_of_the_space(tmp_path: Path) -> None:
    with pytest.warns(shoal.ShoalWarning, match="not copied"):
        result = run(Unloadable, tmp_path, steps=8, workers=1, verbose=False, inline=True)
    errors = {(row.error or "").partition(": ")[0] for row in result.trials()} - {""}
    assert errors == {"not copied"}
    assert not [finding for finding in result.findings if finding.key.startswith("fails")]
