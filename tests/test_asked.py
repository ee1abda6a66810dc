"""What is asked for at the start: starting points, limits, ranges; and what is told of it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.config import ConfigError
from shoal.core.space import Choice, Float, Int, Space
from shoal.core.tuner import Tuner
from tests.lab import At, log_of

SPACE: dict[str, Any] = {
    "lr": Float(1e-4, 1.0, log=True),
    "n": Int(1, 9),
    "kind": Choice(["a", "b"]),
}


def work(trial: Any) -> float:
    (trial.save / "x").write_text("1")
    return float(trial.hparams["lr"])


def run(home: Path, **words: Any) -> shoal.Result:
    given: dict[str, Any] = {"space": SPACE, "population": 4, "steps": 1, "home": home}
    return shoal.run(work, **{**given, **words})


def test_the_first_members_begin_with_what_is_given(tmp_path: Path) -> None:
    given = [{"lr": 1, "n": 3, "kind": "b"}, {"lr": 0.25}]
    result = run(tmp_path, initial=given, steps=2)
    first = [row.hparams for row in result.trials() if row.step == 0]
    drawn = [row.hparams for row in run(tmp_path).trials()]
    assert first == [{"lr": 1.0, "n": 3, "kind": "b"}, {**drawn[1], "lr": 0.25}, *drawn[2:]]
    assert isinstance(first[0]["lr"], float)
    again = shoal.resume(work, result.id, steps=3, home=tmp_path)
    assert again.config["initial"] == [{"lr": 1.0, "n": 3, "kind": "b"}, {"lr": 0.25}]


@pytest.mark.parametrize(
    ("initial", "said"),
    [
        ([{"lr": 2.0}], r"initial\[0\].lr: expected a value of .*, got 2.0"),
        ([{}, {"n": 1.5}], r"initial\[1\].n: expected a value of .*, got 1.5"),
        ([{"rl": 0.1}], r"initial\[0\].rl: unknown key 'rl'"),
        ([{}] * 5, "initial: expected one a member, 4, got 5 settings"),
        ({"lr": 0.1}, "initial: expected a list of mappings"),
    ],
)
def test_a_starting_point_that_is_none_is_refused(tmp_path: Path, initial: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(tmp_path, initial=initial)
    with pytest.raises(ValueError, match="initial has 3 settings, for 2 members"):
        Tuner(Space(SPACE), population=2, steps=1, initial=[{}] * 3)


def test_a_list_that_looks_like_a_range_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"lr": 0.1, "range": [1e-4, 1e-1], "sizes": [64, 32], "n": [1, 9]}
    run(tmp_path, space=space)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    form = (
        "warning: {} is the list {} itself in every trial: write a range as {}, in Python shoal.{}"
    )
    assert said == [
        form.format("range", "[0.0001, 0.1]", "{float: [0.0001, 0.1]}", "Float(0.0001, 0.1)"),
        form.format("n", "[1, 9]", "{int: [1, 9]}", "Int(1, 9)"),
    ]


def test_a_run_without_an_end_says_so_and_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = At(6, lambda: os.kill(os.getpid(), 2))
    result = run(tmp_path, steps=None, observer=stop)
    shown = capsys.readouterr().err
    assert result.state == "stopped"
    assert "no limit is given" in shown
    assert "it goes on until Ctrl-C" in log_of(result)[0]
    assert f"shoal.resume({result.id!r}) goes on." in shown
    run(tmp_path, max_trials=4, steps=None)
    assert "no limit is given" not in capsys.readouterr().err


SCRIPT = """
from shoal.trial import current

trial = current(default={"lr": 0.5})
assert trial.load is None and trial.save.is_dir()
trial.report(0.25)
(trial.save / "x").write_text("1")
trial.finish(trial.hparams["lr"])
"""


def test_a_script_alone_runs_a_step_under_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    first, *rest = ended.stderr.splitlines()
    assert first.startswith("shoal: no experiment runs this: one step under {'lr': 0.5}, saved to ")
    assert rest == ["shoal: reported 0.25", "shoal: finished with 0.5"]
    assert (Path(first.rpartition(" ")[2]) / "x").read_text() == "1"
    config: Any = {
        "command": f"{sys.executable} train.py",
        "space": {"lr": Float(0.75, 0.75 + 1e-9)},
    }
    result = shoal.run(
        shoal.Config(**config, directory=tmp_path, steps=1, population=1), home=tmp_path / "home"
    )
    assert result.best.metric == pytest.approx(0.75), "in an experiment it is as ever"


def test_trials_come_as_a_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    result = run(tmp_path, steps=2)
    table = result.trials().to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert table["metric"].tolist() == [row.metric for row in result.trials()]
    assert table["hparams.kind"].tolist() == [row.hparams["kind"] for row in result.trials()]


def test_a_notebook_shows_what_came_of_it(tmp_path: Path) -> None:
    result = run(tmp_path, name="<b>bold</b>")
    assert "&lt;b&gt;bold&lt;/b&gt;" in result._repr_html_()
    assert f"{result.best.metric:.6g}, trial {result.best.id}" in result._repr_html_()
    assert result.trials()._repr_html_().count("<tr>") == 5
