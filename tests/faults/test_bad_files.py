"""Two hundred files that no experiment can be made of: refused within two seconds, in a sentence.

All of them go through the command line's own `execute`, in one process, since a process each would
take longer than all else; some go through the command as well.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cli.shell import Shell

WITHIN_S = 2.0
GOOD: dict[str, Any] = {
    "command": "true",
    "space": {"lr": {"float": [0.001, 0.5]}},
    "population": 2,
    "steps": 1,
}
NNI: dict[str, Any] = {
    "searchSpace": {"lr": {"_type": "uniform", "_value": [0, 1]}},
    "trialCommand": "true",
    "trialConcurrency": 2,
    "tuner": {"name": "PBTTuner", "classArgs": {"optimize_mode": "maximize"}},
    "trainingService": {"platform": "local"},
}
HUGE = 10**5000
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 10)}], {new}{new}: 1}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def native(**changes: Any) -> str:
    return json.dumps(GOOD | changes)


def range_of(**domain: Any) -> str:
    return native(space={"x": domain})


def nni(**changes: Any) -> str:
    return json.dumps(NNI | changes)


def yaml(*lines: str, **without: Any) -> str:
    kept = {key: value for key, value in GOOD.items() if key not in without}
    return "\n".join([*(f"{key}: {json.dumps(value)}" for key, value in kept.items()), *lines])


SURROGATE, NUL = "\ud800", "\0"
DEEP_MAP = "".join(f"{' ' * depth}a:\n" for depth in range(900))
# name of the file -> (its text, what is said)
FILES: dict[str, tuple[str | bytes, str]] = {
    # what is no document at all
    "empty.yml": ("", "is missing"),
    "empty.json": ("", "is missing"),
    "empty.toml": ("", "is missing"),
    "spaces.yml": ("   \n\n", "is missing"),
    "null.yml": ("null", "expected a mapping"),
    "list.yml": ("[1, 2]", "expected a mapping"),
    "text.yml": ("just text", "expected a mapping"),
    "number.json": ("3", "expected a mapping"),
    "binary.yml": (bytes(range(256)), "expected text in UTF-8"),
    "latin.yml": ("name: é".encode("latin-1"), "expected text in UTF-8"),
    "utf16.yml": ("name: x".encode("utf-16"), "expected text in UTF-8"),
    "bell.yml": ("name: \a", "not YAML"),
    "zeros.yml": (b"\0" * 1000, "not YAML"),
    "zeros.toml": (b"\0" * 1000, "not TOML"),
    "two.yml": (yaml() + "\n---\n" + yaml(), "not YAML"),
    "tag.yml": (yaml("name: !!python/object/apply:os.system [true]"), "not YAML"),
    "anchor.yml": (yaml("name: *nobody"), "not YAML"),
    "date.yml": (yaml("name: 2024-13-01"), "not YAML"),
    "tab.yml": ("command: true\nspace:\n\tlr: 1", "not YAML"),
    "open.json": ('{"command": "true"', "not JSON"),
    "open.toml": ('command = "true', "not TOML"),
    "twice.yml": (yaml("steps: 2"), "given twice"),
    "twice.json": ('{"command": "a", "command": "b"}', "given twice"),
    "twice.toml": ('command = "a"\ncommand = "b"', "not TOML"),
    "keys.yml": ("1: 2\n2: 3", "expected a name"),
    "key_list.yml": ("? [1, 2]\n: 3", "not YAML"),
    # too much of it
    "bomb.yml": (BOMB, "values, aliases counted"),
    "bomb_used.yml": (BOMB + yaml("name: *i"), "values, aliases counted"),
    "merges.yml": (MERGES, "values, aliases counted"),
    "self_list.yml": ("a: &a [*a]", "in one another"),
    "self_map.yml": ("a: &a {b: *a}", "in one another"),
    "self_space.yml": (yaml("space: &s {a: *s}", space=0), "in one another"),
    "deep.yml": ("a: " + "[" * 900 + "]" * 900, "in one another"),
    "deep_map.yml": (DEEP_MAP, "in one another"),
    "deep_open.yml": ("a: " + "[" * 900, "in one another"),
    "deep.json": ('{"a": ' + "[" * 900 + "]" * 900 + "}", "in one another"),
    "deeper.json": ('{"a": ' * 100_000 + "1" + "}" * 100_000, "in one another"),
    "deeper_open.json": ("[" * 500_000, "in one another"),
    "deeper.yml": ("- " * 200_000, "in one another"),
    "deep.toml": ("a = " + "[" * 900 + "]" * 900, "in one another"),
    "deep_inline.toml": ("a = " + "{a = " * 900 + "1" + "}" * 900, "in one another"),
    "dotted.toml": (".".join(["a"] * 300_000) + " = 1", "in one another"),
    "dotted_table.toml": ("[" + " . ".join(["a"] * 100_000) + "]", "in one another"),
    "keys_10_mb.json": (
        json.dumps({f"unknown key of some length {i}": i for i in range(300_000)}),
        "at most 1 MiB",
    ),
    "keys_10_mb.yml": ("".join(f"unknown_key_number_{i}: {i}\n" for i in range(300_000)), "1 MiB"),
    "keys.json": (native(**{f"k{i}": 1 for i in range(20_000)}), "at most 1,000 keys"),
    "keys_20000.yml": (yaml(*(f"k{i}: 1" for i in range(20_000))), "at most 1,000 keys"),
    "keys.toml": ("".join(f"k{i} = 1\n" for i in range(20_000)), "at most 1,000 keys"),
    "keys_900.json": (native(**{f"populatio{i}": 1 for i in range(900)}), "... and 875 more"),
    "values.json": (native(space={"x": {"choice": [1] * 200_000}}), "values, aliases"),
    "spaces_900.json": (
        native(space={f"x{i}": {"flaot": [0, 1]} for i in range(900)}),
        "and 875 more",
    ),
    # numbers
    "digits.json": (native()[:-1] + ', "seed": 1' + "0" * 5000 + "}", "at most 400 digits"),
    "digits.yml": (yaml("seed: 1" + "0" * 5000), "at most 400 digits"),
    "digits.toml": ("seed = 1" + "0" * 5000, "at most 400 digits"),
    "digits_1000.json": (native()[:-1] + ', "seed": 1' + "0" * 1000 + "}", "at most 400 digits"),
    "hex.yml": (yaml("seed: 0x" + "f" * 500_000), "at most 400 digits"),
    "hex.toml": ("seed = 0x" + "f" * 500_000, "at most 400 digits"),
    "base60.yml": (yaml("seed: 1" + ":1" * 300_000), "at most 400 digits"),
    "float.yml": (yaml("target: 0." + "1" * 5000), "at most 400 digits"),
    "inf.yml": (yaml("target: .inf"), "target: expected a number"),
    "nan.json": (native(target=float("nan")), "target: expected a number"),
    "bool.yml": (yaml("steps: yes", steps=0), "steps: expected a whole number"),
    "population_1e11.yml": (yaml("population: 100000000000", population=0), "1,000,000 or less"),
    "population_float.yml": (yaml("population: 1e11", population=0), "1,000,000 or less"),
    "population_text.yml": (yaml("population: many", population=0), "expected a whole number"),
    "population_0.yml": (yaml("population: 0", population=0), "1 or more"),
    "population_negative.yml": (yaml("population: -5", population=0), "1 or more"),
    "population_nni.yml": (
        nni(tuner={"name": "PBT", "classArgs": {"population_size": 10**11}}),
        "1,000,000 or less",
    ),
    "workers.yml": (yaml("workers: 0"), "workers: expected 1 or more"),
    "steps.yml": (yaml("steps: 1.5", steps=0), "steps: expected a whole number"),
    "timeout.yml": (yaml("timeout: soon"), "timeout: expected a time"),
    "timeout_inf.yml": (yaml("timeout: .inf"), "timeout: expected a time"),
    "timeout_huge.yml": (yaml("timeout: 1e400s"), "timeout: expected a time"),
    "gpus.yml": (yaml("gpus: [0, 0]"), "gpus: expected each index once"),
    "gpus_negative.yml": (yaml("gpus: [-1]"), "gpus[0]: expected 0 or more"),
    "retries.yml": (yaml("retries: -1"), "retries: expected 0 or more"),
    # text
    "nul_name.json": (native(name=f"a{NUL}b"), "name: expected text without NUL"),
    "nul_name.yml": (yaml('name: "a\\0b"'), "name: expected text without NUL"),
    "nul_command.json": (native(command=f"a{NUL}b"), "command: expected text without NUL"),
    "nul_space.json": (native(space={f"a{NUL}b": {"float": [0, 1]}}), "without NUL"),
    "nul_option.json": (native(space={"a": {"choice": ["x", f"a{NUL}b"]}}), "without NUL"),
    "nul_path.json": (native(checkpoints=f"a{NUL}b"), "checkpoints: expected text without NUL"),
    "nul_home.json": (native(home=f"/tmp/a{NUL}b"), "home: expected text without NUL"),
    "nul_key.json": (native(**{f"a{NUL}b": 1}), "expected text without NUL"),
    "nul_nni.json": (nni(experimentName=f"a{NUL}b"), "experimentName: expected text without NUL"),
    "half_name.json": (native(name=f"a{SURROGATE}"), "name: expected text without NUL and half"),
    "half_name.yml": (yaml('name: "a\\ud800"'), "not YAML: found invalid Unicode"),
    "half_command.json": (native(command=SURROGATE), "command: expected text without NUL"),
    "half_option.json": (native(space={"a": {"choice": ["x", SURROGATE]}}), "without NUL"),
    "half_space.json": (native(space={SURROGATE: {"float": [0, 1]}}), "without NUL"),
    "half_path.json": (native(directory=f"/{SURROGATE}"), "directory: expected text without NUL"),
    "half_metric.json": (native(metric=SURROGATE), "metric: expected text without NUL"),
    "long_name.json": (native(name="x" * 100_000), "name: expected at most 200 characters"),
    "long_part.json": (native(checkpoints="x" * 300), "checkpoints: expected a path"),
    "long_path.json": (native(home="x/" * 4000), "home: expected a path"),
    "long_directory.json": (native(directory="x" * 10_000), "too long"),
    "long_space.json": (native(space="x" * 1000), "space: expected a path"),
    "long_nni.json": (nni(trialCodeDirectory="x" * 1000), "trialCodeDirectory: expected a path"),
    "long_nni_space.json": (
        nni(searchSpace=None, searchSpaceFile="x" * 999),
        "searchSpaceFile: expected a path",
    ),
    "nobody.json": (native(home="~nobody_of_that_name/x"), "no such user"),
    # things of the wrong kind, and things that are not there
    "command_list.yml": (yaml("command: [python, x]", command=0), "command: expected text"),
    "command_empty.yml": (yaml("command: ''", command=0), "command: expected some text"),
    "both.yml": (yaml("train: a:b"), "one of command, train, trainable"),
    "neither.yml": (yaml(command=0), "one of command, train, trainable"),
    "train.yml": (yaml("train: nothing", command=0), "expected module:function"),
    "space_list.yml": (yaml("space: [1]", space=0), "space: expected a mapping"),
    "space_empty.yml": (yaml("space: {}", space=0), "at least one hyperparameter"),
    "space_folder.yml": (yaml("space: .", space=0), "cannot be read: Is a directory"),
    "space_nowhere.yml": (yaml("space: nowhere.yml", space=0), "there is no such file"),
    "space_reversed.yml": (yaml("space: {x: {float: [1, 0]}}", space=0), "space.x"),
    "space_number.yml": (yaml("space: {x: {float: [0, '1']}}", space=0), "space.x"),
    "space_huge.json": (native(space={"x": {"int": [0, 10**30]}}), "must fit in 64 bits"),
    "choice_empty.yml": (yaml("space: {x: {choice: []}}", space=0), "at least one option"),
    "directory_file.yml": (yaml("directory: directory_file.yml"), "which is not a folder"),
    "directory_nowhere.yml": (yaml("directory: nowhere"), "which is not a folder"),
    "mode.yml": (yaml("mode: best"), "mode: expected"),
    "env.yml": (yaml("env: {A B: 1}"), "the name of a variable"),
    "unknown.yml": (yaml("populaton: 3"), "did you mean 'population'?"),
    "nni_remote.yml": (nni(trainingService={"platform": "remote"}), "set it to local"),
    "nni_assessor.yml": (nni(assessor={"name": "Curvefitting"}), "remove the assessor"),
    # domains that are none
    "float_one.json": (range_of(float=[1]), "space.x: expected float: [low, high]"),
    "float_three.json": (range_of(float=[0, 1, 2]), "space.x: expected float: [low, high]"),
    "float_text.json": (range_of(float="0..1"), "space.x: expected float: [low, high]"),
    "float_null.json": (range_of(float=None), "space.x: expected float: [low, high]"),
    "float_equal.json": (range_of(float=[1, 1]), "space.x"),
    "float_bool.json": (range_of(float=[False, True]), "space.x"),
    "float_nan.json": (range_of(float=[0, float("nan")]), "space.x"),
    "float_infinite.json": (range_of(float=[0, float("inf")]), "space.x"),
    "float_list.json": (range_of(float=[[0], 1]), "space.x"),
    "float_log_zero.json": (range_of(float=[0, 1], log=True), "space.x"),
    "float_log_negative.json": (range_of(float=[-1, 1], log=True), "space.x"),
    "float_log_text.json": (
        range_of(float=[1, 2], log="yes"),
        "space.x.log: expected true or false",
    ),
    "float_log_number.json": (
        range_of(float=[1, 2], log=10),
        "space.x.log: expected true or false",
    ),
    "float_step_zero.json": (range_of(float=[0, 1], step=0), "space.x"),
    "float_step_negative.json": (range_of(float=[0, 1], step=-0.1), "space.x"),
    "float_step_text.json": (range_of(float=[0, 1], step="0.1"), "space.x"),
    "float_base.json": (range_of(float=[0, 1], base=2), "space.x"),
    "float_beyond.json": (range_of(float=[0, HUGE // 10**4690]), "space.x"),
    "int_float.json": (range_of(int=[0, 1.5]), "space.x"),
    "int_reversed.json": (range_of(int=[3, 1]), "space.x"),
    "int_log_zero.json": (range_of(int=[0, 9], log=True), "space.x"),
    "int_step.json": (range_of(int=[0, 9], step=2), "space.x"),
    "int_bool.json": (range_of(int=[False, True]), "space.x"),
    "normal_one.json": (range_of(normal=[0]), "space.x: expected normal: [mean, sd]"),
    "normal_sd_zero.json": (range_of(normal=[0, 0]), "space.x"),
    "normal_sd_negative.json": (range_of(normal=[0, -1]), "space.x"),
    "normal_text.json": (range_of(normal=["a", "b"]), "space.x"),
    "choice_text.json": (range_of(choice="a, b"), "space.x: expected a list of options"),
    "choice_number.json": (range_of(choice=3), "space.x: expected a list of options"),
    "choice_map.json": (range_of(choice={"a": 1}), "space.x: expected a list of options"),
    "choice_nan.json": (range_of(choice=[float("nan"), 1]), "space.x"),
    "choice_nameless.json": (range_of(choice=[{"lr": {"float": [0, 1]}}, 1]), "to have a '_name'"),
    "choice_branch.json": (
        range_of(choice=[{"_name": "a", "lr": {"float": [1, 0]}}]),
        "space.x.choice[0].lr",
    ),
    "choice_branch_kind.json": (range_of(choice=[{"_name": 3}]), "space.x.choice[0]"),
    "two_kinds.json": (range_of(float=[0, 1], int=[0, 1]), "space.x: expected one of float, int"),
    "no_kind.json": (range_of(uniform=[0, 1]), "space.x: expected one of float, int"),
    "no_kind_at_all.json": (native(space={"x": {}}), "space.x: expected one of float, int"),
    "constant_list_nan.json": (native(space={"x": [1, float("nan")]}), "space.x"),
    "reserved.json": (
        native(space={"load_checkpoint_dir": {"float": [0, 1]}}),
        "the name of a folder that shoal gives",
    ),
    "reserved_too.json": (
        native(space={"save_checkpoint_dir": 1}),
        "the name of a folder that shoal gives",
    ),
    "space_number.json": (native(space=3), "space: expected"),
    # strategies that are none
    "exploit_unknown.json": (native(exploit="tournament"), "exploit: expected one of truncation"),
    "exploit_high.json": (
        native(exploit={"truncation": 1.5}),
        "exploit.truncation: fraction must be between 0 and 1",
    ),
    "exploit_negative.json": (
        native(exploit={"truncation": -0.1}),
        "exploit.truncation: fraction must be",
    ),
    "exploit_text.json": (
        native(exploit={"truncation": "0.2"}),
        "exploit.truncation: expected a number",
    ),
    "exploit_more.json": (native(exploit={"truncation": 0.2, "x": 1}), "exploit"),
    "exploit_number.json": (native(exploit=0.2), "exploit: expected one of truncation"),
    "exploit_empty.json": (native(exploit={}), "exploit: expected one of truncation"),
    "exploit_python.json": (native(exploit={"python": "Mine()"}), "was given in Python as Mine()"),
    "explore_unknown.json": (native(explore="pb2"), "explore: expected one of shift, perturb"),
    "explore_both.json": (native(explore={"shift": 0.2, "perturb": [0.8]}), "explore"),
    "explore_zero.json": (
        native(explore={"shift": 0}),
        "explore.shift: factor must be a number above 0",
    ),
    "explore_resample.json": (
        native(explore={"shift": 0.2, "resample": 2}),
        "explore.resample: resample must be",
    ),
    "explore_one.json": (native(explore={"perturb": [1]}), "explore.perturb: factors must be"),
    "explore_none.json": (native(explore={"perturb": []}), "explore.perturb: factors must be"),
    "explore_scalar.json": (
        native(explore={"perturb": 0.8}),
        "explore.perturb: expected a list of factors",
    ),
    # single fields
    "retries_text.json": (native(retries="twice"), "retries: expected a whole number"),
    "seed_text.json": (native(seed="lucky"), "seed: expected a whole number"),
    "seed_fraction.json": (native(seed=0.5), "seed: expected a whole number"),
    "keep.json": (native(keep="best"), "keep: expected"),
    "warm.json": (native(warm="on"), "warm: expected true or false"),
    "hold.json": (native(hold=1), "hold: expected true or false"),
    "synchronous.json": (native(synchronous="async"), "synchronous: expected true or false"),
    "every_zero.json": (
        native(checkpoint_every=0),
        'checkpoint_every: expected "auto" or a number',
    ),
    "every_text.json": (native(checkpoint_every="often"), 'checkpoint_every: expected "auto"'),
    "metric_empty.json": (native(metric=""), "metric: expected some text"),
    "metric_list.json": (native(metric=["loss"]), "metric: expected text"),
    "target_text.json": (native(target="0.9"), "target: expected a number"),
    "max_trials_zero.json": (native(max_trials=0), "max_trials: expected 1 or more"),
    "duration_zero.json": (native(max_duration=0), "max_duration: expected a time above 0"),
    "duration_negative.json": (native(max_duration="-5m"), "max_duration: expected a time"),
    "duration_list.json": (native(max_duration=[1]), "max_duration: expected a time"),
    "timeout_zero.json": (native(timeout=0), "timeout: expected a time above 0"),
    "gpus_share.json": (native(gpus_per_trial=1.5), "gpus_per_trial: expected a whole number, or"),
    "gpus_text.json": (native(gpus="0,1"), "gpus: expected a list"),
    "trials_per_gpu.json": (native(trials_per_gpu=0), "trials_per_gpu: expected 1 or more"),
    "preload_text.json": (native(preload="torch"), "preload: expected a list"),
    "preload_empty.json": (native(preload=[""]), "preload[0]: expected some text"),
    "env_list.json": (native(env=["A=1"]), "env: expected a mapping"),
    "env_null.json": (native(env={"A": None}), "env.A: expected text"),
    "env_ours.json": (native(env={"SHOAL_TRIAL_DIR": "/"}), "is a variable that shoal gives"),
    "env_nnis.json": (native(env={"NNI_TRIAL_JOB_ID": "1"}), "is a variable that shoal gives"),
    "name_number.json": (native(name=3), "name: expected text"),
    "home_number.json": (native(home=3), "home: expected a path"),
    "checkpoints_list.json": (native(checkpoints=["c"]), "checkpoints: expected a path"),
    "trainable_shape.json": (
        native(command=None, trainable="climb"),
        "trainable: expected module:name",
    ),
    "train_call.json": (native(command=None, train="m:f()"), "train: expected module:function"),
    "three.json": (native(train="a:b", trainable="a:b"), "one of command, train, trainable, got"),
    "capital.json": (native(Population=3), "did you mean 'population'"),
    # NNI's
    "nni_no_space.json": (nni(searchSpace=None), "searchSpaceFile: is missing"),
    "nni_both_spaces.json": (nni(searchSpaceFile="x.json"), "there is no such file"),
    "nni_type.json": (
        nni(searchSpace={"x": {"_type": "gauss", "_value": [0, 1]}}),
        "searchSpace.x",
    ),
    "nni_value.json": (nni(searchSpace={"x": {"_type": "uniform"}}), "searchSpace.x"),
    "nni_reversed.json": (
        nni(searchSpace={"x": {"_type": "uniform", "_value": [1, 0]}}),
        "searchSpace.x",
    ),
    "nni_loguniform.json": (
        nni(searchSpace={"x": {"_type": "loguniform", "_value": [0, 1]}}),
        "searchSpace.x",
    ),
    "nni_choice.json": (nni(searchSpace={"x": {"_type": "choice", "_value": 3}}), "searchSpace.x"),
    "nni_nested.json": (
        nni(searchSpace={"x": {"_type": "choice", "_value": [{"a": 1}]}}),
        "searchSpace.x",
    ),
    "nni_tuner.json": (nni(tuner={"name": "TPE"}), "tuner"),
    "nni_tuner_args.json": (
        nni(tuner={"name": "PBTTuner", "classArgs": {"popsize": 3}}),
        "tuner.classArgs",
    ),
    "nni_mode.json": (
        nni(tuner={"name": "PBTTuner", "classArgs": {"optimize_mode": "best"}}),
        "optimize_mode",
    ),
    "nni_factor.json": (nni(tuner={"name": "PBTTuner", "classArgs": {"factor": -1}}), "factor"),
    "nni_fraction.json": (
        nni(tuner={"name": "PBTTuner", "classArgs": {"fraction": 2}}),
        "fraction",
    ),
    "nni_resample.json": (
        nni(tuner={"name": "PBTTuner", "classArgs": {"resample_probability": 7}}),
        "resample_probability",
    ),
    "nni_concurrency.json": (nni(trialConcurrency=0), "trialConcurrency"),
    "nni_command.json": (nni(trialCommand=None), "trialCommand"),
    "nni_duration.json": (nni(maxExperimentDuration="long"), "maxExperimentDuration"),
    "nni_unknown.json": (nni(trialComand="true"), "trialComand"),
}


class Refused(NamedTuple):
    code: int
    seconds: float
    said: str


DRIVER = """
import contextlib, io, json, os, signal, sys, time
from shoal.cli.main import execute
for name in sys.argv[1:]:
    said = io.StringIO()
    signal.alarm(20)
    began = time.perf_counter()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = execute(["run", name])
    seconds = time.perf_counter() - began
    print(json.dumps([name, code, seconds, said.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refused]:
    """What became of each file, and under "left" what there was afterwards that had not been."""
    root = tmp_path_factory.mktemp("bad")
    folder = root / "files"
    folder.mkdir()
    for name, (text, _) in FILES.items():
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        (folder / name).write_bytes(data)
    shell = Shell(root / "home")
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, *FILES],
        cwd=folder, env=shell.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [name for name, *_ in told] == list(FILES), ended.stderr[-2000:]
    assert shell.nothing_there()
    assert {path.name for path in folder.iterdir()} == set(FILES), "something was left behind"
    return {name: Refused(*rest) for name, *rest in told}


@pytest.mark.parametrize("name", FILES)
def test_it_is_refused(refused: dict[str, Refused], name: str) -> None:
    code, seconds, said = refused[name]
    assert code == 2, said
    assert FILES[name][1] in said
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert len(said) < 8000
    assert seconds < WITHIN_S


def test_there_are_two_hundred_of_them() -> None:
    assert len(FILES) >= 200


@pytest.mark.parametrize(
    "name", ["bomb.yml", "deep.json", "keys_10_mb.json", "half_name.json", "long_part.json"]
)
def test_by_the_real_command(shell: Shell, tmp_path: Path, name: str) -> None:
    text, expected = FILES[name]
    assert isinstance(text, str)
    (tmp_path / name).write_text(text)
    ended = shell("run", tmp_path / name)
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert ended.stdout == ""
    assert shell.nothing_there()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name", "a\udcff"], "without NUL and half characters"),
        (["--name", "x" * 201], "at most 200 characters"),
        (["--seed", "1" + "0" * 500], "at most 400 digits"),
        (["--env", "A=\udcff"], "expected text"),
        (["--home", "x" * 300], "experiments cannot be kept in"),
    ],
)
def test_what_is_given_by_hand_is_looked_at_too(
    shell: Shell, tmp_path: Path, options: list[str], said: str
) -> None:
    (tmp_path / "good.json").write_text(native())
    ended = shell("run", tmp_path / "good.json", *options)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert shell.nothing_there()
