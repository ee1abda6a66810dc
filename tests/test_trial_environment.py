"""What an experiment gives its trials in their environment, and when a trial is said to begin."""

from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.config import ConfigError
from shoal.runners import processes
from tests.lab import TOY, experiment

TELL = "import os; assert (os.environ['WIDTH'], os.environ.get('HOME')) == ('7', 'x y')\n"


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_variables_of_the_file_and_of_the_call(tmp_path: Path, warm: bool) -> None:
    config = experiment(tmp_path, TELL + TOY, warm=warm, steps=1, env={"WIDTH": 6, "HOME": "x y"})
    result = shoal.run(config, env={"WIDTH": "7"})
    assert result.state == "done"
    assert result.config["env"] == {"WIDTH": "7", "HOME": "x y"}, "they are recorded"


def test_they_are_set_before_shared_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "reads.py").write_text("import os\nWIDTH = os.environ['WIDTH']\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    trial = "import reads; assert reads.WIDTH == '7'\n" + TOY
    result = shoal.run(experiment(tmp_path, trial, env={"WIDTH": "7"}, preload=["reads"], steps=1))
    assert result.state == "done"
    assert not list(result.folder.path.rglob("imports.json")), "no trial had to begin anew"


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ([1], "expected a mapping of names to text"),
        ({"A B": "1"}, "expected the name of a variable, got 'A B'"),
        ({"NNI_EXP_ID": "1"}, "a variable that shoal gives every trial"),
        ({"A": None}, "expected text"),
        ({"A": True}, "expected text"),
        ({"A": "x\0"}, "expected text"),
    ],
)
def test_what_is_no_environment_is_refused(tmp_path: Path, env: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        experiment(tmp_path, env=env)


def test_a_trial_begins_with_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "slow.py").write_text("import time\ntime.sleep(1.5)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    monkeypatch.setattr(processes, "WAIT_S", 60.0)
    result = shoal.run(experiment(tmp_path, TOY, preload=["slow"], steps=1))
    assert result.seconds >= 1.5, "it waited for the import"
    for row in result.trials():
        assert row.ended is not None
        assert row.ended - row.started < 1.0
