"""A trainable that does nothing through Ray Tune: POPULATION STEPS WORKERS [ADDRESS].

In Ray's best form, on a cluster of its own or on that which ADDRESS names.

Prints {"wall": seconds of fit, "first": seconds to the first step, "steady": seconds from the first
step's start to the last one's end, "steps": how many were done}.
"""

import json
import os
import shutil
import sys
import tempfile
import time

os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
began = time.monotonic()

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune import RunConfig, TuneConfig, Tuner  # noqa: E402
from ray.tune.schedulers import PopulationBasedTraining  # noqa: E402

population, steps, workers = map(int, sys.argv[1:4])
folder = tempfile.mkdtemp(prefix="ray-bench-")
LOG = os.path.join(folder, "log")


class Noop(tune.Trainable):
    def setup(self, config):
        self.x, self.log = config["x"], config["log"]
        self.state = {"step": 0, "score": 0.0}

    def step(self):
        began = time.monotonic()
        self.state["step"] += 1
        self.state["score"] += self.x
        with open(self.log, "a") as log:
            log.write(f"{began} {time.monotonic()}\n")
        return {"score": self.state["score"]}

    def save_checkpoint(self, folder):
        with open(os.path.join(folder, "state.json"), "w") as file:
            json.dump(self.state, file)

    def load_checkpoint(self, folder):
        with open(os.path.join(folder, "state.json")) as file:
            self.state = json.load(file)

    def reset_config(self, config):
        self.x = config["x"]
        self.state = {"step": 0, "score": 0.0}
        return True


if sys.argv[4:]:
    ray.init(address=sys.argv[4], logging_level="ERROR", log_to_driver=False)
else:
    ray.init(num_cpus=workers, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
scheduler = PopulationBasedTraining(
    time_attr="training_iteration",
    perturbation_interval=1,
    hyperparam_mutations={"x": tune.uniform(0, 1)},
)
Tuner(
    tune.with_resources(Noop, {"cpu": 1}),
    param_space={"log": LOG},
    tune_config=TuneConfig(
        metric="score", mode="max", scheduler=scheduler, num_samples=population, reuse_actors=True
    ),
    run_config=RunConfig(
        name="x",
        storage_path=os.path.join(folder, "store"),
        stop={"training_iteration": steps},
        verbose=0,
    ),
).fit()
wall = time.monotonic() - began
with open(LOG) as log:
    times = [tuple(map(float, line.split())) for line in log]
first, last = min(t[0] for t in times), max(t[1] for t in times)
found = {"wall": wall, "first": first - began, "steady": last - first, "steps": len(times)}
print(json.dumps(found))
ray.shutdown()
shutil.rmtree(folder, ignore_errors=True)
