"""The trial's side of the protocol, in processes of its own as trials are."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shoal import trial as protocol

ROOT = Path(__file__).parents[1]
TRIAL_PY = ROOT / "src" / "shoal" / "trial.py"
DOCS = (ROOT / "docs" / "trials.md").read_text()


class Folder:
    """A trial's folder as the controller makes it, and what a process makes of it."""

    def __init__(self, root: Path, *, step: int = 1, lr: float = 0.5) -> None:
        self.root = root
        self.path = root / "trials" / f"{step:05}"
        self.path.mkdir(parents=True)
        self.save = root / "checkpoints" / "4" / str(step)
        self.load = self.save.with_name(str(step - 1)) if step else None
        self.written = {
            "id": 12,
            "job": "00012",
            "experiment": "k3x9q2ab",
            "member": 4,
            "step": step,
            "attempt": 1,
            "seed": 123456,
            "hparams": {"lr": lr},
            "parameters": {
                "lr": lr,
                "load_checkpoint_dir": str(self.load or self.save),
                "save_checkpoint_dir": str(self.save),
            },
            "load": None if self.load is None else str(self.load),
            "save": str(self.save),
        }
        (self.path / "trial.json").write_text(json.dumps(self.written))

    def env(self) -> dict[str, str]:
        return {**os.environ, "SHOAL_TRIAL_DIR": str(self.path)}

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.root, env=self.env(), capture_output=True, text=True, check=False
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-c", code)

    def reports(self) -> list[Any]:
        file = self.path / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_current_is_what_the_controller_wrote(folder: Folder) -> None:
    ended = folder.python(
        "import json, shoal.trial\n"
        "t = shoal.trial.current()\n"
        "assert t.save.is_dir()\n"
        "assert not t.load.exists()\n"
        "print(json.dumps([t.id, t.job, t.experiment, t.member, t.step, t.attempt, t.seed,"
        " t.hparams, t.parameters, str(t.load), str(t.save)]))\n"
    )
    assert ended.stderr == ""
    # the file and the printed list have the same order
    assert json.loads(ended.stdout) == list(folder.written.values())


def test_the_first_step_of_a_member_has_nothing_to_load(tmp_path: Path) -> None:
    ended = Folder(tmp_path, step=0).python("import shoal.trial as t; print(t.current().load)")
    assert ended.stdout == "None\n"


def test_reports_are_lines_in_their_order(folder: Folder) -> None:
    ended = folder.python(
        "from shoal.trial import current\n"
        "t = current()\n"
        "t.report(0.25)\n"
        "t.report({'default': 1, 'loss': 2.5})\n"
        "assert not t.finished\n"
        "t.finish(0)\n"
        "assert t.finished\n"
    )
    assert ended.stderr == ""
    assert folder.reports() == [
        {"intermediate": 0.25},
        {"intermediate": {"default": 1, "loss": 2.5}},
        {"final": 0},
    ]


class Scalar:
    """As those of numpy, torch and jax."""

    def __init__(self, value: object) -> None:
        self.value = value

    def item(self) -> object:
        return self.value


class Array:
    def item(self) -> float:
        raise ValueError("can only convert an array of size 1 to a Python scalar")

    def __float__(self) -> float:
        raise TypeError("only length-1 arrays can be converted to Python scalars")

    def __repr__(self) -> str:
        return "array([1, 2])"


class Tensor:
    """As one that has no `item`."""

    def __float__(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, 0),
        (0.1, 0.1),
        (True, True),
        (Scalar(3), 3),
        (Scalar(0.5), 0.5),
        (Tensor(), 0.5),
        (
            {"default": Scalar(0.5), "nested": {"n": Tensor()}},
            {"default": 0.5, "nested": {"n": 0.5}},
        ),
        (None, None),
        ("good", "good"),
        ([1, Scalar(2)], [1, 2]),
        (Array(), "array([1, 2])"),
        ({"default": Array()}, {"default": "array([1, 2])"}),
        (b"0.5", "b'0.5'"),
        ({(1, 2): 0.5}, "{(1, 2): 0.5}"),
        ("two\nlines \ud800", "two\nlines \ud800"),
        (math.inf, math.inf),
    ],
)
def test_what_is_reported_is_what_arrives(tmp_path: Path, value: object, written: object) -> None:
    protocol.write_report(tmp_path, "final", value)
    data = (tmp_path / "metrics.jsonl").read_bytes()
    assert data.count(b"\n") == 1
    assert data.endswith(b"\n")
    assert json.loads(data) == {"final": written}
    assert type(json.loads(data)["final"]) is type(written)


def test_nan_arrives_as_nan(tmp_path: Path) -> None:
    protocol.write_report(tmp_path, "final", {"default": Scalar(math.nan)})
    assert math.isnan(json.loads((tmp_path / "metrics.jsonl").read_bytes())["final"]["default"])


def test_a_value_inside_itself_is_text(tmp_path: Path) -> None:
    value: dict[str, object] = {}
    value["me"] = value
    protocol.write_report(tmp_path, "final", value)
    assert json.loads((tmp_path / "metrics.jsonl").read_bytes()) == {"final": "{'me': {...}}"}


def test_numpy_and_torch_scalars_are_numbers(tmp_path: Path) -> None:
    values: list[Any] = [
        np.float32(0.5),
        np.int64(3),
        np.bool_(True),
        np.longdouble(0.25),
        np.array([0.5]),
    ]
    values += [torch.tensor(0.5), torch.tensor([2]), np.float64(0.1)]
    for value in values:
        protocol.write_report(tmp_path, "final", value)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["final"] for line in lines] == [0.5, 3, True, 0.25, 0.5, 0.5, 2, 0.1]


def test_lines_of_several_processes_stay_whole(folder: Folder) -> None:
    code = (
        "import sys, shoal.trial\n"
        "t = shoal.trial.current()\n"
        "for i in range(300):\n"
        "    t.report({'who': int(sys.argv[1]), 'i': i, 'long': 'x' * 9000})\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(who)], env=folder.env())
        for who in range(4)
    ]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    seen = [(r["intermediate"]["who"], r["intermediate"]["i"]) for r in folder.reports()]
    assert len(seen) == 1200
    for who in range(4):
        assert [i for w, i in seen if w == who] == list(range(300))


def test_outside_of_a_trial_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("SHOAL_TRIAL_DIR", raising=False)
        else:
            monkeypatch.setenv("SHOAL_TRIAL_DIR", value)
        with pytest.raises(RuntimeError, match=r"not a trial.*shoal run CONFIG"):
            protocol.current()


def test_a_trial_folder_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_TRIAL_DIR", str(tmp_path / "gone"))
    with pytest.raises(RuntimeError, match=r"gone, which holds no trial\.json"):
        protocol.current()


def test_it_imports_the_standard_library_only_and_needs_no_shoal(folder: Folder) -> None:
    code = (
        "import sys, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('t', {str(TRIAL_PY)!r})\n"
        "t = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(t)\n"
        "t.current().finish(1.5)\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names))\n"
    )
    ended = folder.run(sys.executable, "-I", "-S", "-c", code)
    assert ended.stderr == ""
    assert ended.stdout == "['__main__']\n"
    assert folder.reports() == [{"final": 1.5}]


# python -m shoal.trial module:function


def run_main(folder: Folder, source: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder.root / "training.py").write_text(source)
    return folder.run(sys.executable, "-m", "shoal.trial", *words)


def test_a_function_is_called_and_what_it_returns_is_the_result(folder: Folder) -> None:
    source = "def train(trial):\n    trial.report(1)\n    return {'default': trial.hparams['lr']}\n"
    ended = run_main(folder, source, "training:train")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert folder.reports() == [{"intermediate": 1}, {"final": {"default": 0.5}}]


def test_a_function_that_reported_itself_may_return_nothing(folder: Folder) -> None:
    ended = run_main(folder, "def train(trial):\n    trial.finish(0.0)\n", "training:train")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert folder.reports() == [{"final": 0.0}]


def test_a_function_that_returns_nothing_has_a_bad_result(folder: Folder) -> None:
    ended = run_main(folder, "def train(trial):\n    pass\n", "training:train")
    assert ended.returncode == 0
    assert folder.reports() == [{"final": None}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage: python -m shoal.trial module:function"),
        (["training"], "usage: python -m shoal.trial module:function"),
        (["training:"], "usage: python -m shoal.trial module:function"),
        (["training:train", "more"], "usage: python -m shoal.trial module:function"),
        (["trainings:train"], "there is no module named 'trainings' to import from"),
        (["nowhere.training:train"], "there is no module named 'nowhere' to import from"),
        (["training:trains"], "has no function 'trains'"),
        (["training:number"], "has no function 'number'"),
    ],
)
def test_a_function_that_is_not_there_is_said_in_one_line(
    folder: Folder, words: list[str], said: str
) -> None:
    ended = run_main(folder, "number = 3\ndef train(trial): return 1\n", *words)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (folder.path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("source", "last"),
    [
        ("import nowhere\n", "ModuleNotFoundError: No module named 'nowhere'"),
        ("import training.data\n", "ModuleNotFoundError: No module named 'training.data'"),
        ("from json import nothing\n", "ImportError: cannot import name 'nothing'"),
        ("def train(trial): return 1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_fails_inside_of_it_shows_where(folder: Folder, source: str, last: str) -> None:
    ended = run_main(folder, source, "training:train")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "training.py" in ended.stderr
    assert last in ended.stderr


def test_outside_of_a_trial_there_is_nothing_to_run(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "SHOAL_TRIAL_DIR"}
    command = [sys.executable, "-m", "shoal.trial", "training:train"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("shoal.trial: This process is not a trial")


# docs/trials.md


def documented(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", DOCS, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(("language", "command"), [("python", sys.executable), ("bash", "bash")])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_documented_trials_work(
    tmp_path: Path, language: str, command: str, indent: int | None
) -> None:
    (tmp_path / "script").write_text(documented(language))
    seen = []
    for step in range(2):
        folder = Folder(tmp_path, step=step, lr=0.05 * (step + 1))
        (folder.path / "trial.json").write_text(json.dumps(folder.written, indent=indent))
        ended = folder.run(command, "script")
        assert (ended.returncode, ended.stderr) == (0, "")
        final = folder.reports()[-1]["final"]
        x = float((folder.save / "x").read_text())
        assert final == pytest.approx({"default": -((x - 3) ** 2), "x": x}, rel=1e-4)
        seen.append(x)
    assert 0 < seen[0] < seen[1] < 3
    if language == "bash":
        assert seen == pytest.approx([0.15, 0.435])


def test_the_documented_file_is_the_one_that_is_written(folder: Folder) -> None:
    example = json.loads(documented("json"))
    assert {name: type(value) for name, value in example.items()} == {
        name: type(value) for name, value in folder.written.items()
    }


def test_every_attribute_of_current_is_documented() -> None:
    told = {
        line.strip().partition(": ")[0] for line in (protocol.Current.__doc__ or "").split("\n")
    }
    assert set(protocol.Current.__slots__) - told == {"directory"}
