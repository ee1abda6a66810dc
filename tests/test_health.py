"""What is said of a run that may be going wrong, and that nothing is said of one that is not."""

import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given

import shoal
from shoal import controller
from shoal.failures import cause
from shoal.health import Seen, findings
from shoal.stores.base import Entry
from shoal.stores.sqlite import SqliteStore
from shoal.views import Row, table
from tests.lab import TOY, experiment, log_of
from tests.play import Play
from tests.properties.test_tuner_laws import Setting, settings

SPACE = {
    "lr": {"float": [1e-4, 1.0], "log": True},
    "n": {"int": [1, 9]},
    "opt": {"choice": ["a", "b"]},
}


def row(id: int, member: int, step: int, metric: float | None = 0.5, **words: Any) -> Row:
    given: dict[str, Any] = {
        "hparams": {"lr": 0.01, "n": 3, "opt": "a"}, "parent": None, "metrics": {},
        "state": "running" if metric is None else "finished", "checkpoint": None, "attempt": 1,
        "started": 10.0 * step, "ended": None if metric is None else 10.0 * step + 5, "error": None,
    }  # fmt: skip
    return Row(id=id, member=member, step=step, metric=metric, **(given | words))


def seen(rows: list[Row], **words: Any) -> Seen:
    given: dict[str, Any] = {"population": 8, "higher": True, "synchronous": True, "space": SPACE}
    return Seen(rows=rows, **(given | words))


def said(rows: list[Row], **words: Any) -> dict[str, str]:
    return {finding.key: finding.text for finding in findings(seen(rows, **words))}


def test_a_control_arm_that_is_ahead_is_told() -> None:
    def run(lead: float, steps: int = 3, **words: Any) -> dict[str, str]:
        rows = [
            row(
                8 * step + m,
                m,
                step,
                step + (lead if m == 6 else 0.0 if m == 7 else 0.01 * m),
                parent=None,
            )
            for step in range(steps)
            for m in range(8)
        ]
        return said(rows, control=2, **words)

    assert "better by 0.95 than the best of 6 others" in run(1.0)["control"]
    assert "control" not in run(-1.0) | run(1.0, steps=1)
    assert "control" in run(-1.0, higher=False)


def calm(steps: int = 6) -> list[Row]:
    """A run in which all is well: eight members that get better, and copy nobody."""
    rng, rows = Random(0), list[Row]()
    for step in range(steps):
        for member in range(8):
            id = len(rows)
            hparams = {"lr": 0.003 * (member + 1), "n": 1 + member, "opt": "ab"[member % 2]}
            parent = None if step == 0 else id - 8
            score = step + 0.1 * member + 0.01 * rng.random()
            rows.append(row(id, member, step, score, hparams=hparams, parent=parent))
    return rows


def test_nothing_is_said_of_a_run_that_is_well() -> None:
    assert said(calm()) == {}
    assert said([]) == {}


@pytest.mark.parametrize(
    ("name", "value", "which"), [("lr", 1.0, "upper"), ("lr", 1e-4, "lower"), ("n", 9, "upper")]
)
def test_a_hyperparameter_at_its_bound_in_most_members(name: str, value: Any, which: str) -> None:
    rows = [replace(r, hparams={**r.hparams, name: value}) if r.member < 6 else r for r in calm()]
    found = said(rows)
    assert list(found) == [f"pinned {name} {which}"]
    assert f"{name} is at its {which} bound, {value:g}, in 6 of 8 members" in found.popitem()[1]
    fewer = [replace(r, hparams={**r.hparams, name: value}) if r.member < 5 else r for r in calm()]
    assert said(fewer) == {}


def copying(rows: list[Row], gap: float, after: float, *, explored: bool) -> list[Row]:
    """`rows`, in which member 0 copies member 7, better by `gap`, and is better by `after` then."""
    made = []
    for r in rows:
        if r.member == 0 and r.step > 0:
            donor = rows[8 * (r.step - 1) + 7]
            lr = donor.hparams["lr"] * (1.2 if explored else 1)
            hparams = {**donor.hparams, "lr": lr}
            r = replace(r, parent=donor.id, metric=after * r.step, hparams=hparams)  # noqa: PLW2901
        elif r.member in {0, 7}:
            r = replace(r, metric=after * r.step + (gap if r.member else 0))  # noqa: PLW2901
        made.append(r)
    return made


def test_copies_that_explore_nothing() -> None:
    assert said(copying(calm(9), 1.0, 2.0, explored=True)) == {}
    found = said(copying(calm(9), 1.0, 2.0, explored=False))
    assert list(found) == ["explore"]
    assert "explore changed nothing in 8 of the last 8 copies" in found["explore"]


def test_copies_that_come_out_no_better() -> None:
    found = said(copying(calm(9), 1.0, -0.5, explored=True))
    assert list(found) == ["luck"]
    assert "8 of the last 8 copies came out no better" in found["luck"]


def shaken(rows: list[Row], by: float) -> list[Row]:
    rng = Random(1)
    return [replace(r, metric=(r.metric or 0.0) + by * (rng.random() - 0.5)) for r in rows]


def test_exploits_inside_the_noise() -> None:
    found = said(shaken(copying(calm(9), 0.3, 2.0, explored=True), 4.0))
    assert "noise" in found
    assert "they may be coin flips" in found["noise"]
    assert "noise" not in said(copying(calm(9), 3.0, 2.0, explored=True))


def test_lower_may_be_better() -> None:
    rows = [replace(r, metric=-(r.metric or 0.0)) for r in copying(calm(9), 1, 2, explored=True)]
    assert said(rows, higher=False) == {}
    assert "luck" in said(rows, higher=True)


def test_a_member_that_is_slow() -> None:
    rows = [replace(r, ended=r.started + 60) if r.member == 3 else r for r in calm()]
    assert said(rows) == {
        "slow 3": "member 3 takes 60 s a step, the others 5 s, and all wait for it"
    }
    assert "wait" not in said(rows, synchronous=False)["slow 3"]
    quick = [replace(r, ended=r.started + (4 if r.member == 3 else 1)) for r in calm()]
    assert said(quick) == {}, "nobody minds three seconds"


def test_a_trial_that_is_late() -> None:
    rows = [*calm(), row(48, 3, 6, None, parent=43)]
    assert said(rows, now=80.0) == {}
    found = said(rows, now=200.0)
    assert list(found) == ["late 48"]
    assert "trial 48 (member 3, step 6) has run for 140 s, and trials take 5" in found["late 48"]


def test_one_ancestor() -> None:
    root = row(11, 5, 2)
    found = said(calm(), ancestor=root)
    assert found == {
        "descent": "all 8 members descend from member 5 as it was after step 2: what the others "
        "had learned until then is gone"
    }
    assert said(calm(), ancestor=root, population=2) == {}


OOM = "crash: exit code 1\n  torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"


@pytest.mark.parametrize(
    ("hparams", "where"),
    [({"n": 7}, "n ≥ 7"), ({"lr": 0.0001}, "lr ≤ 0.0001"), ({"opt": "c"}, "opt = c")],
)
def test_a_region_in_which_all_trials_fail(hparams: dict[str, Any], where: str) -> None:
    rows = [r for r in calm() if r.hparams["n"] < 7 and r.member]
    bad = [
        row(100 + n, 6, n, None, state="failed", error=OOM, hparams={**rows[0].hparams, **hparams})
        for n in range(9)
    ]
    assert said([*rows, *bad])[f"fails {where}"] == f"{where} failed 9 of 9 times: out of memory"
    lost = [replace(r, error="lost: its process was lost") for r in bad]
    assert said([*rows, *lost]) == {}, "a machine's failure is no region's"
    well = [*rows, *bad, row(200, 6, 9, hparams=bad[0].hparams)]
    assert said(well) == {}, "one went well there"
    assert said([*rows, *bad[:2]]) == {}, "two are bad luck"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OOM, "out of memory"),
        ("crash: MemoryError\nTraceback ...", "out of memory"),
        ("killed: it was ended by SIGKILL, as the machine does when its memory runs out",
         "killed, perhaps for want of memory"),
        ("crash: exit code 1\n  Traceback\n  ValueError: no good", "ValueError: no good"),
        ("crash: ValueError: no good\n  File ...", "ValueError: no good"),
        ("nan: its final result is nan", "nan"), ("timeout: it ran longer", "timeout"),
        ("lost: gone", "lost"), ("crash: ", "crash"),
    ],
)  # fmt: skip
def test_a_cause_in_a_few_words(error: str, told: str) -> None:
    assert cause(error) == told


@given(settings())
def test_it_can_be_asked_of_any_run(setting: Setting) -> None:
    play = Play(setting.tuner(), setting.luck, 2).run(limit=60)
    entries = [Entry(float(at), record) for at, record in enumerate(play.journal)]
    for alive in (True, False):
        rows = table(entries, "max", alive=alive)
        for finding in findings(seen(rows, population=setting.population, now=1e4)):
            assert len(finding.text) < 300


@given(settings(failing=0.0))
def test_the_ancestor_of_all(setting: Setting) -> None:
    play = Play(setting.tuner(), setting.luck, 2).run(limit=80)
    population = play.tuner.population
    newest = [r.trial for m in range(population.size) if (r := population.newest(m)) is not None]
    lines = [{t.id for t in population.lineage(trial)} for trial in newest]
    common = set.intersection(*lines) if lines else set()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(SqliteStore.create(Path(folder) / "journal.db", {})) as store,
    ):
        for record in play.journal:
            store.append(record)
        store.commit()
        found = store.ancestor([trial.id for trial in newest])
        assert found == (max(common) if common else None)
        if found is not None:
            assert store.ancestor([trial.id for trial in newest], since=found + 1) is None


def test_it_is_said_while_it_runs_and_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "HEALTH_S", 0.0)
    monkeypatch.setattr(controller, "HEARTBEAT_S", 0.0)
    line = "p = nni.get_next_parameter()\n"
    fails = TOY.replace(line, f"{line}if p['h0'] > 0.6: raise MemoryError('too large')\n")
    result = shoal.run(experiment(tmp_path, fails, population=8, steps=4, retries=0), verbose=False)
    told = [finding.text for finding in result.findings]
    assert any(text.endswith("times: out of memory") and text.startswith("h0 ≥ ") for text in told)
    assert result.status()["health"] == told
    logged = [line for line in log_of(result) if "out of memory" in line]
    assert logged, "it was said while it ran"
    assert len(logged) == len(set(logged)), "each once"
