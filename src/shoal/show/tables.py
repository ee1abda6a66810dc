"""What a terminal shows of an experiment: results and views as lines of text."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import floor, log10
from typing import Any

from shoal.core.records import Hparams
from shoal.result import Best, Result
from shoal.show.layout import Cell, facts, grid, one_line
from shoal.views import Row

NOTHING = "no trial has finished yet"
LOOKS = {
    "running": "busy", "retrying": "unclear", "interrupted": "unclear", "failed": "bad",
    "stopped": "unclear", "paused": "unclear", "killed": "unclear", "done": "good",
    "unreadable": "bad",
}  # fmt: skip


# ---------------------------------------------------------------------- single values


def metrics(values: Iterable[float | None], largest: float | None = None) -> list[str]:
    """`values` with the same number of decimals, so that four digits of the largest count.

    `largest` is that of more than these, where these are not all.
    """
    values = list(values)
    largest = largest or max((abs(value) for value in values if value), default=1.0)
    exponent = floor(log10(largest))
    if not -4 <= exponent < 7:
        return ["" if value is None else f"{value:.3e}" for value in values]
    decimals = max(0, 3 - exponent)
    return ["" if value is None else decimal(value, decimals) for value in values]


def decimal(value: float, decimals: int) -> str:
    """`value` with so many decimals; with an exponent, where nothing of it would be left."""
    text = f"{value:.{decimals}f}"
    return text if float(text) or not value else f"{value:.3e}"


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


def state(of: str) -> Cell:
    """A state in its colour."""
    return Cell(of, LOOKS.get(of, ""))


# ---------------------------------------------------------------------- tables


def listing(briefs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The experiments, each as `Result.brief` gives it."""
    rows: list[list[str | Cell]] = []
    reasons: list[str] = []
    for brief in briefs:
        if brief["state"] == "unreadable":
            rows.append([brief["id"], "", state("unreadable"), *[""] * 5])
            reasons.append(brief["reason"])
            continue
        count = "{finished}/{total}".format(**brief["trials"]).removesuffix("/None")
        failed = str(brief["trials"]["failed"] or "")
        created = datetime.fromisoformat(brief["created"]).astimezone()
        rows.append([
            brief["id"], brief["name"], state(brief["state"]), count, failed,
            metrics([brief["best"]])[0], duration(brief["seconds"]),
            created.strftime("%Y-%m-%d %H:%M"),
        ])  # fmt: skip
    header = ["id", "name", "state", "trials", "failed", "best", "time", "created"]
    lines = grid(header, rows, right=("trials", "failed", "best", "time"))
    return [*lines, *(["", *map(one_line, reasons)] if reasons else [])]


def trials(
    rows: Sequence[Row], names: Sequence[str], copied: Mapping[int, int], indent: int = 0
) -> list[str]:
    """`rows` as a table.

    Args:
        rows: the trials.
        names: of the hyperparameters.
        copied: the member whose weights a trial started from, where that was another member.
        indent: spaces before each line.
    """
    errors = any(row.error for row in rows)
    told = metrics(row.metric for row in rows)
    cells = trial_cells(rows, told, names, copied, errors=errors)
    return grid(trial_header(names, errors=errors), cells, NUMBERS + tuple(names), indent)


def every_trial(result: Result) -> Iterator[list[str]]:
    """The table of all trials, some lines at a time; a column may become wider on the way."""
    names, tally = names_of(result), result.tally
    largest = max(abs(tally.best or 0.0), abs(tally.least or 0.0))
    header = trial_header(names, errors=tally.failures)
    widths = [len(str(tally.trials)), *[0] * (len(header) - 1)]
    if not tally.trials:
        yield grid(header, [], NUMBERS)
    for rows in result.pages():
        told = metrics((row.metric for row in rows), largest)
        cells = trial_cells(rows, told, names, result.copies(rows), errors=tally.failures)
        lines = grid(header, cells, NUMBERS + tuple(names), widths=widths)
        yield lines if rows[0].id == 0 else lines[1:]


LAGS = 12  # members that are said to be behind
NUMBERS = ("trial", "member", "step", "metric", "took")


def trial_header(names: Sequence[str], *, errors: bool) -> list[str]:
    """What the columns of a table of trials are called."""
    header = ["trial", "member", "step", "state", "metric", "took", "copied", *names]
    return [*header, "error"] if errors else header


def trial_cells(
    rows: Sequence[Row],
    told: Sequence[str],
    names: Sequence[str],
    copied: Mapping[int, int],
    *,
    errors: bool,
) -> list[list[str | Cell]]:
    """The cells of a table of trials, `told` being their metrics."""
    cells: list[list[str | Cell]] = []
    for row, metric in zip(rows, told, strict=True):
        took = "" if row.ended is None else duration(row.ended - row.started)
        error = [(row.error or "").partition("\n")[0]] if errors else []
        cells.append([
            str(row.id), str(row.member), str(row.step), state(row.state), metric, took,
            source(copied.get(row.id)), *(cell(row.hparams, name) for name in names), *error,
        ])  # fmt: skip
    return cells


def source(member: int | None) -> str:
    """What a table says of a trial that copied `member`."""
    return "" if member is None else f"← {member}"


def explored(donor: Row, row: Row) -> str:
    """What exploring has changed after a copy."""
    old, new = donor.hparams, row.hparams
    return ", ".join(
        f"{name} {value(old.get(name))} → {value(new[name])}"
        for name in new
        if old.get(name) != new[name]
    )


def cell(hparams: Hparams, name: str) -> str:
    """The hyperparameter `name`, if this trial has it."""
    return value(hparams[name]) if name in hparams else ""


def schedule(line: Sequence[Row], names: Sequence[str], indent: int = 0) -> list[str]:
    """The hyperparameters along a lineage: a row for each change, and in bold what changed."""
    rows: list[list[str | Cell]] = []
    before: Hparams | None = None
    for span in spans(line):
        steps = str(span.first) if span.first == span.last else f"{span.first}-{span.last}"
        member = str(span.member) if span.copied is None else f"{span.copied} → {span.member}"
        values = [
            Cell(cell(span.hparams, name), "bold" if changed(before, span.hparams, name) else "")
            for name in names
        ]
        rows.append([steps, member, *values])
        before = span.hparams
    header = ["steps", "member", *names]
    return grid(header, rows, right=header, indent=indent)


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


def heading(result: Result) -> str:
    """Which experiment it is, and how it stands."""
    return "  ".join(
        [Cell(one_line(result.name), "bold").show(), result.id, state(result.state).show()]
    )


def ended(result: Result) -> list[str]:
    """How a run has ended."""
    count = plural(result.progress.finished, "trial")
    because = [f"  {result.reason}"] if result.reason else []
    if failed := result.progress.failed:
        because.append(Cell(f"  {failed:,} failed: {one_line(result.failures)}", "bad").show())
    return [f"{heading(result)}  {count} in {duration(result.seconds)}", *because]


def names_of(result: Result) -> list[str]:
    """The hyperparameters of an experiment, in the order of its file."""
    return list(result.config["space"])


def named_metric(result: Result) -> str:
    """What the metric is called."""
    metric: str = result.config["metric"]
    return "metric" if metric == "default" else metric


def named(name: str, fact: str) -> list[str | Cell]:
    """A line of facts."""
    return [Cell(name, "dim"), fact]


def status(result: Result) -> list[str]:
    """How an experiment stands."""
    now, newest = result.status(), result.progress.members
    count = now["trials"]
    of = "" if count["total"] is None else f" of {count['total']:,}"
    steps = "" if now["steps"] is None else f" of {now['steps']}"
    parts = [f"{count['finished']:,}{of} finished"]
    parts += [f"{count[key]:,} {key}" for key in ("running", "failed") if count[key]]
    parts[-1] += f": {one_line(now['failures'])}" if count["failed"] else ""
    lines = [
        named("trials", ", ".join(parts)),
        named("step", f"{now['step']}{steps}, {plural(now['population'], 'member')}"),
        named("time", duration(now["seconds"])),
    ]
    if not result.config["synchronous"] and newest:
        lines.insert(2, named("lag", lags(newest)))
    if now["controller"] is not None:
        lines.append(named("run by", "process {pid} on {host}".format(**now["controller"])))
    if now["reason"]:
        why = "waiting for" if now["state"] == "running" else "because"
        lines.append(named(why, now["reason"]))
    if result.best_so_far is not None:
        row = result.best_so_far.lineage[-1]
        lines.append(named("best", f"{metrics([row.metric])[0]}, {where(row)}"))
    if now["control"] is not None:
        lines.append(named("control", against(now["control"])))
    lines += [named("folder", now["folder"]), named("checkpoints", now["checkpoints"])]
    lines += [named("health" if not n else "", text) for n, text in enumerate(now["health"])]
    latest = trials(newest, names_of(result), result.copies(newest), indent=2)
    return [heading(result), "", *facts(lines), *(["", *latest] if newest else [])]


def against(arms: Mapping[str, Any]) -> str:
    """How the control arm and the others compare, given as in `Result.status`."""
    control, other, gain = metrics([arms["best"]["metric"], arms["other"]["metric"], arms["gain"]])
    return (
        f"after {plural(arms['steps'], 'step')}, {control} is the best of "
        f"{plural(arms['members'], 'member')} that never copy, {other} of {arms['others']} others: "
        f"gained {gain}"
    )


def lags(newest: Sequence[Row]) -> str:
    """How many steps each member is behind the one that is furthest, where it is."""
    top = max(row.step for row in newest)
    behind = sorted((row.step - top, row.member) for row in newest if row.step < top)
    said = [f"member {member} by {-steps}" for steps, member in behind[:LAGS]]
    more = [f"{len(behind) - LAGS} more"] if len(behind) > LAGS else []
    return ", ".join([*said, *more]) or "none"


def where(row: Row) -> str:
    """Which trial it is."""
    return f"trial {row.id} (member {row.member}, step {row.step})"


def winner(result: Result) -> list[str]:
    """What an experiment has found: the best, what it compares with, its schedule, its model."""
    best = result.best_so_far
    if best is None:
        return [NOTHING]
    row = best.lineage[-1]
    name = "best" if result.config["metric"] == "default" else f"best {named_metric(result)}"
    facing = compared(result, best)
    told = metrics([best.metric, *(metric for _, metric, _ in facing)])
    wide = max(map(len, told))
    lines: list[list[str | Cell]] = [
        [Cell(name, "dim"), Cell(told[0].rjust(wide), "good"), where(row)]
    ]
    lines += [
        [Cell(what, "dim"), text.rjust(wide), which]
        for (what, _, which), text in zip(facing, told[1:], strict=True)
    ]
    checkpoint = str(row.checkpoint or "none: nothing was saved, or it was deleted")
    return [
        *facts(lines),
        "",
        *schedule(best.lineage, names_of(result), indent=2),
        "",
        *facts([named("lineage", path(best.lineage)), named("checkpoint", checkpoint)]),
    ]


def compared(result: Result, best: Best) -> list[tuple[str, float, str]]:
    """What the best is to be seen beside: (what it is, its metric, which trials that rests on).

    A gain is told where there is a control arm, of as many steps of each member: that alone has
    been run. The best that copied nobody is told with its own number of steps.
    """
    alone, arms = result.uncopied, result.control
    if arms is not None:
        assert arms.best.metric is not None
        which = f"{where(arms.best)}, the best of {plural(arms.members, 'member')} that never copy"
        after = f"after {plural(arms.steps, 'step')} each"
        gain = f"the best of {arms.others} that may copy over it, {after}"
        return [("control arm", arms.best.metric, which), ("gained", arms.gain, gain)]
    if alone is None or alone.metric is None:
        return []
    if alone.id == best.lineage[-1].id:
        return [("copied nobody", alone.metric, "the same: no copy is in its past")]
    steps, whole = alone.step + 1, len(best.lineage)
    after = f"after {plural(steps, 'step')}" + ("" if steps == whole else f" (the best: {whole})")
    return [("copied nobody", alone.metric, f"{where(alone)}, {after}: the best of such")]


def comma_separated(rows: list[dict[str, Any]]) -> str:
    """`rows` as CSV: the same columns in the same order each time, what is nested as JSON."""
    file = io.StringIO()
    if rows:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({
                key: json.dumps(value) if isinstance(value, bool | dict | list) else value
                for key, value in row.items()
            })  # fmt: skip
    return file.getvalue()
