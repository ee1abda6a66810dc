"""What a decision of NNI 3.0's PBTTuner costs, in microseconds: GENERATIONS POPULATION ...

The same work as the row `tuner` of overhead.py, in an environment of its own; see bench/README.md.
"""

import statistics
import sys
import time
from random import Random

from nni.algorithms.hpo.pbt_tuner import PBTTuner

generations, *populations = map(int, sys.argv[1:])
SPACE = {
    "lr": {"_type": "loguniform", "_value": [1e-4, 1.0]},
    "momentum": {"_type": "uniform", "_value": [0, 0.99]},
    "wd": {"_type": "loguniform", "_value": [1e-6, 1e-2]},
}
for population in populations:
    tuner = PBTTuner("maximize", "nowhere", population)
    tuner.update_search_space(SPACE)
    random, times = Random(0), []
    for generation in range(generations):
        ids = range(generation * population, (generation + 1) * population)
        began = time.process_time()
        parameters = [tuner.generate_parameters(id) for id in ids]
        for id, given in zip(ids, parameters, strict=True):
            tuner.receive_trial_result(id, given, random.random())
        times.append((time.process_time() - began) / population * 1e6)
    print(statistics.median(times), flush=True)
