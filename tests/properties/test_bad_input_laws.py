"""Whatever comes from outside is understood or refused in words: files, reports, journals."""

import json
import shutil
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shoal
from shoal.config import Config, ConfigError, parse
from shoal.controller import tuner_of
from shoal.core.records import Failed, Finished, Trial
from shoal.core.space import Space
from shoal.experiment import read_config
from shoal.home import ExperimentError, Folder
from shoal.notation import parse_space
from shoal.repair import repair
from shoal.runners.outcome import Objective, Reported, judge
from shoal.stores.sqlite import SqliteStore, StoreError
from tests.faults.test_bad_files import GOOD, NNI
from tests.lab import experiment

FULL: dict[str, Any] = GOOD | {
    "space": {
        "lr": {"float": [0.001, 0.5], "log": True},
        "n": {"int": [1, 9]},
        "opt": {"choice": [{"_name": "sgd", "m": {"float": [0, 1], "step": 0.1}}, "adam"]},
        "w": {"normal": [0, 1]},
        "c": 3,
    },
    "exploit": {"truncation": 0.25},
    "explore": {"perturb": [0.8, 1.2], "resample": 0.1},
    "timeout": "10m", "env": {"A": "1"}, "gpus": [0], "preload": ["json"], "target": 0.5,
}  # fmt: skip
YAML = "\n".join(f"{key}: {json.dumps(value)}" for key, value in FULL.items())
TOML = 'command = "true"\npopulation = 2\nsteps = 1\n[space]\nlr = {float = [0.001, 0.5]}\n'
DOCUMENTS = {"yml": YAML, "json": json.dumps(FULL), "toml": TOML, "nni.json": json.dumps(NNI)}
strange = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(("", "~", "lr", 1e308, -1, 0, 2**63, "_name", "\0", "\ud800", "1e999")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(tuple(FULL)), inner, max_size=4)
        | st.dictionaries(st.sampled_from(("float", "int", "choice", "normal", "fixed", "log",
                                           "_type", "_value", "_name")), inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip
edits = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 12), st.text(max_size=4)
              | st.sampled_from(("[", "]", "{", "}", ":", "\n", "  ", "- ", "&a", "*a", "!!", "\t",
                                 "'", '"', "null", "1e9999", "<<: ", "#", "\0", "\ufeff", "?"))),
    min_size=1, max_size=4,
)  # fmt: skip


def edited(text: str, edits: list[tuple[int, int, str]]) -> str:
    for at, length, new in edits:
        here = at % (len(text) + 1)
        text = text[:here] + new + text[here + length :]
    return text


def replaced(document: Any, path: list[int], new: Any) -> Any:
    """`document` with `new` somewhere in it, or beside it."""
    if not path or not isinstance(document, dict | list) or not document:
        return new
    step, rest = path[0], path[1:]
    if isinstance(document, list):
        here = step % len(document)
        return [*document[:here], replaced(document[here], rest, new), *document[here + 1 :]]
    key = list(document)[step % len(document)]
    return {**document, key: replaced(document[key], rest, new)}


def told(error: ConfigError, file: str = "") -> None:
    """That an error is one that a user can do something with, and names the file."""
    assert file in str(error) or any(problem.source for problem in error.problems)
    assert error.problems
    assert all(problem.message for problem in error.problems)
    assert len(str(error)) < 20_000


@given(st.sampled_from(tuple(DOCUMENTS)), edits)
@settings(max_examples=120)
def test_a_file_with_mistakes_is_read_or_refused(kind: str, edits: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"config.{kind}"
        path.write_text(edited(DOCUMENTS[kind], edits), encoding="utf-8", errors="surrogatepass")
        try:
            config, _ = read_config(path)
        except ConfigError as error:
            told(error, path.name)
        else:
            assert Config.restore(json.loads(json.dumps(config.dump()))).dump() == config.dump()


@given(st.sampled_from((FULL, NNI)), st.lists(st.integers(0, 20), max_size=4), strange)
@settings(max_examples=120)
def test_a_strange_value_anywhere_is_understood_or_refused(
    document: dict[str, Any], path: list[int], new: Any
) -> None:
    changed = replaced(document, path, new)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(changed), encoding="utf-8", errors="surrogatepass")
        try:
            config, _ = read_config(file)
        except ConfigError as error:
            told(error)
        else:
            assert Config.restore(json.loads(json.dumps(config.dump()))).dump() == config.dump()
    if isinstance(changed, dict):  # and so it is from Python
        with suppress(ConfigError):
            parse(changed, Path("/"))


@given(strange)
@settings(max_examples=120)
def test_anything_is_a_space_or_refused(raw: Any) -> None:
    try:
        space = parse_space(raw)
    except ConfigError as error:
        told(error)
    else:
        assert isinstance(space, Space)


LINES = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda value: json.dumps({"final": value}).encode(), strange),
    st.builds(lambda value: json.dumps({"intermediate": value, "rank": value}).encode(), strange),
    st.builds(lambda value: json.dumps(value).encode(), strange),
    st.just(b'{"final": 0.5}'),
)


@given(st.lists(LINES, max_size=5), st.booleans())
@settings(max_examples=120)
def test_whatever_a_trial_reports_it_has_finished_or_failed(lines: list[bytes], cut: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "metrics.jsonl"
        file.write_bytes(b"\n".join(lines) + (b"" if cut else b"\n"))
        reported = Reported(file)
        json.dumps(reported.read())  # what is shown can be kept
        report = judge(
            Trial(0, 0, 0, {}, None), 0, reported.finals, Objective(), saved=True, timeout_s=None,
            stderr=Path(folder) / "stderr", problem=reported.problem,
        )  # fmt: skip
        assert isinstance(report, Finished | Failed)
        assert isinstance(report, Finished) or report.reason


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small experiment."""
    config = experiment(tmp_path_factory.mktemp("journal"))
    return shoal.run(config, verbose=False).folder.path


bites = st.lists(st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=30)), max_size=8)


@given(bites, st.sampled_from((None, 0.3, 0.9)))
@settings(max_examples=80)
def test_a_journal_with_bytes_changed_is_read_or_refused(
    journal: Path, bites: list[tuple[int, bytes]], part: float | None
) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root) / "bitten")
        shutil.copytree(journal, folder.path)
        data = bytearray(folder.journal.read_bytes())
        for at, new in bites:
            here = at % len(data)
            data[here : here + len(new)] = new
        folder.journal.write_bytes(data[: int(part * len(data))] if part else data)
        result = shoal.Result(folder)
        for look in (result.trials, result.status, result.brief, result.export):
            with suppress(ExperimentError):
                look()
        with (
            suppress(StoreError, ExperimentError, ConfigError),
            closing(SqliteStore(folder.journal)) as store,
        ):
            tuner_of(Config.restore(result.config), store)
        with suppress(ExperimentError):
            repair(folder, bool)
            assert repair(folder, lambda _: False).sound, "once is enough"
