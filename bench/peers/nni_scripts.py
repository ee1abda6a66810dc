"""Run the trial in a folder through NNI 3.0's local mode: FOLDER POPULATION STEPS SLOTS.

Runs in an environment of its own, with NNI and torch; see bench/README.md.
"""

import sys
import time
from pathlib import Path

from nni.experiment import Experiment

folder, (population, steps, slots) = Path(sys.argv[1]), map(int, sys.argv[2:5])
experiment = Experiment("local")
config = experiment.config
config.experiment_working_directory = str(folder / "nni")
config.trial_command = f"{sys.executable} trial.py"
config.trial_code_directory = str(folder)
config.search_space = {"x": {"_type": "uniform", "_value": [0, 1]}}
config.tuner.name = "PBT"
config.tuner.class_args = {
    "optimize_mode": "maximize",
    "all_checkpoint_dir": str(folder / "checkpoints"),
    "population_size": population,
}
config.max_trial_number = population * steps
config.trial_concurrency = slots
config.training_service.use_active_gpu = False
experiment.start(8391)
while experiment.get_status() not in {"DONE", "STOPPED", "ERROR"}:
    time.sleep(0.2)  # `Experiment.run` looks once in ten seconds
experiment.stop()
