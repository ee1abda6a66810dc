"""Whether what holds on a CPU holds on a GPU: `python bench/gpu.py [--device cpu]`.

Trains a net with dropout, which draws from the device's own global generator. The journal must be
the same with one worker and with two that share the GPU, and where states are not held, so that the
generator is saved and restored with every step; and nothing but workers may have opened the GPU.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import shoal
from shoal.core.records import Hparams
from shoal.torch import apply, load, save


class Net:
    """A few steps on random data, all of it drawn on the device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def init(self, hparams: Hparams, seed: int) -> Any:
        torch.use_deterministic_algorithms(True)
        model = torch.nn.Sequential(
            torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 1)
        ).to(self.device)
        return model, torch.optim.Adam(model.parameters())

    def step(self, state: Any, hparams: Hparams) -> Any:
        model, optimizer = state
        apply(optimizer, hparams)
        for _ in range(20):
            xs = torch.randn(64, 16, device=self.device)
            optimizer.zero_grad()
            loss = ((model(xs) - xs.sum(1, keepdim=True)) ** 2).mean()
            loss.backward()
            optimizer.step()
        return state, -loss.item()

    def save(self, state: Any, path: Path) -> None:
        save(path, model=state[0], optimizer=state[1])

    def load(self, path: Path) -> Any:
        state = self.init({}, 0)
        load(path, model=state[0], optimizer=state[1])
        return state


def exported(home: str, device: str, **how: Any) -> list[dict[str, Any]]:
    """What came of it when it is run like this."""
    gpus = {} if device == "cpu" else {"gpus_per_worker": 1 / how["workers"]}
    result = shoal.run(
        Net(device),
        space={"lr": shoal.Float(1e-4, 1e-1, log=True)},
        population=4, steps=6, seed=1, home=home, verbose=False,
        env={"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}, **gpus, **how,
    )  # fmt: skip
    return result.export()


def main() -> int:
    """The exit code: 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    ways: dict[str, dict[str, Any]] = {
        "one worker": {"workers": 1},
        "two workers": {"workers": 2},
        "two workers that hold nothing": {"workers": 2, "hold": False},
    }
    with tempfile.TemporaryDirectory() as home:
        first, *others = [exported(home, device, **how) for how in ways.values()]
    right = True
    for way, other in zip(list(ways)[1:], others, strict=True):
        same = json.dumps(other) == json.dumps(first)
        right = right and same
        print(f"{way}: {'the same' if same else 'NOT the same'} as with one")
    if device == "cuda":
        opened = torch.cuda.is_initialized()
        right = right and not opened
        print(f"the controller has {'' if opened else 'not '}opened the GPU")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
