"""NNI experiments as their users have them run unmodified (verbatim copies in `samples`)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shoal

SAMPLES = Path(__file__).parent / "samples"


@pytest.mark.parametrize(
    ("file", "checkpoints"),
    [
        ("v2.yml", "user/pbt-checkpoints"),
        pytest.param("v1.yml", "checkpoints", marks=pytest.mark.soak),
    ],
)
def test_a_sample_runs_unmodified(tmp_path: Path, file: str, checkpoints: str) -> None:
    pytest.importorskip("sklearn")
    shutil.copytree(SAMPLES, tmp_path, dirs_exist_ok=True)
    (tmp_path / "user").mkdir()
    env = {**os.environ, "HOME": str(tmp_path / "user"), "SHOAL_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "shoal.cli.main", "run", str(tmp_path / file)],
        env=env, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = shoal.open("digits_pbt", home=tmp_path / "home")
    rows = result.trials()
    assert len(rows) == 40, "maxTrialNumber"
    assert {row.state for row in rows} == {"finished"}
    assert {row.member for row in rows} == set(range(8)), "population_size"
    assert {row.step for row in rows} == set(range(5))
    assert result.checkpoints == tmp_path / checkpoints
    assert result.best is not None
    assert result.best.checkpoint is not None
    assert (result.best.checkpoint / "model.pkl").is_file()
    assert set(result.best.hparams) == {"alpha", "eta0", "batch", "average", "epochs"}
    first = json.loads((result.folder.trial(0, 1) / "trial.json").read_text())
    assert first["parameters"]["load_checkpoint_dir"] == first["parameters"]["save_checkpoint_dir"]
    # the copies are of the size that truncation has: ceil(0.2 x 8) and ceil(0.25 x 8) a generation
    copied = [r for r in rows if r.parent is not None and rows[r.parent].member != r.member]
    assert len(copied) == 4 * 2
    # what was reported on the way is there, as many as the trial's epochs
    for row, told in zip(rows, result.export(), strict=True):
        assert len(told["intermediate"]) == row.hparams["epochs"]
