"""Limits and what comes after them, through real runs."""

from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.home import experiments
from tests.lab import TOY, experiment


def resumed(result: shoal.Result, **limits: Any) -> shoal.Result:
    return shoal.resume(result.id, home=result.folder.path.parent, **limits)


def test_max_trials_counts_decided_trials(tmp_path: Path) -> None:
    result = shoal.run(experiment(tmp_path, steps=None, max_trials=6))
    assert (result.state, result.reason) == ("done", "")
    assert len(result.trials()) == 6
    assert len(resumed(result).trials()) == 6, "there is nothing left to do"
    assert len(resumed(result, max_trials=9).trials()) == 9
    assert len(resumed(result, steps=3).trials()) == 12


def test_a_failed_trial_counts_too(tmp_path: Path) -> None:
    script = "import os, sys\nif os.environ['NNI_TRIAL_SEQ_ID'] == '2': sys.exit(1)\n" + TOY
    result = shoal.run(experiment(tmp_path, script, steps=None, max_trials=6))
    assert len(result.trials()) == 6
    assert result.progress.failed == 1


def test_a_time_limit_lets_what_runs_end(tmp_path: Path) -> None:
    result = shoal.run(experiment(tmp_path, steps=None, max_duration=1.0))
    assert result.state == "done"
    assert result.reason == "the time limit of 1 s was reached"
    rows = result.trials()
    assert {row.state for row in rows} == {"finished"}
    assert result.seconds >= 1.0
    more = resumed(result)
    assert len(more.trials()) == len(rows), "the time is that of all sessions together"
    more = resumed(result, max_duration=result.seconds + 1.0)
    assert len(more.trials()) > len(rows)


@pytest.mark.parametrize(("mode", "target"), [("max", -0.2), ("min", 0.2)])
def test_a_target_ends_the_run(tmp_path: Path, mode: str, target: float) -> None:
    sign = "-" if mode == "max" else ""
    script = TOY.replace("1.2 - sum(t * t for t in theta)", f"{sign}sum(t * t for t in theta)")
    result = shoal.run(
        experiment(tmp_path, script, mode=mode, target=target, steps=None, max_trials=4000)
    )
    assert result.state == "done"
    assert result.reason == f"the target of {target:g} was reached"
    assert result.best is not None
    assert abs(result.best.metric) <= 0.2
    scores = [row.metric for row in result.trials() if row.metric is not None]
    assert result.best.metric == (max if mode == "max" else min)(scores)


def test_more_steps_go_on_as_if_they_had_been_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    short = shoal.run(experiment(tmp_path / "a", steps=2))
    long = shoal.run(experiment(tmp_path / "b", steps=4))
    assert resumed(short, steps=4).export() == long.export()
    assert shoal.open(short.id, home=tmp_path / "a" / "home").config["steps"] == 4


def test_a_change_that_is_no_good_changes_nothing(tmp_path: Path) -> None:
    result = shoal.run(experiment(tmp_path))
    with pytest.raises(shoal.ConfigError, match="steps"):
        resumed(result, steps=0)
    assert shoal.open(home=tmp_path / "home").config["steps"] == 3


def test_the_experiment_is_found_where_it_is_and_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "default"))
    result = shoal.run(experiment(tmp_path))  # its configuration names a home of its own
    assert result.folder.path.parent == tmp_path / "home"
    assert [folder.path for folder in experiments(tmp_path / "default")] == [result.folder.path]
    assert shoal.open().id == shoal.open("lab").id == result.id


def test_a_trial_needs_no_python(tmp_path: Path) -> None:
    script = (
        "set -e\n"
        'mkdir -p $(sed -n \'s/.*"save": "\\([^"]*\\)".*/\\1/p\' "$SHOAL_TRIAL_DIR/trial.json")\n'
        "echo '{\"final\": 0.5}' >> $SHOAL_TRIAL_DIR/metrics.jsonl\n"
    )
    (tmp_path / "trial.sh").write_text(script)
    result = shoal.run(experiment(tmp_path, command="bash trial.sh"))
    assert result.state == "done"
    assert {row.metric for row in result.trials()} == {0.5}


def test_a_function_needs_no_script(tmp_path: Path) -> None:
    (tmp_path / "training.py").write_text(
        "import json\n"
        "def train(trial):\n"
        "    path = trial.load and trial.load / 'n'\n"
        "    n = int(path.read_text()) if path else 0\n"
        "    (trial.save / 'n').write_text(str(n + 1))\n"
        "    trial.report(n)\n"
        "    return {'accuracy': n + trial.hparams['h0'], 'n': n}\n"
    )
    for warm in (True, False):
        config = experiment(
            tmp_path, command=None, train="training:train", metric="accuracy", warm=warm
        )
        result = shoal.run(config)
        assert result.state == "done", result.reason
        assert [int(row.metrics["n"]) for row in result.trials()] == [0] * 4 + [1] * 4 + [2] * 4
        assert result.export()[-1]["intermediate"] == [2]
