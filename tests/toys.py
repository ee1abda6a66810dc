"""What tests train, in Python. Standard library alone: each worker imports this module anew."""

import json
import os
import random
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Hparams = Mapping[str, Any]
Theta = dict[str, Any]


class Toy:
    """The paper's toy, which tells in a file of each thing it does."""

    def __init__(self, diary: Path) -> None:
        self.diary = diary

    def note(self, *words: object) -> None:
        with self.diary.open("a") as file:
            file.write(json.dumps([os.getpid(), *words]) + "\n")

    def notes(self, what: str) -> list[list[Any]]:
        lines = [json.loads(line) for line in self.diary.read_text().splitlines()]
        return [line for line in lines if line[1] == what]

    def init(self, hparams: Hparams, seed: int) -> Theta:
        self.note("init", seed)
        return {"theta": [0.9, 0.9], "noise": random.random(), "steps": 0}

    def step(self, state: Theta, hparams: Hparams) -> tuple[Theta, float]:
        self.note("step", state["steps"])
        hs = (hparams["h0"], hparams["h1"])
        for _ in range(4):
            state["theta"] = [t - 0.02 * h * t for t, h in zip(state["theta"], hs, strict=True)]
        state["noise"] += 1e-3 * random.random()
        state["steps"] += 1
        return state, 1.2 - sum(t * t for t in state["theta"]) + 1e-3 * state["noise"]

    def save(self, state: Theta, path: Path) -> None:
        self.note("save", state["steps"])
        random.random()  # is nobody's affair
        (path / "state.json").write_text(json.dumps(state))

    def load(self, path: Path) -> Theta:
        self.note("load")
        random.random()
        state: Theta = json.loads((path / "state.json").read_text())
        return state


def function(trial: Any) -> Mapping[str, float]:
    """The toy, as a function."""
    file = "theta.json"
    theta = json.loads((trial.load / file).read_text()) if trial.load else [0.9, 0.9]
    for _ in range(4):
        hs = (trial.hparams["h0"], trial.hparams["h1"])
        theta = [t - 0.02 * h * t for t, h in zip(theta, hs, strict=True)]
        trial.report(1.2 - sum(t * t for t in theta))
    (trial.save / file).write_text(json.dumps(theta))
    print(f"step {trial.step}")
    return {"quality": 1.2 - sum(t * t for t in theta) + 1e-6 * random.random()}


def weighty(trial: Any) -> Mapping[str, float]:
    """The same with a checkpoint that is not small."""
    values = function(trial)
    (trial.save / "weights").write_bytes(bytes(300_000))
    time.sleep(0.2)  # or the node that joins has nothing to do
    return values


class Killed(Toy):
    """Ends its worker in the middle of one step, once."""

    def step(self, state: Theta, hparams: Hparams) -> Any:
        marker = self.diary.with_name("killed")
        if state["steps"] == 6 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(state, hparams)


class Broken(Toy):
    def step(self, state: Theta, hparams: Hparams) -> Any:
        if state["steps"] == 2 and hparams["h0"] > 0.8:
            print("about to break")
            raise ValueError(f"no good: {hparams['h0']}")
        return super().step(state, hparams)


class Stuck(Toy):
    def step(self, state: Theta, hparams: Hparams) -> Any:
        if state["steps"] == 1:
            with suppress(FileExistsError):  # one alone
                self.diary.with_name("stuck").touch(exist_ok=False)
                time.sleep(600)
        return super().step(state, hparams)


class Stopping(Toy):
    """Interrupts its controller in the middle of a step."""

    def step(self, state: Theta, hparams: Hparams) -> Any:
        answer = super().step(state, hparams)
        if state["steps"] == 3:
            with suppress(FileExistsError):  # one alone
                self.diary.with_name("stopped").touch(exist_ok=False)
                pid, number = map(int, self.diary.with_name("controller").read_text().split())
                os.kill(pid, number)
                time.sleep(0.3)
        return answer


class Slow(Toy):
    """The toy, with steps that take a moment."""

    def step(self, state: Any, hparams: Any) -> Any:
        time.sleep(0.2)
        return super().step(state, hparams)


class Picky(Slow):
    """Cannot be loaded where something is not there that it needs."""

    def __setstate__(self, state: Any) -> None:
        if "BARE" in os.environ:
            raise ImportError("a library that is not installed on this node")
        self.__dict__.update(state)


def pausing(trial: Any) -> float:
    (trial.save / "x").write_text("x")
    time.sleep(0.5)
    return 1.0


def seeing(trial: Any) -> float:
    """Notes which GPUs it sees, and waits until another has done so."""
    notes = Path(os.environ["NOTES"])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    (notes / str(trial.member)).write_text(f"{visible} {os.environ.get('COLOUR')}")
    deadline = time.monotonic() + 30
    while len(list(notes.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return 1.0


class Late:
    """Imports libraries when it needs them first, and draws from their global generators."""

    def init(self, hparams: Hparams, seed: int) -> list[float]:
        return []

    def step(self, state: list[float], hparams: Hparams) -> tuple[list[float], float]:
        if len(state) == 1 and hparams["h0"] > 0.5:
            from sklearn.utils import check_random_state  # noqa: PLC0415 (numpy, in much else)

            state = [*state, check_random_state(None).rand()]
        elif len(state) == 2:
            import torch  # noqa: PLC0415

            state = [*state, torch.rand(1).item()]
        else:
            state = [*state, random.random()]
        return state, state[-1]

    def save(self, state: list[float], path: Path) -> None:
        (path / "state.json").write_text(json.dumps(state))

    def load(self, path: Path) -> list[float]:
        state: list[float] = json.loads((path / "state.json").read_text())
        return state


def act(do: str) -> float:
    """What a trial does."""
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "sleep":
        time.sleep(600)
    if do == "crash":
        raise ValueError("as was asked")
    return float("nan") if do == "nan" else 1.0


def acting(trial: Any) -> float:
    return act(trial.hparams["do"])


class Acting:
    def init(self, hparams: Any, seed: int) -> int:
        return 0

    def step(self, state: int, hparams: Any) -> tuple[int, float]:
        return state + 1, act(hparams["do"])

    def save(self, state: int, path: Path) -> None:
        (path / "x").write_text(str(state))

    def load(self, path: Path) -> int:
        return int((path / "x").read_text())
