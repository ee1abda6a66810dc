"""Whatever a trial does to itself, it is a defined outcome, and the run goes on."""

import sys
from pathlib import Path

import pytest

import shoal
from shoal.runners import script as script_runner
from tests.lab import TOY, experiment, log_of

# The first trial misbehaves each time it is tried; what follows is the well-behaved one.
MISBEHAVE = """
import os, signal, sys, time
first = os.environ["NNI_TRIAL_SEQ_ID"] == "0"
"""
BEFORE = {
    "crash before asking": ("sys.exit(3)", "crash: exit code 3"),
    "traceback": ("raise ValueError('broken data')", "ValueError: broken data"),
    "text instead of a code": ("sys.exit('no such data set')", "no such data set"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "killed: it was ended by SIGKILL"),
    "terminated": ("os.kill(os.getpid(), signal.SIGTERM)", "killed: it was ended by SIGTERM"),
    "segfault": ("os.kill(os.getpid(), signal.SIGSEGV)", "killed: it was ended by SIGSEGV"),
    "no final result": ("sys.exit(0)", "no result"),
    "asked, no final result": ("import nni; nni.get_next_parameter(); sys.exit()", "no result"),
    "out of time": ("time.sleep(600)", "timeout: it ran longer than 1 s"),
    "out of time, deaf": (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
        "timeout: it ran longer than 1 s",
    ),
}
FINALS = {
    "None": ("None", "bad result", "got None"),
    "text": ("'0.9'", "bad result", "got '0.9'"),
    "list": ("[0.9]", "bad result", "got [0.9]"),
    "dict without default": ("{'accuracy': 0.9}", "bad result", "under 'default'"),
    "dict with text": ("{'default': 'high'}", "bad result", "got {'default': 'high'}"),
    "NaN": ("float('nan')", "nan", "nan"),
    "inf": ("float('inf')", "nan", "inf"),
    "-inf": ("float('-inf')", "nan", "-inf"),
    "dict with NaN": ("{'default': float('nan')}", "nan", "nan"),
    "a number no float can hold": ("10 ** 400", "nan", "inf"),
}


def refilled(result: shoal.Result) -> None:
    """The run ended well, and member 0 went on from a member that had finished."""
    rows = result.trials()
    assert result.state == "done"
    assert [row.state for row in rows[1:]] == ["finished"] * (len(rows) - 1)
    second = next(row for row in rows if (row.member, row.step) == (0, 1))
    assert second.parent is not None
    assert second.parent != 0
    assert rows[second.parent].step == 0


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("name", BEFORE)
def test_a_trial_that_dies(
    tmp_path: Path, name: str, warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_runner, "GRACE_S", 0.5)
    action, said = BEFORE[name]
    script = f"{MISBEHAVE}\nif first:\n    {action}\n{TOY}"
    timeout = 1.0 if "time" in said else None
    result = shoal.run(experiment(tmp_path, script, steps=2, warm=warm, timeout=timeout))
    row = result.trials()[0]
    assert row.state == "failed"
    assert row.attempt == 2, "it is tried once more"
    assert row.error is not None
    assert said in row.error
    refilled(result)


@pytest.mark.parametrize("name", FINALS)
def test_a_final_result_that_is_none(tmp_path: Path, name: str) -> None:
    value, kind, said = FINALS[name]
    last = f"if first:\n    nni.report_final_result({value})\n    sys.exit()\n"
    script = MISBEHAVE + TOY.replace("nni.report_final_result", last + "nni.report_final_result")
    result = shoal.run(experiment(tmp_path, script, steps=2))
    row = result.trials()[0]
    assert row.error is not None
    assert row.error.startswith(kind)
    assert said in row.error
    refilled(result)


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_crash_after_the_final_result_is_a_crash(tmp_path: Path, warm: bool) -> None:
    script = MISBEHAVE + TOY + "\nif first: raise OSError('disk full while saving')\n"
    result = shoal.run(experiment(tmp_path, script, steps=2, warm=warm))
    error = result.trials()[0].error
    assert error is not None
    assert "after it had reported its final result" in error
    assert "disk full while saving" in error
    refilled(result)


@pytest.mark.parametrize("value", ["0", "0.0", "-0.0", "False", "{'default': 0}"])
def test_a_metric_of_exactly_zero_is_valid(tmp_path: Path, value: str) -> None:
    script = f"import nni\nnni.get_next_parameter()\nnni.report_final_result({value})\n"
    result = shoal.run(experiment(tmp_path, script, steps=2))
    assert result.state == "done"
    assert [row.metric for row in result.trials()] == [0.0] * 8
    assert result.best is not None
    assert result.best.metric == 0


def test_of_two_final_results_the_first_counts(tmp_path: Path) -> None:
    script = (
        "import nni\nnni.get_next_parameter()\n"
        "nni.report_final_result(0.25)\nnni.report_final_result(0.75)\n"
    )
    result = shoal.run(experiment(tmp_path, script, steps=1))
    assert {row.metric for row in result.trials()} == {0.25}
    assert any("several final results" in line for line in log_of(result))


def test_an_empty_save_folder_is_a_warning(tmp_path: Path) -> None:
    script = TOY.replace("theta.json", "nothing.json").replace('"w") as', '"w") as') + (
        "\nos.remove(os.path.join(p['save_checkpoint_dir'], 'nothing.json'))\n"
    )
    result = shoal.run(experiment(tmp_path, script, steps=3))
    assert result.state == "done"
    assert result.progress.finished == 12
    assert sum("saved nothing" in line for line in log_of(result)) == 12
    assert result.best is not None


def test_a_retry_finds_an_empty_save_folder_and_the_same_parent(tmp_path: Path) -> None:
    script = (
        MISBEHAVE
        + TOY.replace(
            "os.makedirs(p",
            "save = p['save_checkpoint_dir']\n"
            "assert not os.path.exists(save), os.listdir(save)\n"
            "os.makedirs(p",
            1,
        )
        + (
            "flag = 'failed-once'\n"
            "ours = p['save_checkpoint_dir'].endswith(os.path.join('1', '1'))\n"
            "if ours and not os.path.exists(flag):\n"
            "    open(flag, 'w').close()\n"
            "    sys.exit(1)\n"
        )
    )
    result = shoal.run(experiment(tmp_path, script, steps=3))
    tried = next(row for row in result.trials() if (row.member, row.step) == (1, 1))
    assert (tried.state, tried.attempt) == ("finished", 2)
    assert result.progress.failed == 0


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_generation_starts_when_processes_have_ended(tmp_path: Path, warm: bool) -> None:
    # as NNI's own example does: the result first, the checkpoint afterwards; and here, much later
    report, save = TOY.index("nni.report_final"), TOY.index("os.makedirs")
    script = TOY[:save] + TOY[report:] + "import time; time.sleep(0.3)\n" + TOY[save:report]
    check = "path = os.path"
    script = script.replace(
        check, "assert p['load_checkpoint_dir'] == p['save_checkpoint_dir'] or os.path.isfile("
        "os.path.join(p['load_checkpoint_dir'], 'theta.json'))\n" + check, 1,
    )  # fmt: skip
    result = shoal.run(experiment(tmp_path, script, warm=warm, workers=4))
    assert result.state == "done"
    assert result.progress.finished == 12
    assert result.progress.failed == 0


def test_modules_of_the_user_hide_none_of_ours(tmp_path: Path) -> None:
    for name in ("select", "socket", "shoal", "psutil", "preload"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not the one you want')\n")
    result = shoal.run(experiment(tmp_path, "import preload_mine\n" + TOY, steps=1))
    assert result.state == "failed", "the trial itself is as it would be by hand"
    (tmp_path / "preload_mine.py").write_text("")
    assert shoal.run(experiment(tmp_path, "import preload_mine\n" + TOY, steps=1)).state == "done"


def test_when_everybody_fails_the_run_ends_and_says_why(tmp_path: Path) -> None:
    script = "import sys\nprint('cannot find the images', file=sys.stderr)\nsys.exit(7)\n"
    result = shoal.run(experiment(tmp_path, script))
    assert result.state == "failed"
    assert "all 4 trials of step 0 failed" in result.reason
    assert "exit code 7" in result.reason
    assert "cannot find the images" in result.reason
    assert len(result.trials()) == 4


def test_a_failed_run_goes_on_once_its_cause_is_mended(tmp_path: Path) -> None:
    failed = shoal.run(experiment(tmp_path, "raise SystemExit(1)"))
    (tmp_path / "trial.py").write_text(TOY)
    result = shoal.resume(failed.id, home=tmp_path / "home")
    assert result.state == "done"
    assert result.progress.finished == 12


def test_asynchronous_runs_survive_bad_trials_too(tmp_path: Path) -> None:
    script = MISBEHAVE + "if int(os.environ['NNI_TRIAL_SEQ_ID']) % 3 == 0: sys.exit(1)\n" + TOY
    config = experiment(tmp_path, script, synchronous=False, steps=4, retries=0)
    result = shoal.run(config)
    assert result.state == "done"
    rows = result.trials()
    assert len(rows) == 16
    assert {row.state for row in rows if row.id % 3} == {"finished"}
    for row in rows:
        if row.parent is not None:
            assert rows[row.parent].state == "finished"


def test_a_checkpoint_that_vanished_is_a_failure_not_a_fresh_start(tmp_path: Path) -> None:
    # the last trial of a generation deletes what member 0 has just saved
    script = TOY + (
        "import shutil\n"
        "if os.environ['NNI_TRIAL_SEQ_ID'] == '3':\n"
        "    shutil.rmtree(os.path.join(os.path.dirname(os.path.dirname("
        "p['save_checkpoint_dir'])), '0', '0'))\n"
    )
    result = shoal.run(experiment(tmp_path, script, steps=2, workers=1))
    lost = [row for row in result.trials() if row.parent == 0]
    assert lost
    for row in lost:
        assert row.state == "failed"
        assert row.error is not None
        assert row.error.startswith("lost checkpoint")


assert sys.platform == "linux", "these tests look at signals and processes as Linux has them"
