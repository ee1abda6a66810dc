"""Those who watch an experiment run: a table that lives, in a terminal or notebook, or lines."""

import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from heapq import nlargest
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shoal import views
from shoal.config import Config
from shoal.controller import Observer
from shoal.core.population import Population
from shoal.core.records import Result
from shoal.core.tuner import Tuner
from shoal.home import Folder
from shoal.runners.outcome import Objective
from shoal.show import tables
from shoal.show.layout import one_line, printable

FRAMES_PER_S = 4.0
LINE_S = 10.0  # without a generation ending, between two plain lines
LEAST_S = 1.0  # between two plain lines, however fast generations end
TOP = 10  # members that are shown where not all fit
NOTEBOOK_S = 0.5  # between two drawings in a notebook
NOTEBOOK_COLUMNS, NOTEBOOK_LINES = 100, 40
NOTEBOOK_FORMAT = '<pre style="line-height: 1.3">{code}</pre>'
AROUND = 9  # lines of a frame that are no members
LEVELS = {"warning": "yellow", "error": "red"}


class Watcher(Observer):
    """An observer that has something to clear away when nothing more comes, and a last word."""

    shows = True
    folder: Folder | None = None  # until the experiment has begun

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What the experiment is to run in."""
        yield

    def conclude(self, lines: Sequence[str]) -> None:
        """Show what has come of it."""
        raise NotImplementedError


def watcher() -> Watcher:
    """Whoever shows a run: in the notebook where it runs, or on stderr as the terminal allows."""
    if in_notebook():
        return Notebook()
    width = None if sys.stderr.isatty() else 10_000  # columns: where nobody looks nothing is cut
    # what users have named is never read as markup
    console = Patient(stderr=True, width=width, markup=False, highlight=False, emoji=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return Screen(console)
    return Lines(console)


class Patient(Console):
    """A console that ends nothing when nobody reads it any more; by itself it exits."""

    def on_broken_pipe(self) -> None:
        with suppress(OSError, ValueError):  # or what is left would be tried again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        self.quiet = True


def in_notebook() -> bool:
    """Whether this process is a notebook's."""
    found = sys.modules.get("IPython")
    shell = None if found is None else found.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


class Lines(Watcher):
    """Plain lines: one a generation, or every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._at, self._step = time.monotonic(), 0
        self._last = ""

    def began(self, folder: Folder, config: Config) -> None:
        self.folder, self._config = folder, config
        self._print(f"{one_line(config.name)}  {folder.id}  in {folder.path}")

    def changed(self, tuner: Tuner, waiting: str) -> None:
        # The newest decision tells, with no look at every member, that a generation has ended.
        trials, now = tuner.population.trials, time.monotonic()
        step = trials[-1].step if trials else 0
        over = not waiting and not tuner.population.running
        wanted = LEAST_S if step > self._step else LINE_S
        if not over and now < self._at + wanted:
            return
        self._at, self._step = now, step
        line = progress(tuner, self._config)
        if line != self._last:
            self._last = line
            self._print(line)

    def said(self, level: str, text: str) -> None:
        self._print(text if level == "info" else f"{level}: {text}")

    def conclude(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._print(click.unstyle(line))

    def _print(self, line: str) -> None:
        self._console.print(printable(line), soft_wrap=True)


def progress(tuner: Tuner, config: Config) -> str:
    """How far it is, in a line."""
    done, total = ended(tuner), total_of(tuner)
    parts = [f"step {steps(tuner)}", f"{of(done, total)} trials"]
    if (best := tuner.population.best) is not None:
        parts.append(f"best {metric(best, config)} (member {best.trial.member})")
    return "  ".join(parts)


def ended(tuner: Tuner) -> int:
    """How many trials have ended."""
    return len(tuner.population.trials) - len(tuner.population.running)


def total_of(tuner: Tuner) -> int | None:
    """How many trials there will be, where that is known."""
    return views.total(tuner.steps, tuner.trials, tuner.population.size)


def steps(tuner: Tuner) -> str:
    """How many steps all members have ended, of how many."""
    population = tuner.population
    lasts = (population.last(member) for member in range(population.size))
    done = min(
        0 if last is None else last.step + (last.id not in population.running) for last in lasts
    )
    total = total_of(tuner)
    return of(done, None if total is None else -(-total // population.size))


def of(done: int, total: int | None) -> str:
    """`done` of `total`, if there is one."""
    return f"{done:,}" if total is None else f"{done:,}/{total:,}"


def metric(result: Result, config: Config) -> str:
    """The metric of `result`, as its trial reported it."""
    return tables.metrics([Objective(config.metric, config.mode).score(result.score)])[0]


class Screen(Watcher):
    """A table that is drawn anew four times a second, by a thread of its own.

    `changed` only notes what there is to see, so the experiment never waits for the terminal. The
    thread reads a population that changes meanwhile: it only asks for single entries, each of which
    is whole, and a frame that mixes two moments is followed by a better one.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began, self._before = time.monotonic(), 0
        self._tuner: Tuner | None = None
        self._waiting = ""
        self._live = Live(
            console=console,
            get_renderable=self._frame,
            refresh_per_second=FRAMES_PER_S,
            transient=True,  # the winner's table takes its place
            redirect_stdout=False,
            redirect_stderr=False,
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._live.stop()

    def began(self, folder: Folder, config: Config) -> None:
        self.folder, self._config = folder, config
        self._live.start()

    def changed(self, tuner: Tuner, waiting: str) -> None:
        if self._tuner is None:
            self._before = ended(tuner)  # by an earlier session
        self._tuner, self._waiting = tuner, waiting

    def said(self, level: str, text: str) -> None:
        line = text if level == "info" else f"{level}: {text}"
        self._console.print(Text(printable(line), LEVELS.get(level, "dim")), soft_wrap=True)

    def conclude(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._console.print(Text.from_ansi(line), soft_wrap=True)

    def _frame(self) -> RenderableType:
        if self.folder is None:
            return Text()
        title = Text.assemble((one_line(self._config.name), "bold"), "  ", self.folder.id)
        tuner, elapsed = self._tuner, time.monotonic() - self._began
        if tuner is None:
            return title
        done, total = ended(tuner), total_of(tuner)
        bar = Table.grid(padding=(0, 2), expand=True)
        bar.add_column(ratio=1)
        bar.add_row(
            ProgressBar(total=total, completed=done, pulse=total is None),
            f"step {steps(tuner)}",
            f"{of(done, total)} trials",
            clock(elapsed) + self._left(elapsed, done, total),
        )
        best = tuner.population.best
        words = Text(tables.NOTHING, "dim")
        if best is not None:
            by = f"  member {best.trial.member}, step {best.trial.step}"
            score = (metric(best, self._config), "bold green")
            words = Text.assemble(("best  ", "dim"), score, (by, "dim"))
        foot = Text(f"waiting for {self._waiting}" if self._waiting else "", "dim", no_wrap=True)
        members = Padding(self._members(tuner), (1, 0, 1, 2), expand=False)
        return Group(title, bar, words, members, foot)

    def _left(self, elapsed: float, done: int, total: int | None) -> str:
        """How long it will take at this pace, once there is one."""
        here = done - self._before
        if total is None or done >= total or here < self._config.population:
            return ""
        return f", {clock(elapsed / here * (total - done))} left"

    def _members(self, tuner: Tuner) -> Table:
        population, names = tuner.population, list(self._config.space)
        members = shown(population, self._console.height - AROUND)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        lag = [] if self._config.synchronous else ["lag"]
        headers = ("member", "step", *lag, "metric", "", "copied", *map(one_line, names))
        for header in headers:
            table.add_column(header, justify="right", no_wrap=True)
        state, copied = table.columns[3 + len(lag) : 5 + len(lag)]
        state.justify = copied.justify = "left"
        state.min_width = len("running")  # so that nothing moves when nobody is
        objective = Objective(self._config.metric, self._config.mode)
        newest = [population.newest(member) for member in members]
        top = max((population.next_step(member) for member in members), default=0) - 1
        scores = tables.metrics(None if r is None else objective.score(r.score) for r in newest)
        for member, score in zip(members, scores, strict=True):
            trial = population.last(member)
            if trial is None:
                table.add_row(str(member))
                continue
            parent = None if trial.parent is None else population.trials[trial.parent].member
            running = trial.id in population.running
            failed = population.failures.get(trial.id)
            table.add_row(
                str(member),
                str(trial.step),
                *([str(top - trial.step)] if lag else []),
                Text(score, "dim" if running else ""),  # it is of the step before
                Text("running", "cyan") if running else Text("failed" if failed else "", "red"),
                tables.source(parent if parent != member else None),
                *(one_line(tables.cell(trial.hparams, name)) for name in names),
            )
        if len(members) < population.size:
            table.caption = f"the best {len(members)} of {population.size:,} members"
            table.caption_justify = "left"
        return table


class Notebook(Screen):
    """The same table below a notebook's cell, drawn anew when there is something new."""

    def __init__(self) -> None:
        page = Console(
            record=True, file=io.StringIO(), width=NOTEBOOK_COLUMNS, height=NOTEBOOK_LINES,
            force_jupyter=False, markup=False, highlight=False, emoji=False,
        )  # fmt: skip
        super().__init__(page)
        self._said: list[Text] = []
        self._last: Sequence[str] = ()
        self._drawn = 0.0
        self._display: Any = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        yield

    def began(self, folder: Folder, config: Config) -> None:
        self.folder, self._config = folder, config
        self._draw()

    def changed(self, tuner: Tuner, waiting: str) -> None:
        super().changed(tuner, waiting)
        over = not waiting and not tuner.population.running
        if over or time.monotonic() > self._drawn + NOTEBOOK_S:
            self._draw()

    def said(self, level: str, text: str) -> None:
        line = text if level == "info" else f"{level}: {text}"
        self._said = [*self._said, Text(printable(line), LEVELS.get(level, "dim"))][-TOP:]

    def conclude(self, lines: Sequence[str]) -> None:
        self._last = lines
        self._draw()

    def _draw(self) -> None:
        from IPython.display import HTML, display  # noqa: PLC0415 (there is one only in a notebook)

        last: list[RenderableType] = [Text.from_ansi(line) for line in self._last]
        self._console.print(Group(*self._said, *(last or [self._frame()])))
        page = self._console.export_html(inline_styles=True, code_format=NOTEBOOK_FORMAT)
        shown = HTML(page)
        if self._display is None:
            self._display = display(shown, display_id=True)
        else:
            self._display.update(shown)
        self._drawn = time.monotonic()


def shown(population: Population, room: int) -> list[int]:
    """The members to show in so many lines: all of them, or the best, best first."""
    members = range(population.size)
    if population.size <= room:
        return list(members)
    results = (result for m in members if (result := population.newest(m)) is not None)
    lines = max(1, min(TOP, room - 1))
    best = [r.trial.member for r in nlargest(lines, results, key=lambda result: result.score)]
    if len(best) < lines:  # in the first step
        best += [member for member in members[: 2 * lines] if member not in best]
    return best[:lines]


def clock(seconds: float) -> str:
    """A length of time that does not jump in width from one second to the next."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
