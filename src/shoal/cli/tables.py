"""What a terminal shows of an experiment: rich renderings of results and views."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shoal.core.records import Hparams
from shoal.result import Result
from shoal.views import Row, exploits

NOTHING = "no trial has finished yet"
PIPED = 10_000  # columns where no terminal sets a limit: nothing is cut
COLOURS = {
    "running": "cyan", "retrying": "yellow", "interrupted": "yellow", "failed": "red",
    "stopped": "yellow", "killed": "yellow", "done": "green",
}  # fmt: skip


def console(*, stderr: bool = False) -> Console:
    """Where to print. What users have named is never read as markup."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


# ---------------------------------------------------------------------- single values


def metrics(values: Iterable[float | None]) -> list[str]:
    """`values` with the same number of decimals, so that four digits of the largest count."""
    values = list(values)
    largest = max((abs(value) for value in values if value), default=1.0)
    exponent = floor(log10(largest))
    if not -4 <= exponent < 7:
        return ["" if value is None else f"{value:.3e}" for value in values]
    decimals = max(0, 3 - exponent)
    return ["" if value is None else f"{value:.{decimals}f}" for value in values]


def value(of: Any) -> str:
    """A hyperparameter in as few characters as tell it."""
    match of:
        case bool() | None:
            return json.dumps(of)
        case float():
            return f"{of:.4g}"
        case str():
            return of
        case {"_name": name, **rest}:
            inner = ", ".join(f"{key} {value(item)}" for key, item in rest.items())
            return f"{name} ({inner})" if inner else str(name)
        case _:
            return json.dumps(of)


def duration(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def plural(count: int, noun: str) -> str:
    """`count` of `noun`, as in "1 trial" and "2 trials"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def state(of: str) -> Text:
    """A state in its colour."""
    return Text(of, COLOURS.get(of, ""))


# ---------------------------------------------------------------------- tables


def grid(*headers: str, right: Sequence[str] = ()) -> Table:
    """An empty table without lines; the columns named in `right` hold numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", no_wrap=True)
    return table


def listing(briefs: Sequence[Mapping[str, Any]]) -> Table:
    """The experiments, each as `Result.brief` gives it."""
    table = grid("id", "name", "state", "trials", "best", "time", "created", right=("trials",))
    for brief in briefs:
        count = "{finished}/{total}".format(**brief["trials"]).removesuffix("/None")
        best = metrics([brief["best"]])[0]
        when = brief["created"][:16].replace("T", " ")
        table.add_row(
            brief["id"], brief["name"], state(brief["state"]), count, best,
            duration(brief["seconds"]), when,
        )  # fmt: skip
    return table


def trials(rows: Sequence[Row], names: Sequence[str], copied: Mapping[int, int]) -> Table:
    """`rows` as a table.

    Args:
        rows: the trials.
        names: of the hyperparameters.
        copied: the member whose weights a trial started from, where that was another member.
    """
    errors = ["error"] if any(row.error for row in rows) else []
    table = grid(
        "trial", "member", "step", "state", "metric", "took", "copied", *names, *errors,
        right=("trial", "member", "step", "metric", "took", *names),
    )  # fmt: skip
    for row, metric in zip(rows, metrics(row.metric for row in rows), strict=True):
        took = "" if row.ended is None else duration(row.ended - row.started)
        values = (cell(row.hparams, name) for name in names)
        error = [(row.error or "").partition("\n")[0]] if errors else []
        table.add_row(
            str(row.id), str(row.member), str(row.step), state(row.state), metric, took,
            source(copied.get(row.id)), *values, *error,
        )  # fmt: skip
    return table


def copies(rows: Sequence[Row]) -> dict[int, int]:
    """The member that each exploit among all `rows` copied."""
    return {row.id: rows[row.parent].member for row in exploits(rows) if row.parent is not None}


def source(member: int | None) -> str:
    """What a table says of a trial that copied `member`."""
    return "" if member is None else f"← {member}"


def cell(hparams: Hparams, name: str) -> str:
    """The hyperparameter `name`, if this trial has it."""
    return value(hparams[name]) if name in hparams else ""


def schedule(line: Sequence[Row], names: Sequence[str]) -> Table:
    """The hyperparameters along a lineage: a row for each change, and in bold what changed."""
    table = grid("steps", "member", *names, right=("steps", "member", *names))
    before: Hparams | None = None
    for span in spans(line):
        steps = str(span.first) if span.first == span.last else f"{span.first}-{span.last}"
        member = str(span.member) if span.copied is None else f"{span.copied} → {span.member}"
        cells = [
            Text(cell(span.hparams, name), "bold" if changed(before, span.hparams, name) else "")
            for name in names
        ]
        table.add_row(steps, member, *cells)
        before = span.hparams
    return table


def changed(before: Hparams | None, after: Hparams, name: str) -> bool:
    """Whether `name` was given another value."""
    return before is not None and before.get(name) != after.get(name)


@dataclass(frozen=True, slots=True)
class Span:
    """Some steps in a row, of one member, under the same hyperparameters."""

    first: int
    last: int
    member: int
    hparams: Hparams
    copied: int | None  # the member it was copied from before its first step


def spans(line: Sequence[Row]) -> list[Span]:
    """A lineage, root first, cut where the member or a hyperparameter changes."""
    found: list[Span] = []
    for step, row in enumerate(line):
        last = found[-1] if found else None
        if last is not None and (last.member, last.hparams) == (row.member, row.hparams):
            found[-1] = Span(last.first, step, last.member, last.hparams, last.copied)
        else:
            copied = last.member if last is not None and last.member != row.member else None
            found.append(Span(step, step, row.member, row.hparams, copied))
    return found


def path(line: Sequence[Row]) -> str:
    """Whose weights a lineage went through."""
    parts: list[tuple[int, int, int]] = []  # member, first step, last step
    for step, row in enumerate(line):
        same = parts and parts[-1][0] == row.member
        first = parts.pop()[1] if same else step
        parts.append((row.member, first, step))
    return " → ".join(
        f"member {member} ({f'step {first}' if first == last else f'steps {first}-{last}'})"
        for member, first, last in parts
    )


# ---------------------------------------------------------------------- whole answers


def facts(pairs: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and what they are, one a line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in pairs:
        table.add_row(name, fact)
    return table


def heading(result: Result) -> Text:
    """Which experiment it is, and how it stands."""
    return Text("  ").join([Text(result.name, "bold"), Text(result.id), state(result.state)])


def ended(result: Result) -> Group:
    """How a run has ended."""
    count = plural(result.progress.finished, "trial")
    took = Text(f"  {count} in {duration(result.seconds)}")
    because = [indented(Text(result.reason))] if result.reason else []
    return Group(heading(result) + took, *because)


def names_of(result: Result) -> list[str]:
    """The hyperparameters of an experiment, in the order of its file."""
    return list(result.config["space"])


def status(result: Result) -> Group:
    """How an experiment stands."""
    now = result.status()
    count = now["trials"]
    of = "" if count["total"] is None else f" of {count['total']:,}"
    steps = "" if now["steps"] is None else f" of {now['steps']}"
    parts = [f"{count['finished']:,}{of} finished"]
    parts += [f"{count[key]:,} {key}" for key in ("running", "failed") if count[key]]
    pairs: list[tuple[str, str | Text]] = [
        ("trials", ", ".join(parts)),
        ("step", f"{now['step']}{steps}, {plural(now['population'], 'member')}"),
        ("time", duration(now["seconds"])),
    ]
    if result.controller is not None:
        pairs.append(("run by", "process {} on {}".format(*result.controller)))
    if now["reason"]:
        pairs.append(("waiting for" if now["state"] == "running" else "because", now["reason"]))
    if result.best is not None:
        row = result.best.lineage[-1]
        pairs.append(("best", f"{metrics([row.metric])[0]}, {where(row)}"))
    pairs += [("folder", now["folder"]), ("checkpoints", now["checkpoints"])]
    rows = result.trials()
    latest = trials(result.progress.members, names_of(result), copies(rows))
    top = (heading(result), Text(), indented(facts(pairs)))
    return Group(*top, Text(), indented(latest)) if rows else Group(*top)


def where(row: Row) -> str:
    """Which trial it is."""
    return f"trial {row.id} (member {row.member}, step {row.step})"


def winner(result: Result) -> Group | Text:
    """What an experiment has found: the best, what it gained, its schedule, where its model is."""
    best, alone = result.best, result.uncopied
    if best is None:
        return Text(NOTHING)
    row = best.lineage[-1]
    never = None if alone is None else alone.metric
    gain = None if never is None else abs(best.metric - never)
    texts = metrics([best.metric, never, gain])
    metric = result.config["metric"]
    scores = facts([])
    scores.add_column(style="dim")
    scores.columns[1].justify = "right"
    scores.add_row(
        "best" if metric == "default" else f"best {metric}",
        Text(texts[0], "bold green"),
        where(row),
    )
    if alone is not None and alone.id == row.id:
        scores.add_row("without copying", texts[1], "the same: it copied nobody on its way")
    elif alone is not None:
        found = f"{where(alone)}: what random search would have found"
        scores.add_row("without copying", texts[1], found)
        scores.add_row("gained", texts[2])
    checkpoint = row.checkpoint or "none: nothing was saved, or it was deleted"
    return Group(
        indented(scores),
        Text(),
        indented(schedule(best.lineage, names_of(result))),
        Text(),
        indented(facts([("lineage", path(best.lineage)), ("checkpoint", checkpoint)])),
    )


def described(config: Config, total: int | None) -> str:
    """How large an experiment is."""
    parts = [plural(config.population, "member"), f"{config.workers} at a time"]
    parts += [] if config.steps is None else [plural(config.steps, "step")]
    parts += [] if total is None else [plural(total, "trial")]
    return ", ".join(parts)


def findings(found: Iterable[Finding]) -> Padding:
    """What was found out, one a line."""
    words = {True: ("ok", "green"), False: ("failed", "bold red"), None: ("unknown", "yellow")}
    table = facts([])
    table.columns[0].style = ""
    table.columns[1].no_wrap, table.columns[1].overflow = True, "ellipsis"
    table.add_column(overflow="fold", style="dim")
    for finding in found:
        table.add_row(Text(*words[finding.ok]), finding.what, finding.detail)
    return indented(table)


def indented(what: Table | Text) -> Padding:
    """`what`, two columns to the right."""
    return Padding(what, (0, 0, 0, 2), expand=False)
