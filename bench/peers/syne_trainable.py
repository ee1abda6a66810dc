"""A function that does nothing through Syne Tune's Python backend: POPULATION STEPS.

It holds nobody for a decision: as many workers as members, each going on until it is stopped.
Prints what `ray_trainable.py` prints.
"""

import json
import logging
import os
import shutil
import sys
import tempfile
import time

began = time.monotonic()
folder = tempfile.mkdtemp(prefix="syne-bench-")
os.environ["SYNETUNE_FOLDER"] = folder
os.environ["BENCH_LOG"] = os.path.join(folder, "log")
logging.getLogger().setLevel(logging.WARNING)

from syne_tune import StoppingCriterion, Tuner  # noqa: E402
from syne_tune.backend import PythonBackend  # noqa: E402
from syne_tune.config_space import uniform  # noqa: E402
from syne_tune.optimizer.schedulers import PopulationBasedTraining  # noqa: E402

population, steps = map(int, sys.argv[1:3])


def noop(x, max_t):
    import json
    import os
    import sys
    import time

    from syne_tune import Reporter

    # the backend does not tell a function where its checkpoints are
    folder = sys.argv[sys.argv.index("--st_checkpoint_dir") + 1]
    os.makedirs(folder, exist_ok=True)
    path, report = os.path.join(folder, "state.json"), Reporter()
    state = {"step": 0, "score": 0.0}
    while state["step"] < max_t:
        began = time.monotonic()
        if os.path.isfile(path):
            with open(path) as file:
                state = json.load(file)
        state["step"] += 1
        state["score"] += x
        # whole at any moment: a donor's folder is copied while it writes
        beside = f"{folder.rstrip('/')}.tmp"
        with open(beside, "w") as file:
            json.dump(state, file)
        os.replace(beside, path)
        with open(os.environ["BENCH_LOG"], "a") as log:
            log.write(f"{began} {time.monotonic()}\n")
        report(score=state["score"], step=state["step"])


space = {"x": uniform(0, 1), "max_t": steps}
Tuner(
    trial_backend=PythonBackend(tune_function=noop, config_space=space),
    scheduler=PopulationBasedTraining(
        config_space=space,
        metric="score",
        time_attr="step",
        population_size=population,
        do_minimize=False,
        max_t=steps,
        perturbation_interval=1,
        random_seed=0,
    ),
    n_workers=population,
    stop_criterion=StoppingCriterion(
        max_num_evaluations=population * steps, max_wallclock_time=200
    ),
    results_update_interval=5,
    sleep_time=0.1,
    save_tuner=False,
    suffix_tuner_name=False,
    tuner_name="bench",
).run()
wall = time.monotonic() - began
with open(os.environ["BENCH_LOG"]) as log:
    times = [tuple(map(float, line.split())) for line in log]
first, last = min(t[0] for t in times), max(t[1] for t in times)
found = {"wall": wall, "first": first - began, "steady": last - first, "steps": len(times)}
print(json.dumps(found))
shutil.rmtree(folder, ignore_errors=True)
