"""The experiment file: what it may say, what is complained of, and the way back."""

import inspect
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config import Config, ConfigError, Problem, Ray, load, parse, read
from shoal.core.exploit import Cohort, Move, Truncation
from shoal.core.explore import Explore, Perturb, Shift
from shoal.core.records import Result
from shoal.core.space import Branch, Choice, Domain, Fixed, Float, Int, Normal, Space
from shoal.documents import shown, unknown
from shoal.experiment import idle, reworded
from tests import domains as any_

SPACE = {"lr": {"float": [1e-4, 0.1], "log": True}}
LEAST: dict[str, Any] = {"command": "python train.py", "space": SPACE}
DOCS = Path(__file__).parents[1] / "docs" / "experiment-file.md"


def problems(mapping: Mapping[str, Any], folder: Path = Path("/exp")) -> str:
    """All that is wrong with `mapping`, as a user sees it."""
    with pytest.raises(ConfigError) as caught:
        parse(mapping, folder, "config.yml")
    return str(caught.value)


def domain(raw: Any) -> Domain:
    return parse(LEAST | {"space": {"x": raw}}, Path("/exp")).space["x"]


def complaint(raw: Any) -> str:
    """What is wrong with a hyperparameter, without where it is."""
    return problems(LEAST | {"space": {"x": raw}}).removeprefix("config.yml: space.")


def test_the_least_file(tmp_path: Path) -> None:
    file = tmp_path / "digits" / "config.yml"
    file.parent.mkdir()
    file.write_text("command: python train.py\nspace: {lr: {float: [1e-4, 1e-1], log: on}}\n")
    config = load(file)
    assert config.space == Space({"lr": Float(1e-4, 0.1, log=True)})
    assert (config.name, config.directory) == ("digits", file.parent)
    assert (config.population, config.steps, config.workers) == (10, None, 1)
    assert (config.mode, config.metric, config.synchronous) == ("max", "default", True)
    assert (config.exploit, config.explore) == (Truncation(0.2), Shift(0.2, 0.25))
    assert (config.seed, config.retries, config.keep, config.warm) == (0, None, "live", True)
    assert config.gpus_per_trial is None


def test_every_key(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(
        """
        name: digits
        train: digits.train:step
        directory: code
        space: space.yml
        population: 4
        control: 1
        initial: [{lr: 0.5}]
        steps: 1e1
        workers: 2
        metric: accuracy
        mode: min
        synchronous: false
        seed: -3
        exploit: {truncation: 0.25}
        explore: {perturb: [0.5, 2], resample: 0.1}
        checkpoints: ~/checkpoints
        checkpoint_every: 5
        hold: no
        keep: lineage
        retries: 0
        timeout: 10m
        gpus_per_trial: 0.5
        gpus: [0, 2]
        trials_per_gpu: 2
        use_active_gpus: on
        preload: [torch, numpy]
        warm: off
        env: {A: x, B: 1}
        execution: {engine: ray, address: auto, cpus_per_trial: 0.5, resources: {tpu: 1}}
        track: [tensorboard, mlflow=runs]
        max_trials: 100
        max_duration: 0.5h
        target: 1
        home: /data/shoal
        """
    )
    (tmp_path / "space.yml").write_text("lr: {float: [0, 1]}\n")
    config = load(file)
    assert config == Config(
        name="digits",
        train="digits.train:step",
        directory=tmp_path / "code",
        space=Space({"lr": Float(0, 1)}),
        population=4,
        control=1,
        initial=[{"lr": 0.5}],
        steps=10,
        workers=2,
        metric="accuracy",
        mode="min",
        synchronous=False,
        seed=-3,
        exploit=Truncation(0.25),
        explore=Perturb((0.5, 2), 0.1),
        checkpoints=Path.home() / "checkpoints",
        checkpoint_every=5,
        hold=False,
        keep="lineage",
        retries=0,
        timeout=600,
        gpus_per_trial=0.5,
        gpus=[0, 2],
        trials_per_gpu=2,
        use_active_gpus=True,
        preload=["torch", "numpy"],
        warm=False,
        env={"A": "x", "B": "1"},
        execution=Ray("auto", cpus_per_trial=0.5, resources={"tpu": 1}),
        track=["tensorboard", "mlflow=runs"],
        max_trials=100,
        max_duration=1800,
        target=1,
        home=Path("/data/shoal"),
    )
    assert set(config.model_fields_set) == set(Config.model_fields) - {"command", "trainable"}
    assert Config.restore(json.loads(json.dumps(config.dump()))) == config


def test_every_key_is_documented() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    documented = {line.split("`")[1] for line in rows}
    assert set(Config.model_fields) <= documented
    described = inspect.cleandoc(Config.__doc__ or "")  # Python 3.13 has done that already
    assert all(f"\n    {name}: " in described for name in Config.model_fields)


def test_domains_made_in_python_stand_beside_written_ones() -> None:
    lr, batch = Float(1e-4, 1e-1, log=True), Choice((16, 32))
    space: Any = {"lr": lr, "batch": batch, "x": {"int": [0, 3]}, "y": 2}
    config = Config(command="true", space=space)
    assert dict(config.space) == {"lr": lr, "batch": batch, "x": Int(0, 3), "y": Fixed(2)}
    assert Config.restore(config.dump()).space == config.space


def test_every_mistake_is_told_at_once() -> None:
    wrong = {
        "populaton": 3,
        "space": {"lr": {"float": [1, 0.1]}, "x": {"float": [0, 1], "lgo": True}, "ok": 1},
        "workers": 0,
        "mode": "maximize",
        "exploit": {"truncation": 3},
        "explore": {"shift": -1, "resample": 2, "factor": 1},
        "gpus": [0, -1],
        "timeout": "soon",
    }
    assert problems(wrong).splitlines() == [
        "config.yml: expected one of command, train, trainable, got none of them",
        "config.yml: space.lr: low must be below high, got low=1, high=0.1",
        "config.yml: space.x: unknown key 'lgo'; did you mean 'log'?",
        "config.yml: workers: expected 1 or more, got 0",
        "config.yml: mode: expected 'max' or 'min', got 'maximize'",
        "config.yml: exploit.truncation: fraction must be between 0 and 1, got 3",
        "config.yml: explore: unknown key 'factor'",
        "config.yml: explore.shift: factor must be a number above 0, got -1",
        "config.yml: explore.resample: resample must be between 0 and 1, got 2",
        "config.yml: timeout: expected a time above 0 (seconds, or 30s, 10m, 0.5h, 1d), got 'soon'",
        "config.yml: gpus[1]: expected 0 or more, got -1",
        "config.yml: unknown key 'populaton'; did you mean 'population'?",
    ]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("population", "10", "population: expected a whole number, got '10'"),
        ("population", 1.5, "population: expected a whole number, got 1.5"),
        ("population", True, "population: expected a whole number, got true"),
        ("population", None, "population: expected a whole number, got null"),
        ("steps", 0, "steps: expected 1 or more, got 0"),
        ("retries", -1, "retries: expected 0 or more, got -1"),
        ("metric", "", "metric: expected some text, got ''"),
        ("metric", 3, "metric: expected text, got 3"),
        ("name", [], "name: expected text, got []"),
        ("warm", "no", "warm: expected true or false, got 'no'"),
        ("warm", 1, "warm: expected true or false, got 1"),
        ("keep", "none", "keep: expected 'live', 'all' or 'lineage', got 'none'"),
        ("target", float("nan"), "target: expected a number, got NaN"),
        ("target", "high", "target: expected a number, got 'high'"),
        ("target", False, "target: expected a number, got false"),
        ("preload", "torch", "preload: expected a list, got 'torch'"),
        ("preload", [1], "preload[0]: expected text, got 1"),
        ("gpus", 0, "gpus: expected a list, got 0"),
        ("gpus_per_trial", 1.5, ("gpus_per_trial: expected a whole number, or a fraction below 1, "
         "got 1.5")),
        ("gpus_per_trial", -1, ("gpus_per_trial: expected a whole number, or a fraction below 1, "
         "got -1")),
        ("gpus_per_trial", float("inf"), ("gpus_per_trial: expected a whole number, or a fraction "
         "below 1, got Infinity")),
        ("gpus", [1, 1], "gpus: expected each index once, got [1, 1]"),
        ("timeout", 0, "timeout: expected a time above 0 (seconds, or 30s, 10m, 0.5h, 1d), got 0"),
        ("timeout", "-1m", ("timeout: expected a time above 0 (seconds, or 30s, 10m, 0.5h, 1d), "
         "got '-1m'")),
        ("directory", 3, "directory: expected a path, got 3"),
        ("checkpoints", "~nobody-here/x", ("checkpoints: expected a path, got '~nobody-here/x': "
         "no such user")),
        ("train", "a:b", "expected one of command, train, trainable, got command and train"),
        ("exploit", "truncate", ("exploit: expected one of truncation, {truncation: ...}, "
         "got 'truncate'")),
        ("exploit", {"truncation": "all"}, "exploit.truncation: expected a number, got 'all'"),
        ("exploit", Truncation, ("exploit: expected one of truncation, {truncation: ...}, "
         f"got {Truncation}")),
        ("explore", {"perturb": 1.2}, ("explore.perturb: expected a list of factors such as "
         "[0.8, 1.2], got 1.2")),
        ("explore", {"perturb": [float("nan")]}, ("explore.perturb: expected a list of factors "
         "such as [0.8, 1.2], got [NaN]")),
        ("explore", {"shift": float("inf")}, "explore.shift: expected a number, got Infinity"),
        ("explore", {"perturb": [1.0]}, ("explore.perturb: factors must be numbers above 0 and "
         "not 1, got (1.0,)")),
        ("space", {}, "space: expected at least one hyperparameter"),
        ("space", 3, "space: expected a mapping of names, got 3"),
        ("space", {"save_checkpoint_dir": 1}, ("space.save_checkpoint_dir: is the name of a folder "
         "that shoal gives every trial; choose another")),
        ("space", {3: {"float": [0, 1]}}, ("space: expected a name, got 3; put it in quotes if it "
         "is one")),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_plain_words(field: str, value: Any, expected: str) -> None:
    assert problems(LEAST | {field: value}) == f"config.yml: {expected}"


@pytest.mark.parametrize("field", sorted(Config.model_fields))
@pytest.mark.parametrize("value", [object(), {"a": {1, 2}}, [[]], -1.5, "\n", float("nan")])
def test_no_mistake_speaks_of_the_tool_that_found_it(field: str, value: Any) -> None:
    told = ""
    try:
        Config(**(LEAST | {field: value}))
    except ConfigError as error:
        told = str(error)
    for word in ("something else", "Input", "pydantic", "validat", "type="):
        assert word not in told


def test_both_commands_or_neither() -> None:
    assert (
        problems({"space": SPACE})
        == "config.yml: expected one of command, train, trainable, got none of them"
    )
    both = LEAST | {"train": "a:b"}
    assert (
        problems(both)
        == "config.yml: expected one of command, train, trainable, got command and train"
    )
    assert problems(LEAST | {"command": None, "train": "step"}) == (
        "config.yml: train: expected module:function, got 'step'"
    )


def test_a_missing_space_is_said_to_be() -> None:
    assert problems({"command": "x"}) == "config.yml: space: is missing"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"float": [1e-4, 1e-1], "log": True}, Float(1e-4, 0.1, log=True)),
        ({"float": [0, 1], "step": 0.1}, Float(0, 1, step=0.1)),
        ({"int": [1, 4]}, Int(1, 4)),
        ({"int": [1, 400], "log": True}, Int(1, 400, log=True)),
        ({"choice": [16, "a", None, [1, 2], True]}, Choice([16, "a", None, [1, 2], True])),
        ({"normal": [0, 1]}, Normal(0, 1)),
        ({"normal": [0, 1], "log": True, "step": 0.5}, Normal(0, 1, log=True, step=0.5)),
        ({"fixed": {"float": 1}}, Fixed({"float": 1})),
        (3, Fixed(3)),
        ("adam", Fixed("adam")),
        (None, Fixed(None)),
        ([1, [2]], Fixed([1, [2]])),
        (
            {"choice": [{"_name": "sgd", "m": {"float": [0, 1]}, "k": 1}, {"_name": "adam"}, 3]},
            Choice(
                [
                    Branch("sgd", Space({"m": Float(0, 1), "k": Fixed(1)})),
                    Branch("adam", Space({})),
                    3,
                ]
            ),
        ),
        ({"choice": [{"fixed": {"_name": "sgd"}}]}, Choice([{"_name": "sgd"}])),
    ],
)
def test_a_domain_is_written_as(raw: Any, expected: Domain) -> None:
    assert repr(domain(raw)) == repr(expected)  # 1, 1.0 and True are equal, and not the same


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"flaot": [0, 1]}, ("x: expected one of float, int, normal, choice, fixed, got "
         '{"flaot": [0, 1]}; a constant that is a mapping is written {fixed: ...}')),
        ({"float": [0, 1], "int": [0, 1]}, ("x: expected one of float, int, normal, choice, fixed, "
         'got {"float": [0, 1], "int": [0, 1]}; a constant that is a mapping is written '
         "{fixed: ...}")),
        ({"float": [0]}, "x: expected float: [low, high], got [0]"),
        ({"normal": 3}, "x: expected normal: [mean, sd], got 3"),
        ({"float": [0, "b"]}, "x: high must be a number, got 'b'"),
        ({"float": [0, 1], "log": 1}, "x.log: expected true or false, got 1"),
        ({"int": [0, 1], "step": 1}, "x: unknown key 'step'"),
        ({"choice": 3}, "x: expected a list of options, got 3"),
        ({"choice": []}, "x: a choice needs a list of at least one option, got []"),
        ({"choice": [{"float": [0, 1]}]}, ("x.choice[0]: expected an option with hyperparameters "
         """of its own to have a '_name', got {"float": [0, 1]}; an option that is a mapping """
         "is written {fixed: ...}")),
        ({"choice": [1, {"_name": "a", "m": {"int": [2, 1]}}]},
         "x.choice[1].m: low must not be above high, got low=2, high=1"),
    ],
)  # fmt: skip
def test_a_wrong_domain_is_told_with_its_place(raw: Any, expected: str) -> None:
    assert complaint(raw) == expected


@given(any_.spaces, any_.explores, st.floats(0, 1))
def test_dump_and_restore_are_exact(space: Space, explore: Explore, fraction: float) -> None:
    config = Config(command="x", space=space, explore=explore, exploit=Truncation(fraction))
    dumped = json.loads(json.dumps(config.dump()))
    again = Config.restore(dumped)
    assert again == config
    assert repr(again.space) == repr(config.space)  # types and order, too
    assert again.dump() == config.dump()
    assert again.space.sample(Random(0)) == space.sample(Random(0))


def test_a_dump_has_absolute_paths_and_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    dumped = Config(**LEAST, checkpoints=Path("c"), timeout=3).dump()
    assert dumped["directory"] == "/"
    assert dumped["checkpoints"] == "/c"
    assert dumped["explore"] == {"shift": 0.2, "resample": 0.25}
    assert json.loads(json.dumps(dumped)) == dumped


def stay(own: Result | None, cohort: Cohort, rng: Random) -> Move:
    start = own or cohort[rng.randrange(len(cohort))]
    return Move(start, start.trial.hparams, explore=False)


def test_a_strategy_of_ones_own_is_taken_as_it_is_and_asked_for_again() -> None:
    config = Config(command="x", space=Space({"lr": Float(0, 1)}), exploit=stay)
    assert config.exploit is stay
    dumped = json.loads(json.dumps(config.dump()))
    with pytest.raises(ConfigError, match="exploit: was given in Python as <function stay"):
        Config.restore(dumped)
    assert Config.restore(dumped | {"exploit": stay}) == config


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"lr": {"float": [0, 1]}}')
    given = {"directory": "a", "checkpoints": "../b", "home": "/c", "space": "s.json"}
    config = parse(LEAST | given, tmp_path)
    assert config.directory == tmp_path / "a"
    assert config.checkpoints == tmp_path / "../b"
    assert config.home == Path("/c")
    assert config.space == Space({"lr": Float(0, 1)})


def test_mistakes_in_a_space_file_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "s.yml").write_text("lr: {float: [1, 0]}\nx: {int: [0]}\n")
    assert problems(LEAST | {"space": "s.yml", "workers": 0}, tmp_path).splitlines() == [
        "s.yml: lr: low must be below high, got low=1, high=0",
        "s.yml: x: expected int: [low, high], got [0]",
        "config.yml: workers: expected 1 or more, got 0",
    ]
    assert problems(LEAST | {"space": "t.yml"}, tmp_path) == "t.yml: there is no such file"


def test_the_same_in_three_languages(tmp_path: Path) -> None:
    texts = {
        "c.yml": "command: x\nsteps: 3\nspace: {lr: {float: [1e-4, 1.5e+0], log: true}}\n",
        "c.json": '{"command": "x", "steps": 3, "space": {"lr": {"float": [1e-4, 1.5], '
        '"log": true}}}',
        "c.toml": 'command = "x"\nsteps = 3\n[space]\nlr = {float = [1e-4, 1.5], log = true}\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    yml, js, toml = (load(tmp_path / name) for name in texts)
    assert yml == js == toml
    assert yml.space == Space({"lr": Float(1e-4, 1.5, log=True)})


def test_json_and_yaml_are_told_apart_by_what_is_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text('{\n\t"a": 1e-4\n}')
    (tmp_path / "b.json").write_text("a: 1e-4  # so NNI reads it\n")
    assert read(tmp_path / "a.yml") == read(tmp_path / "b.json") == {"a": 1e-4}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("c.yml", "a: 1\nb: [1, 2\n",
         "line 3, column 1: not YAML: did not find expected ',' or ']'"),
        ("c.yml", "a: 1\nb:\n  c: 1\n  c: 2\na: 3\n",
         "line 4, column 3: 'c' is given twice\n{file}: line 5, column 1: 'a' is given twice"),
        ("c.yml", "- 1\n", "expected a mapping of keys to values, got [1]"),
        ("c.yml", "1: a\n", "expected a name, got 1; put it in quotes if it is one"),
        ("c.yml", "a: !!python/object:os.system x\n", ("line 1, column 4: not YAML: could not "
         "determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'")),
        ("c.yml", "a: 2024-13-01\n", "not YAML: month must be in 1..12"),
        ("c.yml", "a: \x00\n", None),
        ("c.json", '{"a": 1,\n"b" 2}', "line 2, column 5: not JSON: Expecting ':' delimiter"),
        ("c.json", '{"a": 1, "a": 2}', "'a' is given twice"),
        ("c.toml", "a = \n", "not TOML: Invalid value (at line 1, column 5)"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_in_its_language(
    tmp_path: Path, name: str, text: str, expected: str | None
) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(file)
    told = str(caught.value)
    assert told.startswith(f"{file}: ")
    assert "Traceback" not in told
    assert expected is None or told == f"{file}: {expected}".replace("{file}", str(file))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yml").write_bytes(b"a: \xe9\n")
    for path, expected in (
        (tmp_path / "none.yml", "there is no such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "latin.yml", "expected text in UTF-8"),
    ):
        with pytest.raises(ConfigError) as caught:
            read(path)
        assert str(caught.value) == f"{path}: {expected}"


def test_an_empty_file_lacks_everything(tmp_path: Path) -> None:
    file = tmp_path / "c.yml"
    file.write_text("# nothing\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert [p.message for p in caught.value.problems] == [
        "expected one of command, train, trainable, got none of them",
        "is missing",
    ]


def test_yaml_numbers_and_merged_mappings(tmp_path: Path) -> None:
    file = tmp_path / "c.yml"
    file.write_text(
        "a: [1e-4, 1E5, -1e3, .5e1, 1.e2, 1e-4x, e5]\nb: &b {x: 1, y: 2}\nc: {<<: *b, y: 3}\n"
    )
    content = read(file)
    assert content["a"] == [1e-4, 1e5, -1e3, 5.0, 100.0, "1e-4x", "e5"]
    assert content["c"] == {"x": 1, "y": 3}


def test_an_error_survives_pickling() -> None:
    error = ConfigError([Problem("a", "b")], "c.yml")
    again = pickle.loads(pickle.dumps(error))
    assert (again.problems, again.source, str(again)) == (error.problems, "c.yml", "c.yml: a: b")


def test_a_config_cannot_be_changed() -> None:
    config = Config(command="x", space=Space({"lr": Float(0, 1)}))
    with pytest.raises(ValueError, match="frozen"):
        config.population = 3


def test_long_and_strange_values_are_shown_short() -> None:
    assert len(shown(list(range(1000)))) == 60
    assert shown("a" * 1000).endswith("...")
    assert shown(None) == "null"
    assert unknown("zzz", ["population"]) == "unknown key 'zzz'"


@pytest.mark.parametrize(
    ("execution", "said"),
    [
        ("slurm", 'execution: expected "local", "ray", or a mapping with one as engine'),
        ({"address": "auto"}, 'execution: expected "local", "ray", or a mapping'),
        ({"engine": "ray", "adress": "auto"}, "execution: unknown key 'adress'"),
        ({"engine": "ray", "cpus_per_trial": -1}, "execution.cpus_per_trial: expected 0 or more"),
        ({"engine": "ray", "resources": {"tpu": 0}}, "resources.tpu: expected a number above 0"),
        ({"engine": "ray", "runtime_env": [1]}, "execution.runtime_env: expected a mapping"),
        ({"engine": "local", "address": "auto"}, "execution: expected"),
    ],
)
def test_where_trials_run(execution: object, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        Config(command="true", space={"x": {"float": [0, 1]}}, execution=execution)  # type: ignore[arg-type]


def test_on_a_cluster_ray_hands_out_gpus() -> None:
    words: Any = {"command": "true", "space": {"x": {"float": [0, 1]}}, "trials_per_gpu": 2}
    assert idle(Config(**words)) is None
    assert idle(Config(**{**words, "trials_per_gpu": 1}, execution=Ray())) is None
    said = idle(Config(**words, gpus=[0], execution=Ray()))
    assert said is not None
    assert said.startswith("gpus, trials_per_gpu: no effect on a cluster")


def test_on_a_cluster_all_members_run_at_a_time() -> None:
    words: Any = {"command": "true", "space": {"x": {"float": [0, 1]}}, "population": 7}
    ray: Any = "ray"
    here: Any = {"engine": "local"}
    assert Config(**words, execution=ray).workers == 7
    assert Config(**words, execution=here).workers == 1
    assert Config(**words, execution=ray, workers=3).workers == 3
    plain = Config(**words)
    assert reworded(plain, {"execution": "ray"}).workers == 7
    there = reworded(plain, {"execution": Ray(resources={"tpu": 2})})
    moved = reworded(there, {"execution": {"engine": "ray", "address": "auto"}}).execution
    assert moved == Ray("auto", resources={"tpu": 2})
    assert reworded(there, {"execution": {"engine": "local"}}).execution is None
