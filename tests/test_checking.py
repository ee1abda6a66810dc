"""`shoal check`: what it finds, and that it leaves nothing behind."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import shoal
from shoal import checking as check
from shoal.config import Config
from shoal.core.records import Trial
from tests.cli.shell import TRAIN, Shell, write
from tests.lab import SPACE

LOADS = 'x = float((load / "x").read_text()) if (load / "x").is_file() else 0.0\n'
assert LOADS in TRAIN


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


def tried(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, **changes: Any
) -> CompletedProcess[str]:
    """`shoal check` of the toy with that script; nothing may be left behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    ended = shell("check", write(tmp_path / "toy", script, **changes))
    assert list(temporary.iterdir()) == []
    assert shell.nothing_there()
    return ended


def verdicts(ended: CompletedProcess[str]) -> dict[str, str]:
    """What was found out about what."""
    words = ("ok", "failed", "unknown")
    lines = [line.split(maxsplit=1) for line in ended.stdout.splitlines() if line.strip()]
    return {rest[0].split("  ")[0]: word for word, *rest in lines if word in words}


WELL = {
    "the file is valid": "ok",
    "trials finish": "ok",
    "the final result is a number": "ok",
    "something is saved": "ok",
    "what was saved is loaded": "ok",
    "what was copied is loaded": "ok",
    "hyperparameters take effect after loading": "ok",
}


@pytest.fixture(autouse=True)
def _(tmp_path: Path) -> None:
    if not check.records_reads(tmp_path):
        pytest.skip("this file system does not record when files are read")


def test_a_good_experiment(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = tried(shell, tmp_path, monkeypatch, TRAIN)
    assert ended.returncode == 0
    assert verdicts(ended) == WELL
    assert "All is well: `shoal run" in ended.stdout
    assert [line for line in ended.stderr.splitlines() if line.startswith("trial ")] == [
        "trial 1 of 4: member 0, step 0",
        "trial 2 of 4: member 1, step 0",
        "trial 3 of 4: member 0, step 1",
        "trial 4 of 4: member 1, step 1",
    ]


def test_the_folder_for_checkpoints_is_not_touched(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "checkpoints"
    ended = tried(shell, tmp_path, monkeypatch, TRAIN, checkpoints=str(checkpoints))
    assert ended.returncode == 0
    assert verdicts(ended) == WELL | {"the folder for checkpoints is empty": "ok"}
    assert not checkpoints.exists()


def test_a_full_folder_for_checkpoints_is_found(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints" / "0" / "0").mkdir(parents=True)
    ended = tried(shell, tmp_path, monkeypatch, TRAIN, checkpoints=str(tmp_path / "checkpoints"))
    assert ended.returncode == 1
    assert verdicts(ended) == WELL | {"the folder for checkpoints is empty": "failed"}


def test_a_script_that_never_loads(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = tried(shell, tmp_path, monkeypatch, TRAIN.replace(LOADS, "x = 0.0\n"))
    assert ended.returncode == 1
    loaded = {"what was saved is loaded": "failed", "what was copied is loaded": "failed"}
    assert verdicts(ended) == WELL | loaded
    assert "Load what is in load_checkpoint_dir" in " ".join(ended.stdout.split())


def test_a_script_that_loads_only_its_own(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the classic: one's own last checkpoint, wherever load_checkpoint_dir points
    own = "load = save.parent / str(int(save.name) - 1)\n"
    ended = tried(shell, tmp_path, monkeypatch, TRAIN.replace(LOADS, own + LOADS))
    assert ended.returncode == 1
    assert verdicts(ended) == WELL | {"what was copied is loaded": "failed"}


def test_a_script_that_saves_nothing(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = TRAIN.replace('(save / "x").write_text(repr(x))\n', "")
    ended = tried(shell, tmp_path, monkeypatch, script)
    assert ended.returncode == 1
    assert verdicts(ended)["something is saved"] == "failed"
    assert "what was saved is loaded" not in verdicts(ended)


def test_a_script_that_crashes(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = tried(shell, tmp_path, monkeypatch, "raise SystemExit('out of luck')\n")
    assert ended.returncode == 1
    assert verdicts(ended) == {"the file is valid": "ok", "trials finish": "failed"}
    assert "crash: exit code 1" in ended.stdout
    assert "out of luck" in ended.stdout


@pytest.mark.parametrize("result", ["'good'", "float('nan')", "{'accuracy': 1}"])
def test_a_result_that_is_no_number(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: str
) -> None:
    script = TRAIN.replace("-abs(3.0 - x)", result)
    ended = tried(shell, tmp_path, monkeypatch, script)
    assert ended.returncode == 1
    assert verdicts(ended)["trials finish"] == "ok"
    assert verdicts(ended)["the final result is a number"] == "failed"


def test_only_what_the_user_saved_is_looked_at(tmp_path: Path) -> None:
    checkpoint = tmp_path / "0" / "0"
    checkpoint.mkdir(parents=True)
    for name in (".shoal.json", ".lasts", "model.pt"):
        (checkpoint / name).touch()
    assert list(check.files(tmp_path)) == [checkpoint / "model.pt"]


def test_what_the_file_system_does_not_tell_is_unknown() -> None:
    seen = [check.Seen(Trial(2, 0, 1, {}, 0), files=1, read=0)]
    unknown = check.about_loading("what", seen, reads_show=False)
    assert (unknown.ok, unknown.detail) == (
        None,
        "could not be verified: this file system does not record when files are read",
    )
    assert check.about_loading("what", seen, reads_show=True).ok is False
    assert check.about_loading("what", [], reads_show=True).ok is None


@pytest.mark.parametrize(
    ("bytes_", "shown"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (75_870, "75.87 kB"), (2e12, "2000 GB")],
)
def test_sizes(bytes_: float, shown: str) -> None:
    assert check.size(int(bytes_)) == shown


def test_nni_files_are_checked_too(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    write(tmp_path / "toy")
    file = tmp_path / "toy" / "nni.json"
    experiment = {
        "searchSpace": {"lr": {"_type": "uniform", "_value": [0.1, 0.5]}},
        "trialCommand": "python3 train.py",
        "trialConcurrency": 2,
        "maxTrialNumber": 8,
        "tuner": {
            "name": "PBTTuner",
            "classArgs": {"optimize_mode": "maximize", "population_size": 4},
        },
        "trainingService": {"platform": "local"},
    }
    file.write_text(json.dumps(experiment))
    ended = shell("check", file)
    assert (ended.returncode, verdicts(ended)) == (0, WELL)


CLIMB = """
import json, random

STATE = {"x": 0.0, "velocity": 0.0}

class Climb:
    def init(self, hparams, seed): return {"x": 0.0, "velocity": 0.0}
    def step(self, state, hparams):
        for _ in range(3):
            state["velocity"] = 0.5 * state["velocity"] + hparams["h0"] * (3 - state["x"])
            state["x"] += 0.1 * state["velocity"] + 1e-3 * random.random()
        return state, -abs(state["x"] - 3)
    def save(self, state, path): (path / "state.json").write_text(json.dumps(state))
    def load(self, path): return json.loads((path / "state.json").read_text())
"""


SAVED, LOADED = ".write_text(json.dumps(state))", "return json.loads("
SAME = "a loaded state is the same as a held one"
APART = "members that share a worker do not touch each other"
EFFECT = "hyperparameters take effect after loading"
SECOND_FAILS = """\
if 'n' in vars(self): 1 / 0
        self.n = 1
        for _ in range(3):"""
CHANGES: dict[str, tuple[str, str, set[str], str]] = {
    "as it has to be": ("", "", set(), "4 metrics, to the last bit"),
    "half of it is loaded": (
        LOADED, 'return {"velocity": 0.0, "x": 0.0} | dict(x=0.1) or (', {SAME}, "the optimizer",
    ),
    "nothing is loaded": (
        LOADED, "return self.init({}, 0) or (", {"what was saved is loaded", SAME}, "starts anew",
    ),
    "nothing is saved": (SAVED, ".name", {"trials finish"}, "save wrote nothing to the folder"),
    "the model is shared": (
        'return {"x": 0.0, "velocity": 0.0}', "return STATE", {APART},
        "in the state that init returns",
    ),
    "a second step fails": (
        "for _ in range(3):", SECOND_FAILS, {SAME}, "ZeroDivisionError",
    ),
    "hyperparameters are those of the beginning": (
        'hparams["h0"]', 'state.setdefault("h0", hparams["h0"])', {EFFECT},
        "after the checkpoint is",
    ),
    "hyperparameters are never applied": ('hparams["h0"]', "0.1", {EFFECT}, "came to the same"),
    "what is saved tells of hyperparameters": (
        'hparams["h0"]', '(0.1 if state.update(h0=hparams["h0"]) else 0.1)', set(), "too coarse to",
    ),
    "never the same": ("random.random()", "random.SystemRandom().random()", set(), "run twice"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_trainable_is_checked(tmp_path: Path, what: str) -> None:
    old, new, failed, said = CHANGES[what]
    (tmp_path / "climb.py").write_text(CLIMB.replace(old, new) if old else CLIMB)
    config = Config(
        name="climb", trainable="climb:Climb", directory=tmp_path, space=SPACE, workers=2,
        population=4, steps=9,
    )  # fmt: skip
    found = shoal.check(config, verbose=False)
    assert failed <= {finding.what for finding in found.findings if finding.ok is False}
    assert found.ok == (not failed)
    assert said in " ".join(finding.detail for finding in found.findings)


BEFORE = """\
lr = p["lr"]
if (load / "lr").is_file():
    lr = float((load / "lr").read_text())  # an optimizer's state, loaded after it was made
save.mkdir(parents=True, exist_ok=True)
(save / "lr").write_text(repr(lr))
x += lr * (3.0 - x)
"""


def test_a_script_that_applies_before_it_loads(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = TRAIN.replace('x += p["lr"] * (3.0 - x)\n', BEFORE)
    assert script != TRAIN
    ended = tried(shell, tmp_path, monkeypatch, script)
    assert ended.returncode == 1
    assert verdicts(ended) == WELL | {EFFECT: "failed"}
    said = " ".join(ended.stdout.split())
    assert "from one checkpoint, a step under lr" in said
    assert "Apply the hyperparameters after the checkpoint is loaded" in said


def test_a_function_of_a_script_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    def work(trial: Any) -> float:
        x: float = float((trial.load / "x").read_text()) if trial.load else 0.0
        x += float(trial.hparams["lr"])
        (trial.save / "x").write_text(repr(x))
        return x

    begins = [{"lr": 0.2}, {"lr": 0.3}, {"lr": 0.4}]
    found = shoal.check(work, space={"lr": shoal.Float(0.1, 0.5)}, initial=begins)
    assert found.ok
    assert "ok       trials finish" in repr(found)
    assert capsys.readouterr().err.startswith("trial 1 of 4: member 0, step 0\n")
    wrong = shoal.check(lambda _: 1.0, space={"lr": shoal.Float(0.1, 0.5)}, verbose=False)
    assert not wrong.ok
    assert "failed   something is saved" in repr(wrong)


def test_what_is_tried_instead_is_far_from_what_was() -> None:
    space = shoal.Space({"lr": shoal.Float(1e-4, 1.0, log=True), "kind": shoal.Choice(["a", "b"])})
    other = check.far(space, {"lr": 1e-4, "kind": "a"})
    assert other["lr"] > 1e-2
    assert other["kind"] == "b"
