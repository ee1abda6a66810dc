"""Warm workers, through real runs: what is held, saved and made again, and what goes wrong."""

import copy
import importlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from shoal.config import ConfigError
from shoal.core.records import Finished, Hparams
from shoal.history import History
from shoal.home import Folder
from shoal.orders import Order, put
from shoal.orders import waiting as waiting_orders
from tests.lab import SPACE, log_of, run, told, until
from tests.toys import Broken, Killed, Late, Stopping, Stuck, Theta, Toy, function


# the one returns a number, the other a mapping
@pytest.mark.parametrize(("form", "metric"), [("trainable", "default"), ("function", "quality")])
def test_the_journal_is_the_same_however_many_work(tmp_path: Path, form: str, metric: str) -> None:
    work = Toy(tmp_path / "diary") if form == "trainable" else function
    ways: list[dict[str, Any]] = [{"workers": n} for n in (1, 2, 4)] + [{"inline": True}]
    results = [run(work, tmp_path, metric=metric, seed=3, population=8, **way) for way in ways]
    assert {result.state for result in results} == {"done"}
    first, *others = map(told, results)
    assert len(first) == 40
    assert any(row["parent"] is not None for row in first)
    assert all(other == first for other in others)
    best = results[0].best
    assert best is not None
    assert best.checkpoint is not None


def test_who_imports_a_library_and_when_changes_nothing(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {"workers": 3}, {"workers": 2, "preload": ["sklearn.utils", "torch"]}, {"inline": True},
    ]  # fmt: skip
    first, *others = [told(run(Late, tmp_path, steps=4, seed=4, **way)) for way in ways]
    h0 = [row["parameter"]["h0"] for row in first if row["step"] == 1]
    assert min(h0) <= 0.5 < max(h0), "some need numpy then, and some do not"
    assert all(other == first for other in others)


# Sets an environment that a library reads as it is imported, once it gets there.
EARLY = """
import os

class Early:
    def init(self, hparams, seed):
        return 0

    def step(self, state, hparams):
        if state == 1:
            os.environ["OMP_NUM_THREADS"] = "1"
            import torch

            assert torch.get_num_threads() == 1
        return state + 1, hparams["h0"]

    def save(self, state, path):
        (path / "state").write_text(str(state))

    def load(self, path):
        return int((path / "state").read_text())
"""


# what torch brings along is in the second one imported under another environment than torch
@pytest.mark.parametrize("first", [pytest.param("", marks=pytest.mark.soak), "import numpy\n"])
def test_an_environment_that_comes_before_an_import_costs_no_trial(
    tmp_path: Path, first: str
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "early.py").write_text(first + EARLY)
    config = shoal.Config(
        trainable="early:Early", directory=tmp_path, space=SPACE, population=4, steps=4, workers=2,
        preload=["torch"], retries=0, home=tmp_path / "home",
    )  # fmt: skip
    result = shoal.run(config)
    assert {row.state for row in result.trials()} == {"finished"}
    (line,) = [line for line in log_of(result) if "began anew" in line]
    assert "worker-" in line
    assert "torch reads OMP_NUM_THREADS='1'" in line


def alone(work: Toy, line: list[shoal.Trial], seeds: list[int]) -> list[float]:
    """The scores of a member that trains without shoal, and copies nobody."""
    random.seed(seeds[0])
    state, scores = work.init(line[0].hparams, seeds[0]), []
    for trial in line:
        state, score = work.step(state, trial.hparams)
        scores.append(score)
    return scores


def test_who_copies_nobody_trains_as_without_shoal(tmp_path: Path) -> None:
    work = Toy(tmp_path / "diary")
    result = run(work, tmp_path, steps=12, seed=5)
    rows = result.trials()
    copied = result.copies(rows)
    seeds = iter([line[2] for line in work.notes("init")])
    seen = 0
    started = [row.member for row in sorted(rows, key=lambda row: row.started) if row.step == 0]
    assert sorted(started) == [0, 1, 2, 3]
    by_seed = set(seeds)
    for member in range(4):
        own = [row for row in rows if row.member == member]
        until = next((i for i, row in enumerate(own) if row.id in copied), len(own))
        line: Any = own[:until]
        scores = [row.metric for row in line]
        found = [s for s in by_seed if alone(copy.copy(work), line, [s]) == scores]
        assert len(found) == 1, "bit by bit, its random numbers included"
        seen += until
    assert seen >= 8


def test_who_goes_on_is_neither_saved_nor_loaded(tmp_path: Path) -> None:
    work = Toy(tmp_path / "diary")
    result = run(work, tmp_path, workers=1, steps=40, checkpoint_every=1000)
    assert result.state == "done"
    assert not work.notes("load")
    assert len(work.notes("init")) == 4
    best = result.best
    assert best is not None
    lives = {row.member for row in result.trials() if row.step == 39} | {best.lineage[-1].member}
    looked = 2  # once in a worker: a copy is saved as what it is copied from
    saves = len(work.notes("save")) - looked
    assert saves <= len(lives) + 1, "at the end, whoever lives, and the best"
    remade = [line for line in log_of(result) if "trained again" in line]
    assert len(remade) <= 1, remade


@pytest.mark.parametrize("every", [1, 3])
def test_checkpoints_are_as_often_as_asked(tmp_path: Path, every: int) -> None:
    work = Toy(tmp_path / "diary")
    run(work, tmp_path, workers=1, steps=9, checkpoint_every=every, keep="all")
    there = {f"{p.parent.name}/{p.name}" for p in tmp_path.glob("home/*/checkpoints/*/*")}
    wanted = {f"{m}/{s}" for m in range(4) for s in range(9) if (s + 1) % every == 0}
    assert wanted <= there


def test_states_need_not_be_held(tmp_path: Path) -> None:
    work = Toy(tmp_path / "diary")
    held = run(Toy(tmp_path / "other"), tmp_path, seed=3)
    result = run(work, tmp_path, seed=3, hold=False)
    assert told(result) == told(held)
    assert len(work.notes("save")) == 20
    assert len(work.notes("load")) == 16, "all but the first step's"
    with result.folder.open() as store:
        assert all(record.saved for _, record in store.read() if isinstance(record, Finished))


def slow(toy: type[Toy], seconds: float) -> type[Toy]:
    class Slow(toy):  # type: ignore[misc,valid-type]
        def step(self, state: Theta, hparams: Hparams) -> Any:
            time.sleep(seconds)
            return super().step(state, hparams)

    return Slow


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("every", ["auto", 4, 1000])
def test_a_worker_that_is_killed_costs_one_retry(tmp_path: Path, workers: int, every: Any) -> None:
    words: dict[str, Any] = {"steps": 10, "seed": 2, "checkpoint_every": every}
    whole = run(Toy(tmp_path / "diary"), tmp_path, **words)
    work = Killed(tmp_path / "diary2")
    result = run(work, tmp_path, workers=workers, **words)
    assert result.state == "done"
    assert told(result) == told(whole)
    attempts = [row.attempt for row in result.trials()]
    assert sorted(attempts)[-2:] == [1, 2], "one retry, and nothing else"
    (row,) = [row for row in result.trials() if row.attempt == 2]
    assert row.error is not None
    assert "the worker that trained it was ended by SIGKILL" in row.error
    assert any("trained again" in line for line in log_of(result)) or work.notes("load")


def test_what_a_worker_that_is_killed_was_still_to_be_told_is_done(tmp_path: Path) -> None:
    """Steps are so slow that it is told of a few of those that go on from what it holds."""
    words: dict[str, Any] = {"population": 6, "steps": 8, "seed": 2, "max_duration": 30}
    whole = run(Toy(tmp_path / "diary"), tmp_path, **words)
    result = run(slow(Killed, 0.03)(tmp_path / "diary2"), tmp_path, workers=1, **words)
    assert told(result) == told(whole)


def test_a_checkpoint_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    whole = run(Toy(tmp_path / "diary"), tmp_path, steps=8, seed=2)
    half = run(Toy(tmp_path / "diary"), tmp_path, steps=4, seed=2)
    for path in half.checkpoints.glob("*/*/state.json"):
        path.parent.rename(path.parent.with_name("gone"))
    result = shoal.resume(Toy(tmp_path / "diary"), half.id, steps=8, home=tmp_path / "home")
    assert told(result) == told(whole)
    assert any("trained again" in line for line in log_of(result))


def test_an_exception_is_a_failed_trial_with_its_traceback(tmp_path: Path) -> None:
    result = run(Broken(tmp_path / "diary"), tmp_path, retries=0, population=8, seed=1)
    assert result.state == "done"
    failed = [row for row in result.trials() if row.state == "failed"]
    assert failed
    for row in failed:
        assert row.error is not None
        assert row.error.startswith("crash: ValueError: no good: ")
        assert 'raise ValueError(f"no good' in row.error
        assert "runners/worker" not in row.error, "what is ours is not shown"
        printed = result.folder.trial(row.id, row.attempt) / "stdout"
        assert printed.read_text() == "about to break\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("state", "TypeError: step is to return (state, score), and returned {'theta'"),
        ("(state, 'good')", "bad result: expected a number, or a mapping with a number under"),
        ("(state, float('nan'))", "nan: its final result is nan"),
        ("(state, None)", "bad result"),
        ("exit(3)", "crash: SystemExit: 3"),
    ],
)
def test_a_step_that_returns_what_is_no_score(tmp_path: Path, answer: str, said: str) -> None:
    class Odd(Toy):
        def step(self, state: Theta, hparams: Hparams) -> Any:
            return eval(answer)

    result = run(Odd(tmp_path / "diary"), tmp_path, retries=0)
    assert result.state == "failed"
    error = result.trials()[0].error
    assert error is not None
    assert said in error


def test_a_step_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    result = run(Stuck(tmp_path / "diary"), tmp_path, timeout=0.5)
    assert result.state == "done"
    (row,) = [row for row in result.trials() if row.attempt == 2]
    assert row.error == "timeout: it ran longer than 0.5 s"


def test_a_save_that_takes_too_long_is_ended_too(tmp_path: Path) -> None:
    class Stuck(Toy):
        def save(self, state: Theta, path: Path) -> None:
            with suppress(FileExistsError):  # one alone
                self.diary.with_name("stuck").touch(exist_ok=False)
                time.sleep(600)
            super().save(state, path)

    result = run(Stuck(tmp_path / "diary"), tmp_path, timeout=0.5, retries=0)
    assert {row.state for row in result.trials()} == {"finished"}
    assert result.best is not None
    assert result.best.checkpoint is not None


def test_hyperparameters_that_are_not_in_force_are_an_error(tmp_path: Path) -> None:
    class Deaf(Toy):
        def init(self, hparams: Hparams, seed: int) -> Theta:
            return {**super().init(hparams, seed), "h0": hparams["h0"]}  # for good

        def applied(self, state: Theta) -> Mapping[str, float]:
            return {"h0": state["h0"]}

    result = run(Deaf(tmp_path / "diary"), tmp_path, retries=0, seed=1)
    failed = [row.error for row in result.trials() if row.state == "failed"]
    assert failed
    assert all((e or "").startswith("not applied: h0 is not in force") for e in failed)
    assert all("asked for " in (e or "") and ", and found 0." in (e or "") for e in failed)


def test_what_cannot_be_sent_is_named_before_anything_begins(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        with pytest.raises(shoal.ExperimentError, match=r"as file cannot be: [Cc]annot pickle"):
            run(lambda _: file.name, tmp_path)
        toy = Toy(tmp_path / "diary")
        toy.log = {"to": file}  # type: ignore[attr-defined]
        with pytest.raises(shoal.ExperimentError, match=r"Toy cannot be sent .*as log\.to cannot"):
            run(toy, tmp_path)
    assert not list(tmp_path.glob("home/*"))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda: 1, "is to be called with one argument, the trial"),
        (lambda _, __: 1, "is to be called with one argument, the trial"),
        (3, r"expected a function or a trainable \(init, step, save, load\), got builtins:int"),
        (type("Half", (), {"init": print, "step": print}), "has init, step, and lacks save, load"),
        (type("Part", (shoal.Trainable,), {"step": print}), "has step, and lacks init, save, load"),
        (shoal.Trainable, "lacks init, step, save, load"),
        (dict, "expected a function or a trainable"),
    ],
)
def test_what_is_nothing_to_train_is_refused(tmp_path: Path, what: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(what, tmp_path)
    assert not list(tmp_path.glob("home/*"))


def test_a_word_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'populatoin'; did you mean 'population'"):
        run(function, tmp_path, populatoin=3)


@pytest.mark.parametrize(
    ("synchronous", "number"),
    [(True, signal.SIGINT), (False, signal.SIGINT), (True, signal.SIGTERM)],
)
def test_an_interrupt_leaves_what_can_be_resumed(
    tmp_path: Path, synchronous: bool, number: int
) -> None:
    (tmp_path / "controller").write_text(f"{os.getpid()} {number}")
    words: dict[str, Any] = {"seed": 4, "steps": 6, "synchronous": synchronous}
    half = run(Stopping(tmp_path / "diary"), tmp_path, name="half", **words)
    assert (half.state, half.reason) == ("stopped", "interrupted")
    before = len(half.trials())
    assert before < 24
    with pytest.raises(shoal.ExperimentError, match=r"has another space.*h1"):
        shoal.resume(
            Toy(tmp_path / "diary"), half.id, space={"h0": SPACE["h0"]}, home=tmp_path / "home"
        )
    work = Toy(tmp_path / "second")
    whole = shoal.resume(work, half.id, space=SPACE, home=tmp_path / "home")
    assert whole.state == "done"
    assert not work.notes("init"), "all was saved at the stop"
    assert len(whole.trials()) == 24
    if synchronous:
        again = run(Toy(tmp_path / "third"), tmp_path, name="whole", **words)
        assert told(whole) == told(again)


def test_without_what_it_trains_it_cannot_go_on(tmp_path: Path) -> None:
    result = run(lambda trial: trial.hparams["h0"], tmp_path)
    with pytest.raises(shoal.ExperimentError, match=r"given in Python, as .*: go on from there"):
        shoal.resume(result.id, steps=9, home=tmp_path / "home")


MODULE = """
class Up:
    def init(self, hparams, seed): return 0.0
    def step(self, x, hparams): return x + hparams["h0"], x + hparams["h0"]
    def save(self, x, path): (path / "x").write_text(repr(x))
    def load(self, path): return float((path / "x").read_text())
"""


def test_a_file_may_name_a_trainable(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    file = tmp_path / "config.yml"
    file.write_text(
        "trainable: mine:Up\nspace: {h0: {float: [0, 1]}}\npopulation: 4\nsteps: 3\nworkers: 2\n"
    )
    result = shoal.run(file, home=tmp_path / "home")
    assert result.state == "done"
    assert shoal.resume(result.id, steps=5, home=tmp_path / "home").progress.finished == 20
    file.write_text(file.read_text().replace("mine:Up", "mine:Down"))
    with pytest.raises(shoal.ExperimentError, match=r"'mine' has no attribute 'Down'"):
        shoal.run(file, home=tmp_path / "home")


def test_what_the_module_of_a_trainable_imports_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours.py").write_text("from theirs import Up\n")
    (tmp_path / "theirs.py").write_text("import numpy\n" + MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    result = run(importlib.import_module("ours").Up, tmp_path)
    assert any("numpy imported once for all" in line for line in log_of(result))


@pytest.mark.parametrize("synchronous", [True, False])
def test_nobody_waits_for_others_unless_all_do(tmp_path: Path, synchronous: bool) -> None:
    class Uneven(Toy):
        def step(self, state: Theta, hparams: Hparams) -> Any:
            time.sleep(0.04 * random.random())
            return super().step(state, hparams)

    result = run(
        Uneven(tmp_path / "diary"), tmp_path, synchronous=synchronous, population=6, steps=15,
        workers=3, seed=1,
    )  # fmt: skip
    rows = result.trials()
    assert {row.state for row in rows} == {"finished"}
    assert len(rows) == 90
    assert result.copies(rows)
    early = any(a.step > b.step and a.id < b.id for a in rows for b in rows)
    assert early != synchronous, "a later step was decided before an earlier one"


@pytest.mark.parametrize("synchronous", [True, False])
def test_a_donor_hands_on_the_state_of_its_score(tmp_path: Path, synchronous: bool) -> None:
    """Its own next step, which has begun by then, is none of the recipient's business."""

    class Honest(Toy):
        def step(self, state: Theta, hparams: Hparams) -> Any:
            before = list(state["theta"])
            after, score = super().step(state, hparams)
            return after, {"default": score, "before": sum(t * t for t in before),
                           "after": sum(t * t for t in after["theta"])}  # fmt: skip

    result = run(
        slow(Honest, 0.003)(tmp_path / "diary"), tmp_path, synchronous=synchronous,
        population=8, steps=12, workers=3, seed=7,
    )  # fmt: skip
    rows = {row.id: row for row in result.trials()}
    children = [row for row in rows.values() if row.parent is not None]
    assert len(children) == 88
    for row in children:
        assert row.parent is not None
        assert row.metrics["before"] == rows[row.parent].metrics["after"]
    assert result.copies(list(rows.values()))


@pytest.mark.parametrize("inline", [False, True])
def test_it_shows_how_it_goes(
    tmp_path: Path, inline: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run(function, tmp_path, metric="quality", inline=inline)
    out, err = capfd.readouterr()
    assert f"function  {result.id}  in " in err
    assert "20 trials in" in err
    assert "lineage" in err
    assert ("step 4" in out) == inline, "what an inline function prints is seen at once"
    run(function, tmp_path, metric="quality", verbose=False)
    assert capfd.readouterr() == ("", "")


def test_whoever_observes_is_told_too(tmp_path: Path) -> None:
    told: list[str] = []

    class Observer(shoal.Observer):
        def began(self, folder: Any, config: Any) -> None:
            told.append(f"began {config.population}")

        def changed(self, tuner: Any, waiting: str) -> None:
            told.append("changed")

        def said(self, level: str, text: str) -> None:
            told.append(f"{level}: {text}")

    run(function, tmp_path, metric="quality", observer=Observer())
    assert told[0] == "began 4"
    assert told[-1] == "changed"


def gone(pid: int) -> bool:
    """Whether the process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_controller(tmp_path: Path, signum: int) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys, time, shoal\n"
        "def train(trial):\n"
        "    open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
        "    time.sleep(600)\n"
        "shoal.run(train, space={'x': shoal.Float(0, 1)}, population=3, steps=1, workers=3,\n"
        "          home=sys.argv[2])\n"
    )
    pids = tmp_path / "pids"
    pids.touch()
    command = [sys.executable, str(script), str(pids), str(tmp_path / "home")]
    controller = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until(lambda: len(pids.read_text().split()) == 3)
    controller.send_signal(signum)
    controller.wait(20)
    for pid in map(int, pids.read_text().split()):
        until(lambda: gone(pid))  # noqa: B023 (it is waited for here)


def test_what_a_worker_leaves_behind_is_ended(tmp_path: Path) -> None:
    class Parent(Toy):
        def init(self, hparams: Hparams, seed: int) -> Theta:
            child = subprocess.Popen(["sleep", "600"], start_new_session=True)
            self.note("child", child.pid)
            return super().init(hparams, seed)

    work = Parent(tmp_path / "diary")
    run(work, tmp_path)
    children = [line[2] for line in work.notes("child")]
    assert len(children) == 4
    assert all(map(gone, children))


def test_a_full_home_of_checkpoints_holds_no_more_than_is_needed(tmp_path: Path) -> None:
    work = Toy(tmp_path / "diary")
    result = run(work, tmp_path, steps=10, checkpoint_every=2)
    there = list(result.checkpoints.glob("*/*"))
    assert len(there) <= 5, "each member's newest, and the best"
    history = History.of(result)
    due = (history.step % 2 == 1) & (history.step < 9)
    assert (history.saving[due] > 0).all(), "the journal tells of each, and how long it took"
    assert (history.saved[due] >= history.ended[due]).all()


class Orders(shoal.Observer):
    """A user who wants one thing after the other, eight trials apart."""

    def __init__(self, *orders: Order) -> None:
        self._orders, self._next = list(orders), 4

    def began(self, folder: Folder, config: shoal.Config) -> None:
        self._folder = folder

    def changed(self, tuner: shoal.Tuner, waiting: str) -> None:
        ended = len(tuner.population.trials) - len(tuner.population.running)
        if self._orders and ended >= self._next and not waiting_orders(self._folder):
            self._put(self._orders.pop(0))
            self._next = ended + 8

    def said(self, level: str, text: str) -> None:
        if text.startswith("paused:"):
            self._put(Order("go on"))

    def _put(self, order: Order) -> None:
        holder = self._folder.holder()
        assert holder is not None
        put(self._folder, order, holder)


def test_what_is_ordered_while_it_runs_changes_no_decision(tmp_path: Path) -> None:
    class Slow(Toy):
        def step(self, state: Theta, hparams: Hparams) -> tuple[Theta, float]:
            time.sleep(0.01)
            return super().step(state, hparams)

    def toy(name: str) -> Toy:
        return Slow(tmp_path / name)

    orders = [Order(None, {"workers": 1}), Order(None, {"workers": 3}), Order("pause")]
    observer, words = Orders(*orders), {"population": 6, "steps": 60, "workers": 4}
    steered = run(toy("steered"), tmp_path, observer=observer, name="steered", **words)
    plain = run(toy("plain"), tmp_path, **words)
    assert told(steered) == told(plain)
    said = log_of(steered)
    places = [said.index(text) for text in ("workers: 4 → 1", "workers: 1 → 3", "it goes on")]
    assert places == sorted(places)
    first, *_, last = toy("steered").notes("step")
    assert first[0] != last[0], "after a pause there are other processes"
    assert steered.state == "done"
