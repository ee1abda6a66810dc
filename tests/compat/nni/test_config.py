"""NNI's experiment files, both versions: read as NNI reads them, or refused with what to do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from shoal.compat.nni.config import is_nni, parse
from shoal.config import Config, ConfigError, read
from shoal.core.exploit import Truncation
from shoal.core.explore import Shift
from shoal.core.space import Float, Space

SAMPLES = Path(__file__).parent / "samples"
SPACE = {"lr": {"_type": "uniform", "_value": [0, 1]}}

V2: dict[str, Any] = {
    "searchSpace": SPACE,
    "trialCommand": "python3 trial.py",
    "trialConcurrency": 2,
    "tuner": {"name": "PBT", "classArgs": {"optimize_mode": "maximize"}},
    "trainingService": {"platform": "local"},
}
V1: dict[str, Any] = {
    "trialConcurrency": 2,
    "trainingServicePlatform": "local",
    "searchSpacePath": str(SAMPLES / "search_space.json"),
    "tuner": {"builtinTunerName": "PBTTuner", "classArgs": {"optimize_mode": "maximize"}},
    "trial": {"command": "python3 trial.py"},
}


def config(mapping: Mapping[str, Any], folder: Path = Path("/exp")) -> Config:
    return parse(mapping, folder, "config.yml")[0]


def warnings(mapping: Mapping[str, Any]) -> list[str]:
    return parse(mapping, Path("/exp"))[1]


def told(mapping: Mapping[str, Any], folder: Path = Path("/exp")) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(mapping, folder, "config.yml")
    return str(caught.value).splitlines()


def args(**given: Any) -> dict[str, Any]:
    """Version 2 with these class arguments."""
    return V2 | {"tuner": {"name": "PBTTuner", "classArgs": given}}


def test_the_samples_of_nni_users() -> None:
    made = {}
    for name in ("v1.yml", "v2.yml"):
        mapping = read(SAMPLES / name)
        assert is_nni(mapping)
        made[name], told = parse(mapping, SAMPLES, name)
        assert len(told) == (1 if name == "v1.yml" else 0)  # authorName
    v1, v2 = made.values()
    for each in (v1, v2):
        assert (each.name, each.command) == ("digits_pbt", "python3 trial.py")
        assert (each.population, each.steps, each.max_trials, each.workers) == (8, 5, 40, 2)
        assert (each.max_duration, each.gpus_per_trial, each.mode) == (3600, 0, "max")
        assert each.directory == SAMPLES
        assert list(each.space) == ["alpha", "eta0", "batch", "average", "epochs"]
    assert v1.checkpoints == SAMPLES / "checkpoints"
    assert v2.checkpoints == Path.home() / "pbt-checkpoints"
    assert (v1.exploit, v1.explore) == (Truncation(0.2), Shift(0.2, 0.25))
    assert (v2.exploit, v2.explore) == (Truncation(0.25), Shift(0.3, 0.1))


def test_the_least_of_version_2_has_nnis_defaults() -> None:
    least = config(V2)
    assert least == Config(
        name="exp",
        command="python3 trial.py",
        directory=Path("/exp"),
        space=Space({"lr": Float(0, 1)}),
        workers=2,
    )
    assert (least.population, least.exploit, least.explore) == (10, Truncation(0.2), Shift(0.2))


def test_every_key_of_version_2() -> None:
    given = V2 | {
        "experimentName": 123,
        "trialCodeDirectory": "code",
        "trialGpuNumber": 1,
        "maxExperimentDuration": "0.5h",
        "maxTrialNumber": "25",
        "maxTrialDuration": "10m",
        "experimentWorkingDirectory": "~/nni-experiments",
        "useAnnotation": False,
        "assessor": None,
        "trainingService": [
            {
                "platform": "local",
                "useActiveGpu": True,
                "maxTrialNumberPerGpu": 2,
                "gpuIndices": "0, 2",
            }
        ],
        "tuner": {
            "name": "pbttuner",
            "classArgs": {
                "optimize_mode": "minimize",
                "all_checkpoint_dir": "./c",
                "population_size": "4",
                "factor": "0.3",
                "resample_probability": 0.5,
                "fraction": 0.5,
                "seed": 7,
            },
        },
    }
    assert config(given) == Config(
        name="123",
        command="python3 trial.py",
        directory=Path("/exp/code"),
        space=Space({"lr": Float(0, 1)}),
        population=4,
        workers=2,
        mode="min",
        seed=7,
        exploit=Truncation(0.5),
        explore=Shift(0.3, 0.5),
        checkpoints=Path("/exp/c"),
        timeout=600,
        gpus_per_trial=1,
        gpus=[0, 2],
        trials_per_gpu=2,
        use_active_gpus=True,
        max_trials=25,
        max_duration=1800,
        home=Path.home() / "nni-experiments",
    )
    assert warnings(given) == []


def test_every_key_of_version_1() -> None:
    given = V1 | {
        "experimentName": "digits",
        "maxExecDuration": "1d",
        "maxTrialNum": 20,
        "maxTrialDuration": 30,
        "logDir": "logs",
        "useAnnotation": False,
        "multiPhase": False,
        "trial": {"command": "python3 trial.py", "codeDir": "~/code", "gpuNum": "1"},
        "localConfig": {"useActiveGpu": False, "maxTrialNumPerGpu": 3, "gpuIndices": 1},
    }
    made = config(given)
    assert (made.name, made.max_duration, made.timeout) == ("digits", 86400, 30)
    assert (made.max_trials, made.steps, made.population) == (20, 2, 10)
    assert (made.home, made.directory) == (Path("/exp/logs"), Path.home() / "code")
    assert (made.gpus_per_trial, made.gpus, made.trials_per_gpu) == (1, [1], 3)
    assert made.use_active_gpus is False
    assert warnings(given) == []


def test_keys_are_matched_without_case_and_underscores() -> None:
    given = {
        "SEARCH_SPACE": SPACE,
        "trial_command": "python3 trial.py",
        "trialconcurrency": 2,
        "Tuner": {"NAME": "Pbt", "class_args": {"populationSize": 4, "OPTIMIZE_MODE": "minimize"}},
        "training_service": {"Platform": "local", "use_active_gpu": True},
        "max_trial_number": 8,
    }
    made = config(given)
    assert (made.population, made.steps, made.mode) == (4, 2, "min")
    assert made.use_active_gpus is True


def test_a_key_given_twice_in_two_spellings() -> None:
    assert told(V2 | {"trial_concurrency": 3}) == [
        "config.yml: trial_concurrency: is the same key as trialConcurrency"
    ]


@pytest.mark.parametrize(
    "tuner",
    [
        {"name": "PBT"},
        {"builtinTunerName": "PBTTuner"},
        {"className": "nni.algorithms.hpo.pbt_tuner.PBTTuner"},
        {"className": "PBTTuner", "classArgs": None},
    ],
)
def test_the_names_of_the_tuner(tuner: dict[str, Any]) -> None:
    assert config(V2 | {"tuner": tuner}) == config(V2)


@pytest.mark.parametrize(
    ("number", "steps"), [(40, 4), (45, None), (5, None), (10, 1), (None, None)]
)
def test_trials_are_members_times_steps(number: int | None, steps: int | None) -> None:
    made = config(V2 | {"maxTrialNumber": number})
    assert (made.max_trials, made.steps) == (number, steps)


def test_factors_is_factor_with_a_warning() -> None:
    assert config(args(factors=0.3)).explore == Shift(0.3)
    (warning,) = warnings(args(factors=0.3))
    assert warning.startswith("tuner.classArgs.factors is read as factor")
    assert told(args(factors=0.3, factor=0.2)) == [
        "config.yml: tuner.classArgs.factors: is another name of tuner.classArgs.factor: keep that"
    ]


def test_what_has_no_effect_is_said_to_have_none() -> None:
    given = V1 | {
        "authorName": "me",
        "description": "mine",
        "versionCheck": True,
        "logCollection": "none",
        "multiThread": False,
        "nniManagerIp": "10.0.0.1",
        "debug": True,
        "logLevel": "info",
        "sharedStorage": {"storageType": "NFS"},
        "machineList": [{"ip": "10.0.0.2"}],
    }
    given["tuner"] = V1["tuner"] | {"gpuIndices": "0", "includeIntermediateResults": True}
    assert [warning.split()[0] for warning in warnings(given)] == [
        "authorName", "description", "versionCheck", "logCollection", "nniManagerIp", "debug",
        "logLevel", "machineList", "tuner.gpuIndices",
        "tuner.includeIntermediateResults", "sharedStorage",
    ]  # fmt: skip
    assert warnings(V2 | {"tunerGpuIndices": 0}) == [
        "tunerGpuIndices has no effect: the tuner uses no GPU"
    ]


def test_what_belongs_to_trials_may_stand_in_the_training_service() -> None:
    service = {
        "platform": "local",
        "trialCommand": "python3 other.py",
        "trial_code_directory": "code",
        "trialGpuNumber": 0,
        "nniManagerIp": "10.0.0.1",
        "debug": False,
        "reuseMode": False,
    }
    given = {key: value for key, value in V2.items() if key != "trialCommand"}
    made = config(given | {"trainingService": service})
    assert (made.command, made.directory) == ("python3 other.py", Path("/exp/code"))
    assert made.gpus_per_trial == 0
    assert warnings(given | {"trainingService": service}) == [
        "trainingService.nniManagerIp has no effect: trials run on this machine"
    ]
    both = V2 | {"trainingService": service, "trialGpuNumber": 1}
    assert (config(both).command, config(both).gpus_per_trial) == ("python3 other.py", 0)
    assert "trialGpuNumber has no effect: trainingService.trialGpuNumber counts" in warnings(both)
    reused = V2 | {"trainingService": {"platform": "local", "reuseMode": True}}
    assert warnings(reused) == [
        "trainingService.reuseMode has no effect: trials run on this machine"
    ]


def test_what_nni_itself_writes(tmp_path: Path) -> None:
    """`ExperimentConfig.json()` of NNI 3.0, for a local experiment with PBTTuner."""
    space = tmp_path / "space.json"
    space.write_text(json.dumps(SPACE))
    written = {
        "experimentName": "digits",
        "experimentType": "hpo",
        "searchSpaceFile": str(space),
        "searchSpace": SPACE,
        "trialCommand": "python3 trial.py",
        "trialCodeDirectory": str(tmp_path),
        "trialConcurrency": 2,
        "trialGpuNumber": 0,
        "maxExperimentDuration": "2H",
        "maxTrialNumber": 4,
        "useAnnotation": False,
        "debug": False,
        "logLevel": "info",
        "experimentWorkingDirectory": str(tmp_path / "nni-experiments"),
        "tuner": {"name": "PBTTuner", "classArgs": {"population_size": 2}},
        "trainingService": {
            "platform": "local",
            "trialCommand": "python3 trial.py",
            "trialCodeDirectory": str(tmp_path),
            "trialGpuNumber": 0,
            "debug": False,
            "useActiveGpu": False,
            "maxTrialNumberPerGpu": 1,
            "reuseMode": False,
        },
    }
    made = config(written)
    assert (made.max_duration, made.steps, made.directory) == (7200, 2, tmp_path)
    assert made.space == config(V2).space
    assert [warning.split()[0] for warning in warnings(written)] == ["logLevel", "searchSpace"]
    space.unlink()
    assert told(written) == [f"{space}: there is no such file"], "it is the file that counts"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2H", 7200), ("10M", 600), ("1e3s", 1000), ("0.5s", 1), ("1.5D", 129_600), (" 5 m", 300),
        ("1_000s", 1000), ("1.2e1m", 720), (90, 90),
    ],
)  # fmt: skip
def test_times_are_nnis(text: object, seconds: float) -> None:
    keys = ("maxTrialDuration", "maxExperimentDuration")
    made = config(V2 | dict.fromkeys(keys, text))
    assert (made.timeout, made.max_duration) == (seconds, seconds)
    assert config(V1 | {"maxExecDuration": text}).max_duration == seconds


@pytest.mark.parametrize("text", ["1w", "-5s", "infs", "nand", "s", "0x1d", "1e400s"])
def test_what_is_no_time_is_told(text: str) -> None:
    expected = "expected a time above 0 (seconds, or 30s, 10m, 0.5h, 1d)"
    assert told(V2 | {"maxTrialDuration": text}) == [
        f"config.yml: maxTrialDuration: {expected}, got {text!r}"
    ]


def test_version_1_keys_of_other_platforms_are_dropped_as_nni_drops_them() -> None:
    trial = V1["trial"] | {
        "cpuNum": 1, "memoryMB": 8192, "image": "msranni/nni", "virtualCluster": "default",
    }  # fmt: skip
    given = V1 | {"trial": trial, "dltsConfig": {"a": 1}, "hybridConfig": {"b": 2}}
    assert config(given) == config(V1)
    assert warnings(given) == [
        f"{key} has no effect: it is for another platform"
        for key in ("dltsConfig", "hybridConfig", "trial.cpuNum", "trial.memoryMB", "trial.image",
                    "trial.virtualCluster")
    ]  # fmt: skip


ELSEWHERE = (
    "shoal runs on this machine, got 'remote'; set it to local. On several machines: `ray start "
    "--head` on {}, on the others, which need its token, `RAY_AUTH_MODE=token ray start "
    "--address=THE_FIRST:6379`, and with this file as it is `shoal run FILE --on ray --address "
    "auto` (docs/cluster.md)"
)
ONLY_PBT = "shoal runs population based training only"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"assessor": {"name": "Medianstop"}},
         "assessor: PBT itself moves away from bad trials: remove the assessor"),
        ({"advisor": {"name": "BOHB"}},
         "advisor: shoal runs PBT only: remove the advisor and set tuner.name to PBTTuner"),
        ({"advisor": {"name": "BOHB"}, "tuner": None},
         "advisor: shoal runs PBT only: remove the advisor and set tuner.name to PBTTuner"),
        ({"tuner": {"name": "TPE", "classArgs": {"seed": 1, "n": 2}}},
         f"tuner.name: {ONLY_PBT}, got 'TPE'; set it to PBTTuner"),
        ({"tuner": {"className": "MyTuner", "codeDirectory": "."}},
         f"tuner.codeDirectory: {ONLY_PBT}, no tuner of your own; set tuner.name to PBTTuner"),
        ({"tuner": {"className": "my.Tuner"}},
         f"tuner.className: {ONLY_PBT}, got 'my.Tuner'; set it to PBTTuner"),
        ({"tuner": {"classArgs": {}}}, "tuner.name: is missing; set it to PBTTuner"),
        ({"tuner": "PBT"}, "tuner: expected a mapping, got 'PBT'"),
        ({"tuner": None}, "tuner: is missing"),
        ({"useAnnotation": True},
         "useAnnotation: shoal reads no annotations: move them into a search space file"),
        ({"trainingService": {"platform": "remote", "machineList": []}},
         f"trainingService.platform: {ELSEWHERE.format('one machine')}"),
        ({"training_service": [{"Platform": "remote"}], "trainingService": None},
         f"training_service[0].platform: {ELSEWHERE.format('one machine')}"),
        ({"trainingService": {"platform": "remote", "machineList": [
            {"host": "10.0.0.1", "user": "bob"}, {"host": "10.0.0.2", "user": "bob"}]}},
         ("trainingService.platform: "
          f"{ELSEWHERE.format('the first of 10.0.0.1, 10.0.0.2')}")),
        ({"trainingService": [{"platform": "local"}, {"platform": "remote"}]},
         "trainingService: shoal runs on this machine only: keep the one with platform: local"),
        ({"trainingService": {}}, "trainingService.platform: is missing"),
        ({"trainingService": "local"}, "trainingService: expected a mapping, got 'local'"),
        ({"trainingService": {"platform": "local", "gpuIndexes": 1}},
         "trainingService: unknown key 'gpuIndexes'; did you mean 'gpuIndices'?"),
        ({"maxTrialNum": 3}, "unknown key 'maxTrialNum'; did you mean 'maxTrialNumber'?"),
        ({"search_space_path": "x"},
         "unknown key 'search_space_path'; did you mean 'searchSpace'?"),
        ({"trialCommand": None}, "trialCommand: is missing"),
        ({"trialConcurrency": None}, "trialConcurrency: is missing"),
        ({"trialConcurrency": 0}, "trialConcurrency: expected 1 or more, got 0"),
        ({"trialConcurrency": "two"}, "trialConcurrency: expected a whole number, got 'two'"),
        ({"trialGpuNumber": -1},
         "trialGpuNumber: expected a whole number, or a fraction below 1, got -1"),
        ({"maxExperimentDuration": "1w"}, ("maxExperimentDuration: expected a time above 0 "
         "(seconds, or 30s, 10m, 0.5h, 1d), got '1w'")),
        ({"searchSpace": None}, "searchSpaceFile: is missing"),
        ({"experimentType": "nas"},
         "experimentType: expected hpo, got 'nas': shoal searches no architectures"),
        ({"trainingService": {"platform": "local", "gpuIndices": [0, 0]}},
         "trainingService.gpuIndices: expected each index once, got [0, 0]"),
        ({"trainingService": {"platform": "local", "gpuIndices": "1,0,1"}},
         "trainingService.gpuIndices: expected each index once, got [1, 0, 1]"),
        ({"trainingService": {"platform": "local", "trialGpuNumber": "x"}},
         "trainingService.trialGpuNumber: expected a whole number, or a fraction below 1, got 'x'"),
        ({"searchSpace": {"lr": {"_type": "uniform", "_value": [1]}}},
         "searchSpace.lr._value: expected [low, high] for uniform, got [1]"),
        ({"searchSpace": {"load_checkpoint_dir": 1}},
         ("searchSpace.load_checkpoint_dir: is the name of a folder that shoal gives every trial; "
         "choose another")),
        ({"searchSpace": {}}, "searchSpace: expected at least one hyperparameter"),
        ({"searchSpace": None, "searchSpaceFile": 3}, "searchSpaceFile: expected a path, got 3"),
    ],
)  # fmt: skip
def test_what_is_refused_says_what_to_do(given: dict[str, Any], expected: str) -> None:
    mapping = {key: value for key, value in (V2 | given).items() if value is not None}
    assert told(mapping) == [f"config.yml: {expected}"]
    assert told(V2 | given) == [f"config.yml: {expected}"]  # null is unset


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"optimize_mode": "max"}, "optimize_mode: expected maximize or minimize, got 'max'"),
        ({"population_size": 0}, "population_size: expected 1 or more, got 0"),
        ({"population_size": "ten"}, "population_size: expected a whole number, got 'ten'"),
        ({"factor": -1}, "factor: factor must be a number above 0, got -1"),
        ({"factors": [1.2, 0.8]}, "factors: expected a number, got [1.2, 0.8]"),
        ({"resample_probability": 2}, ("resample_probability: resample must be between 0 and 1, "
         "got 2")),
        ({"fraction": "half"}, "fraction: expected a number, got 'half'"),
        ({"seed": 1.5}, "seed: expected a whole number, got 1.5"),
        ({"all_checkpoint_dir": 3}, "all_checkpoint_dir: expected a path, got 3"),
    ],
)  # fmt: skip
def test_class_arguments_are_checked(given: dict[str, Any], expected: str) -> None:
    assert told(args(**given)) == [f"config.yml: tuner.classArgs.{expected}"]


def test_an_unknown_class_argument() -> None:
    assert told(args(epochs=3)) == ["config.yml: tuner.classArgs: unknown key 'epochs'"]
    assert told(args(population=3)) == [
        "config.yml: tuner.classArgs: unknown key 'population'; did you mean 'population_size'?"
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"trainingServicePlatform": "kubeflow", "kubeflowConfig": {}, "trial": {"worker": {}}},
         "trainingServicePlatform: shoal runs on this machine, got 'kubeflow'; set it to local"),
        ({"multiPhase": True}, "multiPhase: trials have one phase: remove it"),
        ({"trial": None}, "trial: is missing"),
        ({"trial": {"codeDir": "."}}, "trial.command: is missing"),
        ({"searchSpacePath": None}, "searchSpacePath: is missing"),
        ({"trialCommand": "x"}, "unknown key 'trialCommand'"),
        ({"maxTrialNumber": 3}, "unknown key 'maxTrialNumber'; did you mean 'maxTrialNum'?"),
        ({"tuner": {"codeDir": ".", "classFileName": "t.py", "className": "T"}},
         (f"tuner.classFileName: {ONLY_PBT}, no tuner of your own; "
          "set tuner.builtinTunerName to PBTTuner")),
        ({"tuner": {"classArgs": {}}}, "tuner.builtinTunerName: is missing; set it to PBTTuner"),
        ({"tuner": None, "advisor": {"builtinAdvisorName": "BOHB"}},
         ("advisor: shoal runs PBT only: remove the advisor and set tuner.builtinTunerName to "
          "PBTTuner")),
        ({"localConfig": {"gpuIndices": "0,0"}},
         "localConfig.gpuIndices: expected each index once, got [0, 0]"),
    ],
)  # fmt: skip
def test_version_1_is_refused_by_its_own_names(given: dict[str, Any], expected: str) -> None:
    (line,) = [line for line in told(V1 | given) if "platform" not in line.lower()] or told(
        V1 | given
    )
    assert line.startswith(f"config.yml: {expected}")


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text('{"lr": {"_type": "uniform", "_value": [1, 0]}, "x": {}}')
    given = {
        "searchSpaceFile": "space.json",
        "trialConcurency": 2,
        "maxTrialNumber": -3,
        "tuner": {"name": "PBT", "classArgs": {"fraction": 3, "factr": 1}},
        "assessor": {"name": "Medianstop"},
        "trainingService": {"platform": "local", "gpuIndices": "0,x"},
    }
    assert sorted(told(given, tmp_path)) == sorted(
        [
            "config.yml: unknown key 'trialConcurency'; did you mean 'trialConcurrency'?",
            "config.yml: assessor: PBT itself moves away from bad trials: remove the assessor",
            "config.yml: trialCommand: is missing",
            "config.yml: trialConcurrency: is missing",
            "space.json: lr._value: low must be below high, got low=1, high=0",
            "space.json: x: expected _type and _value, but _type is missing",
            "config.yml: tuner.classArgs: unknown key 'factr'; did you mean 'factor'?",
            "config.yml: tuner.classArgs.fraction: fraction must be between 0 and 1, got 3",
            "config.yml: trainingService.gpuIndices[1]: expected a whole number, got 'x'",
            "config.yml: maxTrialNumber: expected 1 or more, got -3",
        ]
    )


def test_a_space_file_is_json_or_yaml_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "space.yml").write_text("lr: {_type: uniform, _value: [0, 1e0]}\n")
    (tmp_path / "space.json").write_text("{lr: {_type: uniform, _value: [0, 1]}}")
    given = {key: value for key, value in V2.items() if key != "searchSpace"}
    for name in ("space.yml", "./space.yml", str(tmp_path / "space.yml")):
        made = config(given | {"searchSpaceFile": name}, tmp_path)
        assert made.space == Space({"lr": Float(0, 1)})
    assert config(given | {"searchSpaceFile": "space.json"}, tmp_path).space == made.space
    assert told(given | {"searchSpaceFile": "none.json"}, tmp_path) == [
        "none.json: there is no such file"
    ]
    (tmp_path / "bad.json").write_text('{"load_checkpoint_dir": 1}')
    assert told(given | {"searchSpaceFile": "bad.json"}, tmp_path) == [
        (
            "bad.json: load_checkpoint_dir: is the name of a folder that shoal gives every trial; "
            "choose another"
        )
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trialCommand: x\nsearchSpaceFile: s.json", True),
        ("trial_command: x", True),
        ("trainingServicePlatform: local\ntrial: {command: x}", True),
        ("tuner: {builtinTunerName: PBTTuner}", True),
        ("command: x\nspace: {lr: 1}", False),
        ("command: x\nspace: {lr: 1}\nmaxTrialNumber: 3", False),
        ("populaton: 3", False),
        ("{}", False),
    ],
)
def test_whose_file_it_is(text: str, expected: bool) -> None:
    assert is_nni(yaml.safe_load(text)) is expected


def test_an_nni_experiment_survives_its_dump() -> None:
    made = config(args(factor=0.3, all_checkpoint_dir="~/c") | {"maxTrialNumber": 45})
    assert Config.restore(made.dump()) == made


REMOTE: dict[str, Any] = {
    "platform": "remote",
    "reuseMode": True,
    "trialCommand": "python3 other.py",
    "machineList": [{"host": "10.0.0.1", "user": "bob", "ssh_key_file": "~/.ssh/id_rsa"}],
}
STORAGE = {
    "storageType": "NFS",
    "localMountPoint": "/mnt/here",
    "remoteMountPoint": "/mnt/nni",
    "localMounted": "usermount",
    "nfsServer": "10.0.0.9",
    "exportedDirectory": "/export",
}


@pytest.mark.parametrize("service", [REMOTE, [REMOTE, {"platform": "kubeflow"}]])
def test_on_a_cluster_a_file_for_other_platforms_is_read_as_it_is(service: Any) -> None:
    given = V2 | {"experimentName": "digits", "trainingService": service, "sharedStorage": STORAGE}
    made, said = parse(given, Path("/exp"), "config.yml", cluster=True)
    assert (made.command, made.workers) == ("python3 other.py", 2)
    assert made.checkpoints == Path("/mnt/nni/digits/checkpoints")
    assert any("no effect, as trials run on the Ray cluster" in text for text in said)
    assert any("let /mnt/nni be mounted on every node, and here" in text for text in said)
    named = V2["tuner"] | {"classArgs": {"all_checkpoint_dir": "/mnt/mine"}}
    assert parse(given | {"tuner": named}, Path("/exp"), cluster=True)[0].checkpoints == Path(
        "/mnt/mine"
    )


BLOB = {
    "storageType": "AzureBlob",
    "localMountPoint": "/mnt/here",
    "remoteMountPoint": "/mnt/nni",
    "localMounted": "nnimount",
    "storageAccountName": "ours",
    "storageAccountKey": "c2VjcmV0",
    "containerName": "runs",
}


@pytest.mark.parametrize(
    ("root", "mounted", "where"),
    [
        (None, "nnimount", "az://runs/digits/checkpoints"),
        ("/mnt/nni/some/where", "nomount", "az://runs/some/where"),
        ("/mnt/else", "nnimount", "/mnt/else"),
        (None, "usermount", "/mnt/nni/digits/checkpoints"),
        ("/mnt/nni/some/where", "usermount", "/mnt/nni/some/where"),
    ],
)
def test_on_a_cluster_a_container_that_nobody_has_mounted_is_gone_to(
    root: str | None, mounted: str, where: str
) -> None:
    given = V2 | {"experimentName": "digits", "trainingService": REMOTE}
    given |= {"sharedStorage": BLOB | {"localMounted": mounted}}
    if root is not None:
        given["tuner"] = V2["tuner"] | {"classArgs": {"all_checkpoint_dir": root}}
    made, said = parse(given, Path("/exp"), "config.yml", cluster=True)
    assert str(made.checkpoints) == where
    assert ("AZURE_STORAGE_ACCOUNT_NAME=ours" in " ".join(said)) == where.startswith("az:")
    assert "c2VjcmV0" not in " ".join(said) + json.dumps(made.dump())


def test_on_a_cluster_version_1_is_read_as_it_is() -> None:
    given = V1 | {
        "trainingServicePlatform": "kubeflow",
        "kubeflowConfig": {"operator": "tf-operator"},
        "trial": {**V1["trial"], "worker": {"replicas": 1}},
    }
    made, said = parse(given, Path("/exp"), cluster=True)
    assert made == config(V1)
    assert "kubeflowConfig has no effect: it is for another platform" in said
