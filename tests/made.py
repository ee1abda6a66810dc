"""Experiments of any size, made in seconds: the real tuner and journal, and no training."""

import time
from math import exp, log
from pathlib import Path
from random import Random
from typing import Any

from shoal.config import Config
from shoal.controller import made
from shoal.core.records import Failed, Finished, Measured, Started, Trial
from shoal.experiment import prepare
from shoal.home import Folder, create
from shoal.result import Result
from shoal.stores.sqlite import SqliteStore

SPACE: dict[str, Any] = {
    "lr": {"float": [1e-4, 1.0], "log": True},
    "momentum": {"float": [0.0, 0.99]},
    "batch_size": {"choice": [16, 32, 64]},
}


class Landscape:
    """A member's skill grows by what its hyperparameters are worth; the best `lr` falls."""

    def __init__(self, seed: int, steps: int) -> None:
        self._rng, self._rate = Random(seed), 1.5 / steps
        self._skill: dict[int, float] = {}

    def score(self, trial: Trial) -> float:
        before = 0.0 if trial.parent is None else self._skill[trial.parent]
        best = log(0.3) - 3 * self._rate * trial.step
        worth = exp(-((log(trial.hparams.get("lr", 0.1)) - best) ** 2) / 4)
        self._skill[trial.id] = before + (1.0 - before) * self._rate * worth
        return self._skill[trial.id] + self._rng.gauss(0, 0.02 * self._rate)


def experiment(
    home: Path,
    *,
    population: int = 8,
    steps: int = 12,
    name: str = "made",
    until: int | None = None,
    space: Any = SPACE,
    failing: float = 0.0,
    seconds: float = 10.0,
    **fields: Any,
) -> Result:
    """An experiment in `home` whose trials are said to have taken about `seconds` each.

    Args:
        home: where experiments are kept.
        population: how many members there are.
        steps: how many steps each does.
        name: what it is called.
        until: after how many trials it is left as it is; None: when it is done.
        space: its search space.
        failing: the share of trials that fail.
        seconds: how long a trial takes, from now backwards.
        fields: what else its file says.
    """
    config = Config(
        name=name, command="true", directory=home, space=space, population=population, steps=steps,
        workers=population, retries=0, **fields,
    )  # fmt: skip
    folder = create(home, lambda partial: prepare(partial, config))
    tell(folder, config, until, failing, seconds)
    return Result(folder)


def tell(folder: Folder, config: Config, until: int | None, failing: float, seconds: float) -> None:
    """Let the experiment in `folder` come so far."""
    store = SqliteStore(folder.journal)
    tuner, land, rng = (
        made(config, ()),
        Landscape(config.seed, config.steps or 1),
        Random(config.seed),
    )
    total = config.population * (config.steps or 1)
    clock = dict.fromkeys(range(config.population), 0.0)
    began = time.time() - seconds * (config.steps or 1) * 1.3
    store._now = lambda: began
    store.begin(1, "elsewhere")
    while not tuner.done and (until is None or len(tuner.population.trials) < until):
        wave = []
        while (trial := tuner.ask()) is not None:
            wave.append(trial)
            now = began + max(clock.values()) if config.synchronous else began + clock[trial.member]
            put(store, trial, now)
            put(store, Started(trial.id, trial.attempt), now + 0.02 * seconds)
            if len(wave) + len(tuner.population.running) > total:
                break
        front = max(clock.values())
        for trial in wave:
            took = seconds * (0.8 + 0.4 * rng.random())
            start = front if config.synchronous else clock[trial.member]
            clock[trial.member] = start + took
            for index in range(3 if total <= 1000 else 0):
                put(store, Measured(trial.id, index, rng.random()), began + start + index)
            report: Finished | Failed
            if rng.random() < failing:
                report = Failed(trial.id, "crash", "exit code 1", trial.attempt)
            else:
                report = Finished(trial.id, land.score(trial), {"loss": rng.random()})
            tuner.tell(report)
            put(store, report, began + clock[trial.member])
    store._now = lambda: began + max(clock.values())
    store.end("done", "")
    store.close()


def put(store: SqliteStore, record: Any, at: float) -> None:
    """Let `record` have been said at a time."""
    store._now = lambda: at
    store.append(record)
