"""What is seen while an experiment runs."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from shoal.config import Config
from shoal.core.records import Failed, Finished
from shoal.core.space import Float, Space
from shoal.core.tuner import Tuner
from shoal.home import Folder
from shoal.show import live
from tests.cli.shell import Shell, Terminal, write


def test_a_run_on_a_terminal(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    terminal = Terminal(shell, "run", write(tmp_path / "toy"), GATE=str(gate))
    terminal.until("waiting for 2 trials of step 1 to end")
    for part in ("toy  ", "step 1/3", "4/12 trials", "0:00:0", "best  -", "running", "━", "lr"):
        assert part in terminal.text
    gate.touch()
    assert terminal.end() == 0
    assert "done  12 trials in" in terminal.text
    assert "\x1b[?25h" in terminal.raw, "the cursor is back"
    after = terminal.raw.rpartition("\x1b[2K")[2]
    assert "waiting for" not in after, "the table has gone"
    assert "copied nobody" in after


def test_ctrl_c_on_a_terminal(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    terminal = Terminal(shell, "run", write(tmp_path / "toy"), GATE=str(gate))
    terminal.until("waiting for 2 trials of step 1 to end")
    terminal.press(b"\x03")
    terminal.until("interrupted: no new trials; 2 still run (Ctrl-C again ends them)")
    gate.touch()
    assert terminal.end() == 130
    assert "goes on." in terminal.text


def test_a_terminal_that_can_do_nothing_gets_lines(shell: Shell, tmp_path: Path) -> None:
    terminal = Terminal(shell, "run", write(tmp_path / "toy"), TERM="dumb")
    assert terminal.end() == 0
    assert "step 3/3  12/12 trials  best -" in terminal.text
    assert "\x1b[" not in terminal.raw


def test_warnings_are_shown_above(shell: Shell, tmp_path: Path) -> None:
    script = "import nni\nnni.get_next_parameter()\nnni.report_final_result(1)\n"
    file = write(tmp_path / "toy", script, steps=1, population=2)
    terminal = Terminal(shell, "run", file)
    assert terminal.end() == 0
    assert "warning: trial 0 saved nothing" in terminal.text
    assert "warning: trial 0 saved nothing" in shell("run", file).stderr


class Stage:
    """A tuner, and those who watch it, with no experiment behind."""

    def __init__(self, *, terminal: bool = True, height: int = 30, **fields: Any) -> None:
        self.file = io.StringIO()
        self.console = Console(
            file=self.file, force_terminal=terminal, width=100, height=height, color_system=None,
            markup=False, highlight=False,
        )  # fmt: skip
        fields = {"population": 4, "steps": 3, **fields}
        self.config = Config(
            name="stage", command="x", space=Space({"lr": Float(0.0, 1.0)}), **fields
        )
        self.tuner = Tuner(
            self.config.space, population=self.config.population, steps=self.config.steps,
            retries=self.config.retries,
        )  # fmt: skip

    def train(self, steps: int, score: Callable[[int], float]) -> None:
        while (trial := self.tuner.ask()) is not None:
            self.tuner.tell(Finished(trial.id, score(trial.member)))
            if (trial.member, trial.step) == (self.config.population - 1, steps - 1):
                return

    def frame(self, waiting: str = "") -> str:
        screen = live.Screen(self.console)
        screen.folder, screen._config = Folder(Path("abc")), self.config
        screen.changed(self.tuner, waiting)
        self.console.print(screen._frame())
        return self.file.getvalue()


def test_nothing_to_see_yet() -> None:
    frame = Stage().frame("the imports that trials share to be loaded")
    assert "no trial has finished yet" in frame
    assert "waiting for the imports that trials share to be loaded" in frame


def test_a_large_population_shows_its_best() -> None:
    stage = Stage(population=100)
    stage.train(1, lambda member: member / 100)
    frame = stage.frame()
    assert "the best 10 of 100 members" in frame
    members = re.findall(r"^ +(\d+) +0 ", frame, re.MULTILINE)
    assert members == [str(member) for member in range(99, 89, -1)]


def test_a_small_terminal_shows_what_fits() -> None:
    stage = Stage(population=100, height=14)
    stage.tuner.ask()
    frame = stage.frame()
    assert "the best 4 of 100 members" in frame
    assert len(frame.splitlines()) <= 14


def test_a_metric_that_is_minimised_is_shown_as_reported() -> None:
    stage = Stage(mode="min")
    stage.train(1, lambda member: -0.5 - member)
    frame = stage.frame()
    assert "best  0.5000" in frame
    assert " 3.500 " in frame
    assert "-0.5" not in frame
    assert "best 0.5000 (member 0)" in live.progress(stage.tuner, stage.config)


def test_who_copied_whom_and_who_failed() -> None:
    stage = Stage(retries=0)
    stage.train(1, float)
    while (trial := stage.tuner.ask()) is not None:
        if trial.member == 1:
            stage.tuner.tell(Failed(trial.id, "crash", "exit code 1"))
    frame = stage.frame()
    rows = {line.split()[0]: line for line in frame.splitlines() if line[:12].strip().isdigit()}
    assert "← 3" in rows["0"], "the worst has copied the best"
    assert "failed" in rows["1"]
    assert "running" in rows["2"]


def test_without_an_end_there_is_no_total() -> None:
    stage = Stage(steps=None)
    stage.train(2, float)
    assert live.progress(stage.tuner, stage.config).startswith("step 2  8 trials")
    assert "8 trials" in stage.frame()


def test_time_left_is_told_once_there_is_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stage = Stage()
    screen = live.Screen(stage.console)
    screen.folder, screen._config = Folder(Path("abc")), stage.config
    screen.changed(stage.tuner, "")
    now += 60
    stage.train(1, float)
    stage.console.print(screen._frame())
    assert "0:01:00, 0:02:00 left" in stage.file.getvalue()


def test_lines_come_with_generations_but_not_in_floods(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stage = Stage(terminal=False, population=2, steps=100)
    lines = live.Lines(stage.console)
    lines.began(Folder(Path("abc")), stage.config)
    told = [len(stage.file.getvalue().splitlines())]
    for _ in range(30):  # generations, a tenth of a second each
        now += 0.1
        while (trial := stage.tuner.ask()) is not None:
            lines.changed(stage.tuner, "something")
            stage.tuner.tell(Finished(trial.id, 0.5))
            if trial.member == 1:
                break
    told.append(len(stage.file.getvalue().splitlines()))
    now += 9
    lines.changed(stage.tuner, "something")
    told.append(len(stage.file.getvalue().splitlines()))
    now += 2
    lines.changed(stage.tuner, "something")
    told.append(len(stage.file.getvalue().splitlines()))
    lines.changed(stage.tuner, "")  # the end
    told.append(len(stage.file.getvalue().splitlines()))
    assert told[0] == 1
    assert told[1] - told[0] in {2, 3}
    assert told[3] == told[4] == told[1] + 1, "and what was said is not said again"
