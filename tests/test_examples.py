"""The example scripts, in trial folders made by hand."""

import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runners.held import Held

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "examples" / "digits-pytorch"
FASHION = ROOT / "examples" / "fashion-mnist-pytorch"
NNI = ROOT / "src" / "shoal" / "compat" / "nni" / "path"
HPARAMS = {"lr": 0.1, "momentum": 0.5, "weight_decay": 1e-4, "batch_size": 64, "dropout": 0.1}


Step = Callable[..., tuple[dict[str, float], Path]]


@contextmanager
def steps(example: Path, folder: Path, *options: str) -> Iterator[Step]:
    """Trains one step of an example: its final result, and the file that it has saved."""
    code = folder / "code"
    shutil.copytree(example, code, ignore=shutil.ignore_patterns("checkpoints"))
    command = shlex.join([sys.executable, "-W", "error", "main.py", *options])
    held = Held(code, command, "torch", "sklearn.datasets")

    def train(
        root: Path, step: int, parent: Path | None = None, **hparams: Any
    ) -> tuple[dict[str, float], Path]:
        save = root / "checkpoints" / "0" / str(step)
        trial = root / f"trial-{step}"
        trial.mkdir()
        tuned = {**HPARAMS, **hparams}
        written = {
            "id": 7 + step,
            "job": f"{7 + step:05}",
            "experiment": "k3x9q2ab",
            "member": 0,
            "step": step,
            "attempt": 1,
            "seed": 1,
            "hparams": tuned,
            "parameters": {
                **tuned,
                "load_checkpoint_dir": str(save if parent is None else parent.parent),
                "save_checkpoint_dir": str(save),
            },
            "load": None if parent is None else str(parent.parent),
            "save": str(save),
        }
        (trial / "trial.json").write_text(json.dumps(written))
        ended = held.run(SHOAL_TRIAL_DIR=str(trial), NNI_PLATFORM="local")
        assert (ended.code, ended.err) == (0, "")
        (line,) = (trial / "metrics.jsonl").read_text().splitlines()
        assert [file.name for file in save.iterdir()] == ["model.pth"]
        return json.loads(line)["final"], save / "model.pth"

    try:
        yield train
    finally:
        held.close()


def loaded(file: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


def distance(one: Path, other: Path) -> float:
    """The largest difference between two checkpoints' weights."""
    a, b = loaded(one)["model"], loaded(other)["model"]
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Step]:
    with steps(DIGITS, tmp_path_factory.mktemp("digits")) as train:
        yield train


def test_digits_goes_on_from_its_checkpoint_under_the_new_hyperparameters(
    tmp_path: Path, digits: Step
) -> None:
    before, first = digits(tmp_path, 0)
    assert before.keys() == {"default", "test", "loss"}
    assert loaded(first)["step"] == 0

    # A step that cannot move: what it saves is what it loaded, if the new learning rate is in
    # force. Under the one in the saved optimizer state the weights would move as in the next step.
    still, second = digits(tmp_path, 1, parent=first, lr=1e-12, momentum=0.0, weight_decay=1e-6)
    assert loaded(second)["step"] == 1
    assert distance(first, second) < 1e-6
    assert (still["default"], still["test"]) == (before["default"], before["test"])
    (group,) = loaded(second)["optimizer"]["param_groups"]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-12, 0.0, 1e-6)

    after, third = digits(tmp_path, 2, parent=second, lr=0.2)
    assert distance(second, third) > 0.01
    assert after["default"] > before["default"] + 0.05
    assert after["loss"] < before["loss"]


@pytest.mark.soak  # as it is on a cluster and on this machine, in tests/cluster
def test_digits_is_the_same_when_repeated(tmp_path: Path, digits: Step) -> None:
    (tmp_path / "again").mkdir()
    (before, first), (again, second) = digits(tmp_path, 0), digits(tmp_path / "again", 0)
    assert again == before
    assert distance(first, second) == 0.0


@pytest.mark.parametrize("example", [DIGITS, FASHION])
def test_the_search_space_is_what_the_script_takes(example: Path) -> None:
    space = json.loads((example / "search_space.json").read_text())
    assert space.keys() == HPARAMS.keys()
    for name, default in HPARAMS.items():
        values = space[name]["_value"]
        assert {type(value) for value in values} == {type(default)}


# Fashion-MNIST, on files of the same form


def idx(*shape: int, values: bytes) -> bytes:
    header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    return gzip.compress(header + values)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in (("train", 240), ("t10k", 40)):
        labels = bytes(i % 10 for i in range(count))
        # the label is the brightness: something that can be learned
        images = b"".join(bytes([25 * label]) * 784 for label in labels)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(count, 28, 28, values=images))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(count, values=labels))
    return folder


@pytest.mark.soak  # as the digits do
def test_fashion_mnist_takes_a_step_and_goes_on(tmp_path: Path, data_dir: Path) -> None:
    with steps(FASHION, tmp_path, "--data-dir", str(data_dir)) as train:
        before, first = train(tmp_path, 0, batch_size=32)
        assert before.keys() == {"default", "test", "loss"}
        still, second = train(tmp_path, 1, first, lr=1e-12, momentum=0.0, batch_size=32)
    assert (loaded(first)["step"], loaded(second)["step"]) == (0, 1)
    assert distance(first, second) < 1e-6
    assert (still["default"], still["test"]) == (before["default"], before["test"])


def test_idx_files_are_read_in_their_shape_or_refused(tmp_path: Path) -> None:
    contents = [
        idx(2, 3, 1, values=bytes([0, 1, 2, 253, 254, 255])),
        idx(2, 3, values=b"12345"),
        gzip.compress(b"\0\0\x0d\1\0\0\0\1...."),
        gzip.compress(b"hello"),
        gzip.compress(b"\0\0\x08"),
        gzip.compress(b""),
    ]
    files = [tmp_path / f"{number}.gz" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    code = (
        "import main, sys, pathlib\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        read = main.read_idx(pathlib.Path(name))\n"
        "        print(tuple(read.shape), read.flatten().tolist())\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(NNI), str(FASHION)])}
    command = [sys.executable, "-c", code, *map(str, files)]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "(2, 3, 1) [0, 1, 2, 253, 254, 255]",
        f"{files[1]} is cut short: its header says [2, 3]",
        *(f"{file} is not an IDX file of unsigned bytes" for file in files[2:]),
    ]


def test_missing_data_names_the_package_to_install(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(NNI)}
    env.pop("SHOAL_TRIAL_DIR", None)
    command = [sys.executable, "main.py", "--data-dir", str(tmp_path)]
    ended = subprocess.run(
        command, cwd=FASHION, env=env, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert f"{tmp_path}/train-images-idx3-ubyte.gz is missing" in ended.stderr
    assert "apt-get install dataset-fashion-mnist" in ended.stderr
