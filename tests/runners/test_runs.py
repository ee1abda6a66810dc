"""What whole runs make of the imports of their trials, and of commands of more than one line."""

import json
from pathlib import Path
from typing import Any

import pytest

import shoal
from tests.lab import TOY, experiment, log_of


def notes(result: shoal.Result) -> dict[int, Any]:
    """What each trial has told of its imports, by its id."""
    files = sorted(result.folder.path.glob("trials/*/1/imports.json"))
    return {int(file.parents[1].name): json.loads(file.read_text()) for file in files}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def test_a_slow_import_is_told_once_with_what_would_share_it(
    tmp_path: Path, installed: Path
) -> None:
    (installed / "slowly.py").write_text("import time\ntime.sleep(0.4)\n")
    script = "import slowly\n" + TOY
    result = shoal.run(experiment(tmp_path, script, steps=2))
    told = [line for line in log_of(result) if "slowly" in line]
    assert len(told) == 1
    assert told[0].startswith("each trial imports slowly, which takes 0.4 s")
    assert "`preload: [slowly]` in the experiment file shares it" in told[0]
    shared = shoal.run(experiment(tmp_path, script, steps=2, preload=["slowly"]))
    assert not any("each trial imports" in line for line in log_of(shared))
    assert max(row.ended - row.started for row in shared.trials() if row.ended) < 0.4


def test_an_environment_that_each_trial_sets_is_learned(tmp_path: Path, installed: Path) -> None:
    (installed / "reads.py").write_text("import os\nWIDTH = os.environ.get('WIDTH')\n")
    script = "import os\nos.environ['WIDTH'] = '3'\nimport reads\nassert reads.WIDTH == '3'\n" + TOY
    result = shoal.run(experiment(tmp_path, script, steps=30, preload=["reads"]))
    assert result.progress.finished == 120
    assert sum("began anew" in line for line in log_of(result)) == 1
    cold = [trial for trial, note in notes(result).items() if "cold" in note]
    assert 0 in cold, "the first was told one thing and had set another"
    assert len(cold) < 60, "and then a server knows it"
    assert 119 not in cold


def test_what_a_script_imports_on_its_way_is_learned(tmp_path: Path) -> None:
    """Its text does not tell: the first trials import it by themselves."""
    script = (
        "import importlib, sys\n"
        "before = 'numpy' in sys.modules\n"
        "importlib.import_module('num' + 'py')\n"
        "assert not before\n" + TOY
    )
    result = shoal.run(experiment(tmp_path, script, steps=30))
    assert result.progress.finished == 120
    imported = [trial for trial, note in notes(result).items() if note.get("imports")]
    assert 0 in imported
    assert "numpy" in notes(result)[0]["imports"]
    assert 119 not in imported


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_command_of_two_lines_is_what_a_shell_makes_of_it(tmp_path: Path, warm: bool) -> None:
    (tmp_path / "prepare.py").write_text(
        "import os, sys\nassert len(sys.argv) == 1\n"
        "open(os.path.join(os.environ['SHOAL_TRIAL_DIR'], 'prepared'), 'x').close()\n"
    )
    script = "import os; assert os.path.exists(os.environ['SHOAL_TRIAL_DIR'] + '/prepared')\n" + TOY
    command = "python3 prepare.py\npython3 trial.py\n"
    result = shoal.run(experiment(tmp_path, script, command=command, warm=warm, steps=2))
    assert result.state == "done"
    assert result.progress.finished == 8
