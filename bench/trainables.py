"""What shoal costs those who train in Python: the second table of README.md, row by row.

    python bench/trainables.py [--ray PYTHON] [--syne PYTHON] [ROW ...]

ROW is one of steps, memory, digits, asynchronous, exploit; by default, all. With `--ray` and
`--syne`, interpreters of environments that have Ray Tune and Syne Tune, `steps` does the same work
there, in the same run.
"""

import argparse
import copy
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from random import lognormvariate
from typing import Any

import shoal
from shoal.core.records import Hparams

HERE = Path(__file__).parent
POPULATION, STEPS, WORKERS = 8, 50, 2
X = {"x": shoal.Float(0, 1)}
State = dict[str, Any]


def row(work: str, measured: str, must: str) -> None:
    print(f"| {work} | {measured} | {must} |", flush=True)


class Noop:
    """Does nothing, and says when."""

    def init(self, hparams: Hparams, seed: int) -> State:
        return {"step": 0, "score": 0.0}

    def step(self, state: State, hparams: Hparams) -> tuple[State, Mapping[str, float]]:
        began = time.monotonic()
        state["step"] += 1
        state["score"] += hparams["x"]
        return state, {"default": state["score"], "began": began, "ended": time.monotonic()}

    def save(self, state: State, path: Path) -> None:
        (path / "state.json").write_text(json.dumps(state))

    def load(self, path: Path) -> State:
        state: State = json.loads((path / "state.json").read_text())
        return state


def run(what: Any, home: str, **words: Any) -> tuple[float, list[Any]]:
    """(when `shoal.run` was called, its trials)."""
    given = {"space": X, "population": POPULATION, "steps": STEPS, "workers": WORKERS}
    began = time.monotonic()
    result = shoal.run(what, home=home, **{**given, **words})
    assert result.state == "done", result.reason
    return began, result.trials()


def steady(rows: list[Any]) -> float:
    """Seconds from the first step's start to the last one's end."""
    last: float = max(r.metrics["ended"] for r in rows)
    first: float = min(r.metrics["began"] for r in rows)
    return last - first


def steps(peers: Mapping[str, str], home: str) -> None:
    """A trainable that does nothing."""
    runs = [run(Noop, home, seed=seed) for seed in range(5)]
    ours = statistics.median(steady(rows) * WORKERS / len(rows) for _, rows in runs)
    first = statistics.median(min(r.metrics["began"] for r in rows) - began for began, rows in runs)
    against, starts = "", ""
    for name, python in peers.items():
        script = HERE / "peers" / f"{name}_trainable.py"
        sizes = [str(n) for n in (POPULATION, STEPS, WORKERS)]
        said = subprocess.run(
            [python, str(script), *sizes], capture_output=True, text=True, check=True, cwd=home
        ).stdout  # Syne Tune leaves a file where it runs
        theirs = json.loads(said.strip().splitlines()[-1])
        each = theirs["steady"] * WORKERS / theirs["steps"]
        against += f"; {name} {each * 1e3:.0f} ms: {each / ours:.0f} ×"
        starts += f"; {name} {theirs['first']:.1f} s"
    must = "≤ 1.5 ms, ≥ 35 × less than Ray, ≥ 9 × less than Syne Tune"
    row("trainable that does nothing, a step", f"{ours * 1e3:.2f} ms{against}", must)
    row("from `shoal.run` to the first step", f"{first:.2f} s{starts}", "≤ 0.5 s")


def memory(home: str) -> None:
    """Proportional set size of all processes of a run, in the middle of it."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "import shoal, trainables\n"
        "class Long(trainables.Noop):\n"
        "    def step(self, state, hparams):\n"
        "        time.sleep(0.05)\n"
        "        return super().step(state, hparams)\n"
        "shoal.run(Long, space=trainables.X, population=8, steps=50, workers=2, home=sys.argv[2])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(HERE), home])
    import psutil

    most, count = 0.0, 0
    while process.poll() is None:
        time.sleep(0.1)
        total = 0
        try:
            alive = [psutil.Process(process.pid)]
            alive += alive[0].children(recursive=True)
            total = sum(p.memory_full_info().pss for p in alive)
        except psutil.Error:
            continue
        if total > most:
            most, count = total, len(alive)
    row(
        "memory of controller, fork server and 2 workers",
        f"{most / 2**20:.0f} MiB ({count} processes)",
        "≤ 120 MiB",
    )


class Digits:
    """An MLP on scikit-learn's digits, some epochs a step."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.data: Any = None

    def _data(self) -> Any:
        if self.data is None:
            import torch
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split

            torch.set_num_threads(1)
            xs, ys = load_digits(return_X_y=True)
            parts = train_test_split((xs / 16).astype("float32"), ys, test_size=0.5, random_state=0)
            self.data = [torch.from_numpy(part) for part in parts]
        return self.data

    def init(self, hparams: Hparams, seed: int) -> Any:
        import torch

        self._data()
        model = torch.nn.Sequential(
            torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        )
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(self, state: Any, hparams: Hparams) -> Any:
        import torch

        train_x, valid_x, train_y, valid_y = self._data()
        began = time.monotonic()
        model, optimizer = state
        optimizer.param_groups[0].update(hparams)
        for _ in range(self.epochs):
            for index in torch.randperm(len(train_x)).split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(train_x[index]), train_y[index]).backward()
                optimizer.step()
        with torch.no_grad():
            right = (model(valid_x).argmax(1) == valid_y).float().mean().item()
        return state, {"default": right, "began": began, "ended": time.monotonic()}

    def save(self, state: Any, path: Path) -> None:
        import torch

        model, optimizer = state
        torch.save({"m": model.state_dict(), "o": optimizer.state_dict()}, path / "state.pt")

    def load(self, path: Path) -> Any:
        import torch

        state = self.init({}, 0)
        saved = torch.load(path / "state.pt", weights_only=True)
        state[0].load_state_dict(saved["m"])
        state[1].load_state_dict(saved["o"])
        return state


MLP = {
    "lr": shoal.Float(1e-4, 1.0, log=True),
    "momentum": shoal.Float(0, 0.99),
    "weight_decay": shoal.Float(1e-6, 1e-2, log=True),
}


def digits(home: str) -> None:
    """Wall time over training time, from the second step on: the first has torch's own start."""
    for epochs, must in ((1, "≤ 1.05"), (10, ""), (100, "")):
        found = []
        for seed in range(3):
            _, rows = run(Digits(epochs), home, space=MLP, steps=20, seed=seed)
            later = [r for r in rows if r.step > 0]
            busy = sum(r.metrics["ended"] - r.metrics["began"] for r in later)
            found.append((steady(later) / (busy / WORKERS), busy / len(later)))
        ratio, each = map(statistics.median, zip(*found, strict=True))
        epoch = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        what = f"digits MLP, {epoch} ({each * 1e3:.0f} ms) a step: wall over training time"
        floor = statistics.median(bare(epochs) for _ in range(3))
        row(what, f"{ratio:.2f}; two bare processes: {floor:.2f}", must)


def bare(epochs: int) -> float:
    """The same ratio where two processes train four members each, and do next to nothing else.

    After each generation they wait for each other, and each copies a member in memory.
    """
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(WORKERS), context.Queue()
    processes = [
        context.Process(target=train_bare, args=(epochs, barrier, queue)) for _ in range(WORKERS)
    ]
    for process in processes:
        process.start()
    times = [time for _ in processes for time in queue.get()]
    for process in processes:
        process.join()
    wall = max(ended for _, ended in times) - min(began for began, _ in times)
    busy: float = sum(ended - began for began, ended in times)
    return float(wall / (busy / WORKERS))


def train_bare(epochs: int, barrier: Any, queue: Any) -> None:
    work, hparams = Digits(epochs), {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
    members = [work.init(hparams, 0) for _ in range(POPULATION // WORKERS)]
    times = []
    for generation in range(20):
        if generation > 0:
            members[0] = copy.deepcopy(members[1])
        for state in members:
            _, told = work.step(state, hparams)
            if generation > 0:
                times.append((told["began"], told["ended"]))
        barrier.wait()
    queue.put(times)


class Sleeper(Noop):
    """Sleeps for as long as a step of training takes that takes different times."""

    def step(self, state: State, hparams: Hparams) -> tuple[State, Mapping[str, float]]:
        began = time.monotonic()
        time.sleep(0.1 * lognormvariate(0, 0.5))
        return state, {"default": hparams["x"], "began": began, "ended": time.monotonic()}


def asynchronous(home: str) -> None:
    """Share of the workers' time, from the first step of each to its last, that was training."""
    for synchronous, must in ((False, "≥ 0.97"), (True, "≥ 0.53")):
        _, rows = run(Sleeper, home, steps=40, workers=8, synchronous=synchronous)
        by_member = defaultdict(list)
        for r in rows:
            by_member[r.member].append(r.metrics)
        busy = sum(m["ended"] - m["began"] for ms in by_member.values() for m in ms)
        if synchronous:
            there = 8 * steady(rows)
        else:  # as many workers as members: each has its own
            there = sum(ms[-1]["ended"] - ms[0]["began"] for ms in by_member.values())
        name = "synchronous" if synchronous else "asynchronous"
        row(f"{name}, steps of lognormal times: share spent training", f"{busy / there:.3f}", must)


class Large(Noop):
    """100 MB of state."""

    def init(self, hparams: Hparams, seed: int) -> State:
        import numpy as np

        return {"weights": np.zeros(100 * 10**6 // 8)}

    def step(self, state: State, hparams: Hparams) -> tuple[State, Mapping[str, float]]:
        began = time.monotonic()
        return state, {"default": hparams["x"], "began": began, "ended": time.monotonic()}

    def save(self, state: State, path: Path) -> None:
        import numpy as np

        np.save(path / "weights.npy", state["weights"])

    def load(self, path: Path) -> State:
        import numpy as np

        return {"weights": np.load(path / "weights.npy")}


def exploit(home: str) -> None:
    """What lies between the end of a donor's step and its recipient's: hand-over, and the loop."""
    import numpy as np

    work, folder = Large(), Path(home) / "large"
    folder.mkdir()
    state = work.init({}, 0)
    state["weights"] += 1.0  # its pages are there
    by_hand, by_copy = [], []
    for _ in range(5):
        began = time.monotonic()
        work.save(state, folder)
        work.load(folder)
        by_hand.append(time.monotonic() - began)
        began = time.monotonic()
        copy.deepcopy(state)
        by_copy.append(time.monotonic() - began)
    del np
    hand, copied = statistics.median(by_hand), statistics.median(by_copy)
    for workers, base, against in (
        (2, hand, "one save and one load"),
        (1, copied, "a copy in memory"),
    ):
        found = []
        for seed in range(3):
            _, rows = run(
                Large, home, population=2, steps=6, workers=workers, seed=seed,
                exploit={"truncation": 0.5}, checkpoint_every=1000,
            )  # fmt: skip
            ended = {r.id: r.metrics["ended"] for r in rows}
            members = {r.id: r.member for r in rows}
            found += [
                r.metrics["began"] - max(ended[p.id] for p in rows if p.step == r.step - 1)
                for r in rows
                if r.parent is not None and members[r.parent] != r.member
            ]
        took = statistics.median(found)
        where = "across workers" if workers > 1 else "inside one worker"
        must = "≤ 1.5 ×" if workers > 1 else "≤ 1 × (the copy)"
        measured = f"{took * 1e3:.0f} ms; {against} {base * 1e3:.0f} ms: {took / base:.2f} ×"
        row(f"exploit of 100 MB {where}", measured, must)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ray")
    parser.add_argument("--syne")
    rows = ["steps", "memory", "digits", "asynchronous", "exploit"]
    parser.add_argument("rows", nargs="*", metavar="ROW", choices=[*rows, []])
    given = parser.parse_args()
    peers = {name: getattr(given, name) for name in ("ray", "syne") if getattr(given, name)}
    print("| work | measured | must |\n| --- | --- | --- |")
    for name in given.rows or rows:
        with tempfile.TemporaryDirectory() as home:
            if name == "steps":
                steps(peers, home)
            else:
                globals()[name](home)


if __name__ == "__main__":
    main()
