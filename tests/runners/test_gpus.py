"""GPUs are handed out through `CUDA_VISIBLE_DEVICES`; `nvidia-smi` is a real program here, ours."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.runners.base import RunnerError
from shoal.runners.gpus import Gpus, active, installed
from tests.lab import SPACE, TOY, experiment

SMI = """#!/bin/sh
case "$1" in
  --query-gpu=index) printf '%s\\n' {indices} ;;
  --query-gpu=index,uuid) for i in {indices}; do echo "$i, GPU-$i"; done ;;
  --query-compute-apps=gpu_uuid) printf '%s' "{busy}" ;;
  *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""


def machine(monkeypatch: pytest.MonkeyPatch, folder: Path, gpus: int, busy: str = "") -> None:
    """Let this machine have `gpus` GPUs, those in `busy` (say "GPU-1") being computed on."""
    (folder / "bin").mkdir(exist_ok=True)
    smi = folder / "bin" / "nvidia-smi"
    smi.write_text(SMI.format(indices=" ".join(map(str, range(gpus))), busy=busy))
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")


def test_what_nvidia_smi_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, 3, "GPU-1\nGPU-2\nGPU-1\n")
    assert installed() == [0, 1, 2]
    assert active() == {1, 2}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            "NVIDIA-SMI has failed because it could not communicate with the driver",
            "NVIDIA-SMI has",
        ),
        ("0, GPU-0, extra", "0, GPU-0, extra"),
        ("GPU-0", "GPU-0"),
        ("[N/A]", "[N/A]"),
    ],
)
def test_an_answer_that_was_not_asked_for_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, said: str
) -> None:
    machine(monkeypatch, tmp_path, 1)
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho '{answer}'\n")
    for ask in (installed, active):
        with pytest.raises(RunnerError, match=r"nvidia-smi --query.* answers") as caught:
            ask()
        assert said in str(caught.value)
    smi.write_text(f"#!/bin/sh\necho '{answer}'\nexit 9\n")
    with pytest.raises(RunnerError, match="does not answer") as caught:
        installed()
    assert said in str(caught.value)


def test_without_nvidia_smi_there_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed() == []
    with pytest.raises(RunnerError, match=r"asks for 1 GPUs, and this machine has 0"):
        Gpus(1)


def test_an_nvidia_smi_that_fails_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nexit 9\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(RunnerError, match="nvidia-smi does not answer"):
        installed()


@pytest.mark.parametrize(
    ("there", "per_trial", "per_gpu", "trials"),
    [
        (1, 1, 1, 1),  # NNI 3.0 never starts this one
        (2, 2, 1, 1),
        (4, 1, 1, 4),
        (4, 3, 1, 1),
        (3, 2, 2, 3),
        (1, 0.5, 1, 2),
        (2, 0.25, 1, 8),
        (2, 1, 3, 6),
    ],
)
def test_as_many_trials_as_find_a_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    there: int, per_trial: float, per_gpu: int, trials: int,
) -> None:  # fmt: skip
    machine(monkeypatch, tmp_path, there)
    gpus = Gpus(per_trial, per_gpu=per_gpu)
    assert gpus.free == trials
    taken = []
    while gpus.free:
        taken.append(gpus.take())
    assert len(taken) == trials
    for places in taken:
        assert places is not None
        assert len(places) == len(set(places)) == max(1, int(per_trial))
        gpus.give_back(places)
    assert gpus.free == trials


def test_trials_spread_before_they_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, 2)
    gpus = Gpus(1, per_gpu=2)
    assert {tuple(gpus.take() or ()) for _ in range(2)} == {(0,), (1,)}


def test_only_some_and_not_those_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, 4, "GPU-2\n")
    assert Gpus(1, only=[1, 2]).take() == [1]
    assert Gpus(1, only=[1, 2]).free == 1
    assert Gpus(1, only=[1, 2], use_active=True).free == 2
    with pytest.raises(RunnerError, match=r"only \[1, 2\] may be used; \[2\] are in use by others"):
        Gpus(2, only=[1, 2])


def test_none_and_zero() -> None:
    assert (Gpus(None).free, Gpus(None).take()) == (None, None)
    assert (Gpus(0).free, Gpus(0).take()) == (None, [])


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize(
    ("gpus_per_trial", "seen"), [(None, {"untouched"}), (0, {""}), (1, {"0", "1"}), (2, {"0,1"})]
)
def test_what_a_trial_sees(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus_per_trial: int, seen: set[str], warm: bool
) -> None:
    machine(monkeypatch, tmp_path, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "untouched")
    script = TOY + (
        "with open(os.environ['NNI_OUTPUT_DIR'] + '/gpus', 'w') as file:\n"
        "    file.write(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    )
    result = shoal.run(experiment(tmp_path, script, gpus_per_trial=gpus_per_trial, warm=warm))
    files = list(result.folder.path.glob("trials/*/*/gpus"))
    assert len(files) == 12
    assert {file.read_text() for file in files} == seen


def test_too_few_gpus_are_an_error_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, tmp_path, 1)
    with pytest.raises(shoal.ExperimentError, match="asks for 2 GPUs, and this machine has 1"):
        shoal.run(experiment(tmp_path, gpus_per_trial=2))
    assert not (tmp_path / "home").exists()


class Looks:
    """Says which GPUs its worker sees, once as many workers as there will be have begun."""

    def __init__(self, there: Path, workers: int) -> None:
        self._there, self._workers = there, workers

    def init(self, hparams: Any, seed: int) -> str:
        return ""

    def step(self, state: str, hparams: Any) -> tuple[str, float]:
        (self._there / str(os.getpid())).touch()
        until = time.monotonic() + 60.0
        while len(list(self._there.iterdir())) < self._workers:
            assert time.monotonic() < until, "the others do not begin"
            time.sleep(0.01)
        print(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
        return state, hparams["h0"]

    def save(self, state: str, path: Path) -> None:
        (path / "x").write_text(state)

    def load(self, path: Path) -> str:
        return (path / "x").read_text()


@pytest.mark.parametrize(
    ("there", "each", "workers", "seen"),
    [
        (2, None, 2, {"untouched": 2}),
        (2, 0, 2, {"": 2}),
        (2, 1, 4, {"0": 1, "1": 1}),  # two workers, as there are two GPUs
        (2, 0.5, 4, {"0": 2, "1": 2}),
        (4, 2, 2, {"0,1": 1, "2,3": 1}),
    ],
)
def test_what_a_worker_sees(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: int, each: float | None, workers: int,
    seen: dict[str, int],
) -> None:  # fmt: skip
    machine(monkeypatch, tmp_path, there)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "untouched")
    (begun := tmp_path / "begun").mkdir()
    result = shoal.run(
        Looks(begun, sum(seen.values())), space=SPACE, population=8, steps=3, workers=workers,
        gpus_per_worker=each, home=tmp_path / "home", verbose=False,
    )  # fmt: skip
    files = result.folder.path.glob("trials/*/*/stdout")
    said = {line for file in files for line in file.read_text().splitlines()}
    by_worker = {line.partition(" ")[0]: line.partition(" ")[2] for line in said}
    assert len(by_worker) == len(said), "a worker keeps its GPU"
    assert dict(Counter(by_worker.values())) == seen


def test_a_worker_that_is_killed_gives_its_gpu_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, tmp_path, 1)

    def dies_once(trial: Any) -> float:
        if trial.step == 1 and trial.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        print(os.environ["CUDA_VISIBLE_DEVICES"])
        return float(trial.hparams["h0"])

    result = shoal.run(
        dies_once, space=SPACE, population=2, steps=3, workers=2, gpus_per_worker=1,
        home=tmp_path / "home", verbose=False,
    )  # fmt: skip
    assert result.state == "done"
    assert [row.attempt for row in result.trials()] == [1, 1, 2, 2, 1, 1]
    said = {file.read_text() for file in result.folder.path.glob("trials/*/*/stdout")}
    assert said == {"0\n"}


def test_neither_controller_nor_fork_server_touches_cuda(tmp_path: Path) -> None:
    """Nor does the controller import torch, where what is trained is in a module."""
    pytest.importorskip("torch")
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def train(trial):\n"
        "    assert not torch.cuda.is_initialized() and not torch.cuda._is_in_bad_fork()\n"
        "    (trial.save / 'x').write_text('x')\n"
        "    return trial.hparams['h0']\n"
    )
    code = (
        "import sys, shoal\n"
        "r = shoal.run(shoal.Config(trainable='mine:train', space={'h0': shoal.Float(0, 1)},\n"
        "    population=2, steps=2, workers=2), home='home', verbose=False)\n"
        "assert r.state == 'done', r.trials()[0].error\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=100)
