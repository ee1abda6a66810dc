"""What shoal itself costs: the table of README.md, row by row.

    python bench/overhead.py [--nni PYTHON] [ROW ...]

ROW is one of scripts, plain, libraries, tuner, journal, resume, looking, cli; by default, all. With
`--nni`, the interpreter of an environment that has NNI 3.0 (and torch), `scripts` and `tuner` do
the same work there too, in the same run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from random import Random

from shoal.config import Config
from shoal.core.records import Finished, Record
from shoal.core.space import Float, Space
from shoal.core.tuner import Tuner
from shoal.stores.sqlite import SqliteStore

HERE = Path(__file__).parent
POPULATION, STEPS, SLOTS = 8, 10, 2
SPACE = Space(
    {
        "lr": Float(1e-4, 1.0, log=True),
        "momentum": Float(0, 0.99),
        "wd": Float(1e-6, 1e-2, log=True),
    }
)
SCRIPT = """
import json, os
{imports}
import nni

params = nni.get_next_parameter()
path = os.path.join(params["load_checkpoint_dir"], "model.pth")
state = {load} if os.path.isfile(path) else {{"step": 0, "score": 0.0}}
state["step"] += 1
state["score"] += params["x"]
os.makedirs(params["save_checkpoint_dir"], exist_ok=True)
path = os.path.join(params["save_checkpoint_dir"], "model.pth")
{save}
with open(os.environ["BENCH_LOG"], "a") as log:
    log.write("%d\\n" % state["step"])
nni.report_final_result(state["score"])
"""
TORCH = SCRIPT.format(
    imports="import torch",
    load="torch.load(path, weights_only=True)",
    save="torch.save(state, path)",
)
PLAIN = SCRIPT.format(
    imports="", load="json.load(open(path))", save="json.dump(state, open(path, 'w'))"
)


# Libraries that take long to import: what a trial does with each, between its two checkpoints.
WORK = {
    "lightning": """
import lightning as L, torch
class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 2)
model = Model()
torch.save(model.state_dict(), os.path.join(params["save_checkpoint_dir"], "weights"))
""",
    "torchvision": """
import torch, torchvision
from torchvision import transforms
transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
model = torchvision.models.squeezenet1_0()
torch.save(model.state_dict(), os.path.join(params["save_checkpoint_dir"], "weights"))
""",
    "sklearn, pandas": """
import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import SGDClassifier
data = load_iris(as_frame=True).frame
model = SGDClassifier(max_iter=5, tol=None).fit(data.drop(columns="target"), data["target"])
""",
    "stable_baselines3, PPO": """
from stable_baselines3 import PPO
model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, n_epochs=1, device="cpu")
model.learn(32)
model.save(os.path.join(params["save_checkpoint_dir"], "policy"))
""",
    "transformers, a small BERT": """
import torch
from transformers import BertConfig, BertForSequenceClassification
config = BertConfig(
    vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
)
model = BertForSequenceClassification(config)
out = model(input_ids=torch.randint(0, 100, (4, 16)), labels=torch.randint(0, 2, (4,)))
out.loss.backward()
torch.save(model.state_dict(), os.path.join(params["save_checkpoint_dir"], "weights"))
""",
}
AT_LEAST = {"lightning": 30, "stable_baselines3, PPO": 10, "transformers, a small BERT": 10}


def row(work: str, measured: str, must: str) -> None:
    print(f"| {work} | {measured} | {must} |", flush=True)


def scripts(nni: str | None) -> None:
    """Trials that import torch, load, save and report, in forks of the fork server."""
    ours = statistics.median(through_shoal(TORCH, warm=True) for _ in range(3))
    against = ""
    if nni is not None:
        theirs = through_nni(nni)
        against = f"; NNI {theirs:.0f} ms: {theirs / ours:.0f} x"
    row("script trial with torch, warm", f"{ours:.0f} ms{against}", "<= 60 ms, >= 50 x")


def plain() -> None:
    """The same through an ordinary process, without torch."""
    ours = statistics.median(through_shoal(PLAIN, warm=False) for _ in range(3))
    row("script trial without torch, ordinary process", f"{ours:.0f} ms", "<= 150 ms")
    warm = statistics.median(through_shoal(PLAIN, warm=True) for _ in range(3))
    row("the same, warm", f"{warm:.0f} ms", "")


def libraries() -> None:
    """Trials that import a library and use it, in forks and in processes of their own."""
    for name, work in WORK.items():
        if find_spec(name.partition(",")[0]) is None:
            row(f"script trial with {name}", "not installed", "")
            continue
        head, made, tail = PLAIN.partition(
            'os.makedirs(params["save_checkpoint_dir"], exist_ok=True)'
        )
        script = head + made + work + tail
        # warm ones learn from the first what to share, and that is in place after some generations
        warm = through_shoal(script, warm=True, generations=12, last=6)
        cold = through_shoal(script, warm=False, generations=3, last=2, population=4)
        must = f">= {AT_LEAST[name]} x" if name in AT_LEAST else ""
        row(
            f"script trial with {name}: cold; warm",
            f"{cold:.0f} ms; {warm:.0f} ms: {cold / warm:.0f} x",
            must,
        )


def through_shoal(
    script: str,
    *,
    warm: bool,
    population: int = POPULATION,
    generations: int = STEPS,
    last: int = STEPS - 1,
) -> float:
    """Wall x slots per trial, in ms, over the `last` generations."""
    import shoal

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "trial.py").write_text(script)
        os.environ["BENCH_LOG"] = str(folder / "log")
        config = shoal.Config(
            command="python3 trial.py",
            directory=folder,
            space=Space({"x": Float(0, 1)}),
            population=population,
            steps=generations,
            workers=SLOTS,
            warm=warm,
            env={"OMP_NUM_THREADS": "1"},  # or the threads of two trials wait for one another
        )
        result = shoal.run(config, home=folder / "home")
        assert result.state == "done", result.reason
        check(folder / "log", population, generations)
        ended = [row.ended for row in result.trials() if row.ended is not None]
        return steady(ended, last * population)


def through_nni(python: str) -> float:
    """The same through NNI 3.0, whose trials are told apart by when they log."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = TORCH.replace(
            '"%d\\n" % state["step"]', '"%d %f\\n" % (state["step"], time.time())'
        )
        (folder / "trial.py").write_text("import time\n" + times)
        log = folder / "log"
        driver = [python, str(HERE / "peers" / "nni_scripts.py"), str(folder)]
        sizes = map(str, (POPULATION, STEPS, SLOTS))
        env = {**os.environ, "BENCH_LOG": str(log)}
        subprocess.run([*driver, *sizes], env=env, check=True, stdout=subprocess.DEVNULL)
        check(log, POPULATION, STEPS)
        ended = [float(line.split()[1]) for line in log.read_text().splitlines()]
        return steady(ended, (STEPS - 1) * POPULATION)


def check(log: Path, population: int, generations: int) -> None:
    """The same work was done: each step by each member."""
    steps = sorted(int(line.split()[0]) for line in log.read_text().splitlines())
    assert steps == sorted(list(range(1, generations + 1)) * population), steps


def steady(ended: list[float], count: int) -> float:
    """Over the last `count` trials: the first generation waits for what starts up."""
    ended.sort()
    rest = ended[-count - 1 :]
    return (rest[-1] - rest[0]) * 1000 * SLOTS / (len(rest) - 1)


def tuner(nni: str | None) -> None:
    """What a decision costs: ask + tell."""
    generations, populations = 20, (10, 100, 1000, 10_000)
    for synchronous in (True, False):
        costs = []
        for population in populations:
            decide = Tuner(SPACE, population=population, steps=generations, synchronous=synchronous)
            random, times = Random(0), []
            for _ in range(generations):
                began = time.process_time()
                trials = [trial for _ in range(population) if (trial := decide.ask())]
                for trial in trials:
                    decide.tell(Finished(trial.id, random.random()))
                times.append((time.process_time() - began) / population * 1e6)
            assert decide.done
            half = generations // 2
            growth = statistics.median(times[half:]) / statistics.median(times[:half])
            costs.append(f"{population:,}: {statistics.median(times):.0f} us ({growth:.2f})")
        kind = "synchronous" if synchronous else "asynchronous"
        row(
            f"tuner decision, {kind}, at population (second half over first)",
            "; ".join(costs),
            "<= 30 us, not growing",
        )
    if nni is not None:
        argv = [nni, str(HERE / "peers" / "nni_tuner.py"), *map(str, (generations, *populations))]
        told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
        costs = [f"{p:,}: {float(us):.0f} us" for p, us in zip(populations, told, strict=True)]
        row("the same, NNI's PBTTuner", "; ".join(costs), "")


def history(trials: int, population: int = 1000) -> list[Record]:
    """The journal of a run of `trials` trials."""
    decide, random = Tuner(SPACE, population=population, steps=None, trials=trials), Random(0)
    records: list[Record] = []
    while (trial := decide.ask()) is not None:
        report = Finished(trial.id, random.random(), {"default": 0.5, "loss": 1.25})
        decide.tell(report)
        records += [trial, report]
    return records


def journal() -> None:
    """Records made durable, in groups as large as a generation of 8 and of 64."""
    records = history(20_000)
    rates = []
    for group in (8, 64):
        with tempfile.TemporaryDirectory() as name:
            store = SqliteStore.create(Path(name) / "journal.db", {})
            began = time.perf_counter()
            for start in range(0, len(records), 2 * group):
                for record in records[start : start + 2 * group]:
                    store.append(record)
                store.commit()
            seconds = time.perf_counter() - began
            store.close()
        rates.append(f"{len(records) / 2 / seconds:,.0f} in groups of {group}")
    row("journal, trials a second, durable", "; ".join(rates), ">= 2,000")


RESUME = """
import sys, time
from pathlib import Path
began = time.perf_counter()
from shoal import Config, Float, Space
from shoal.controller import tuner_of
from shoal.stores.sqlite import SqliteStore
log = Float(1e-6, 1.0, log=True)
CONFIG = Config(command="true", space=Space(dict(lr=log, momentum=log, wd=log)), population=1000)
store = SqliteStore(Path(sys.argv[1]))
tuner = tuner_of(CONFIG, store)
trial = tuner.ask()
assert trial is not None and trial.id == len(tuner.population.trials) - 1 == 500_000
status = Path("/proc/self/status").read_text()  # ru_maxrss is the largest of its parents', too
print(time.perf_counter() - began, status.partition("VmHWM:")[2].split()[0])
"""


def resume() -> None:
    """A million records: open, replay, decide the next trial; in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "journal.db"
        store = SqliteStore.create(path, {})
        for record in history(500_000):
            store.append(record)
        store.close()
        size_mb = path.stat().st_size / 2**20
        told = subprocess.run(
            [sys.executable, "-c", RESUME, str(path)],
            cwd=HERE.parent, capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
    row(
        f"open and resume 1,000,000 records ({size_mb:.0f} MiB on disk)",
        f"{float(told[0]):.1f} s, {int(told[1]) / 2**20:.2f} GiB",
        "<= 15 s, <= 1 GiB",
    )


def looking() -> None:
    """What a user waits for a command on a journal of 100,000 trials of 100 members."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "large"
        folder.mkdir()
        config = Config(command="true", space=SPACE, population=100, max_trials=100_000)
        meta = {
            "id": "large",
            "name": "large",
            "created": "1.0",
            "config": json.dumps(config.dump()),
        }
        store = SqliteStore.create(folder / "journal.db", meta)
        for record in history(100_000, 100):
            store.append(record)
        store.close()
        shoal = str(Path(sys.executable).with_name("shoal"))
        env = {**os.environ, "SHOAL_HOME": scratch}
        for command in ("status", "best", "lineage", "schedule", "trials"):
            times = []
            for _ in range(7):
                began = time.perf_counter()
                with subprocess.Popen([shoal, command], stdout=subprocess.PIPE, env=env) as running:
                    assert running.stdout is not None
                    if command == "trials":  # it prints on for seconds
                        running.stdout.read(1000)
                        running.kill()
                    else:
                        running.stdout.read()
                    times.append(time.perf_counter() - began)
            what = (
                "the first rows of `shoal trials`" if command == "trials" else f"`shoal {command}`"
            )
            must = 0.3 if command == "status" else 0.5
            row(f"{what}, 100,000 trials", f"{statistics.median(times):.2f} s", f"<= {must} s")


def cli() -> None:
    """What a user waits for a command, and bare Python in the same loop."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "trial.py").write_text(PLAIN)
        (folder / "c.yml").write_text(
            "command: python3 trial.py\nspace: {x: {float: [0, 1]}}\npopulation: 4\nsteps: 3\n"
        )
        os.environ["BENCH_LOG"] = str(folder / "log")
        os.environ["SHOAL_HOME"] = str(folder / "home")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what pip installs is compiled once, too
        shoal = str(Path(sys.executable).with_name("shoal"))
        subprocess.run([shoal, "run", str(folder / "c.yml")], check=True, capture_output=True)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "shoal --help": [shoal, "--help"],
            "shoal status": [shoal, "status"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(15):
            for name, argv in commands.items():
                began = time.perf_counter()
                subprocess.run(argv, check=True, capture_output=True)
                times[name].append((time.perf_counter() - began) * 1000)
    for name, measured in times.items():
        row(
            f"`{name}`",
            f"{statistics.median(measured):.0f} ms",
            "<= 150 ms" if name.startswith("shoal") else "",
        )


def main() -> None:
    """Print the rows that were asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nni", help="the python of an environment with NNI 3.0 and torch")
    parser.add_argument("rows", nargs="*")
    args = parser.parse_args()
    rows: dict[str, Callable[[], None]] = {
        "scripts": lambda: scripts(args.nni),
        "plain": plain,
        "libraries": libraries,
        "tuner": lambda: tuner(args.nni),
        "journal": journal,
        "resume": resume,
        "looking": looking,
        "cli": cli,
    }
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {load:.1f}\n")
    print("| work | measured | must |\n| --- | --- | --- |", flush=True)
    for name in args.rows or rows:
        rows[name]()


if __name__ == "__main__":
    main()
