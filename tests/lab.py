"""Small real experiments for tests: a trial of a few lines, run as a process."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shoal
from shoal.config import Config
from shoal.core.space import Float, Space

# The paper's toy (Jaderberg et al., 2017, figure 2), four updates a step: deterministic, 1.2 best.
TOY = """
import json, os
import nni

p = nni.get_next_parameter()
path = os.path.join(p["load_checkpoint_dir"], "theta.json")
theta = json.load(open(path)) if os.path.isfile(path) else [0.9, 0.9]
for _ in range(4):
    theta = [t - 0.02 * p[h] * t for t, h in zip(theta, ("h0", "h1"))]
    nni.report_intermediate_result(1.2 - sum(t * t for t in theta))
os.makedirs(p["save_checkpoint_dir"], exist_ok=True)
with open(os.path.join(p["save_checkpoint_dir"], "theta.json"), "w") as file:
    json.dump(theta, file)
nni.report_final_result({"default": 1.2 - sum(t * t for t in theta), "theta0": theta[0]})
"""
SPACE = Space({"h0": Float(0.0, 1.0), "h1": Float(0.0, 1.0)})


def experiment(folder: Path, script: str = TOY, **fields: Any) -> Config:
    """An experiment that runs `script`, which is written to `folder`."""
    (folder / "trial.py").write_text(script)
    defaults = {"command": "python3 trial.py", "population": 4, "steps": 3, "workers": 2}
    given = {**defaults, **fields}
    return Config(name="lab", directory=folder, space=SPACE, home=folder / "home", **given)


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `condition` gives as soon as it is true of something.

    Raises:
        AssertionError: it was not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return found


def log_of(result: shoal.Result) -> list[str]:
    with result.folder.open() as store:
        return [line.text for line in store.lines()]


def run(what: Any, folder: Path, **words: Any) -> shoal.Result:
    given = {"space": SPACE, "population": 4, "steps": 5, "workers": 2, "home": folder / "home"}
    return shoal.run(what, **{**given, **words})


def told(result: shoal.Result) -> list[dict[str, Any]]:
    """All that was decided and reported, by trial."""
    return [{k: v for k, v in row.items() if k != "intermediate"} for row in result.export()]


class At(shoal.Observer):
    """Does something once so many trials have ended."""

    def __init__(self, finished: int, what: Any) -> None:
        self._finished, self._what, self.done = finished, what, False

    def changed(self, tuner: shoal.Tuner, waiting: str) -> None:
        ended = len(tuner.population.trials) - len(tuner.population.running)
        if not self.done and ended >= self._finished:
            self.done = True
            self._what()
