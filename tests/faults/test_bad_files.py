"""A hundred files that no experiment can be made of: refused within two seconds, in a sentence.

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
        native(space={f"x{i}": {"flaot": [0, 1]} for i in range(900)}), "and 875 more",
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
        nni(tuner={"name": "PBT", "classArgs": {"population_size": 10**11}}), "1,000,000 or less",
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
}  # fmt: skip


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


def test_there_are_a_hundred_of_them() -> None:
    assert len(FILES) >= 100


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
