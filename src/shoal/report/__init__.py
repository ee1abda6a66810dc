"""`shoal report`: an experiment as one file that needs no server and no network."""

from collections.abc import Iterable, Sequence
from json import dumps
from typing import Any

import numpy as np
from yaml import safe_dump

from shoal import views
from shoal.assets import plotly_js, text
from shoal.history import History, Ints
from shoal.plots import PICTURES
from shoal.plots.captions import CAPTIONS
from shoal.plots.exploits import exploited
from shoal.report.markup import Child, Html, fingerprint, script, tag
from shoal.result import Result
from shoal.show import tables
from shoal.show.layout import one_line
from shoal.show.story import sentences
from shoal.show.tables import LOOKS, duration, metrics, plural
from shoal.views import iso

COPIES = 200  # rows of the table of copies: the winner's, and those that gained most


def report(result: Result) -> str:
    """The report of an experiment, running or not, as HTML.

    Raises:
        ExperimentError: its journal cannot be read.
    """
    history = History.of(result)
    figures = {name: draw(history).to_json() for name, draw in PICTURES.items()}
    code = f"{text('charts.js')}\n{text('report.js')}"
    heading = one_line(result.name)
    body = [
        header(result, heading),
        warnings(result),
        *(picture(name) for name in ("population", "schedule")),
        schedule(result),
        *(picture(name) for name in ("lineage", "survival", "exploits")),
        copies(result, history),
        *(picture(name) for name in ("diversity", "parallel", "timeline")),
        setup(result),
        *(
            script(figure, type="application/json", id=f"figure-{name}")
            for name, figure in figures.items()
        ),
        script(plotly_js()),
        script(code, type="module"),
    ]
    policy = (
        f"default-src 'none'; script-src {fingerprint(plotly_js())} {fingerprint(code)}; "
        "style-src 'unsafe-inline'; img-src data: blob:"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("title", f"{heading}: population based training"),
        Html(f"<style>{text('shoal.css')}</style>"),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def header(result: Result, heading: str) -> Html:
    """What it is, and what came out, in three sentences."""
    looks = LOOKS.get(result.state, "")
    when = iso(result.created).replace("T", " ")[:16]
    return tag(
        "header",
        tag("h1", heading, " ", tag("span", result.state, class_=f"state {looks}")),
        tag("p", f"Experiment {result.id}, begun {when} UTC", class_="soft"),
        [tag("p", sentence) for sentence in sentences(result)],
    )


def warnings(result: Result) -> Html | None:
    """What may be wrong with it."""
    if not result.findings:
        return None
    items = [tag("li", finding.text) for finding in result.findings]
    return tag("section", tag("strong", "To be looked at"), tag("ul", items), class_="warnings")


def picture(name: str) -> Html:
    """The place of a picture."""
    return tag(
        "figure",
        tag("div", class_="chart", data_figure=f"figure-{name}"),
        tag("figcaption", CAPTIONS[name]),
    )


def schedule(result: Result) -> Html | None:
    """The winner's hyperparameters, to be read and to be copied."""
    if result.best_so_far is None:
        return None
    names = tables.names_of(result)
    rows = []
    before: tables.Span | None = None
    for span in tables.spans(result.best_so_far.lineage):
        steps = str(span.first) if span.first == span.last else f"{span.first}-{span.last}"
        member = str(span.member) if span.copied is None else f"{span.copied} → {span.member}"
        cells: list[Child] = [steps, member]
        for name in names:
            said = tables.cell(span.hparams, name)
            new = tables.changed(None if before is None else before.hparams, span.hparams, name)
            cells.append(tag("strong", said) if new else said)
        rows.append(cells)
        before = span
    return tag(
        "section",
        tag("h2", "The schedule"),
        table(["steps", "member", *names], rows),
        tag("p", tag("button", "Copy as JSON", type="button", data_copy="schedule")),
        tag("pre", by_line(result.best_so_far.schedule), id="schedule", tabindex="0"),
    )


def by_line(parts: Sequence[Any]) -> str:
    """`parts` as JSON, each in a line of its own."""
    lines = ",\n".join(f" {dumps(part)}" for part in parts)
    return f"[\n{lines}\n]"


def copies(result: Result, history: History) -> Html:
    """The table of copies: all, or those that matter most."""
    found = exploited(history)
    title = tag("h2", "Copies")
    if not len(found.trial):
        return tag("section", title, tag("p", "Nobody has copied anybody yet.", class_="soft"))
    shown = chosen(found.trial, found.gain, history.lineage(history.best))
    ids = {int(id) for id in (*found.trial[shown], *found.donor[shown])}
    by_id = {row.id: row for row in result.trials(ids)}
    note = None
    if len(shown) < len(found.trial):
        note = (
            f"{plural(len(shown), 'copy').replace('copys', 'copies')} of {len(found.trial):,}: the "
            "winner's, and those that gained most. `shoal export` writes all."
        )
    rows: list[list[Child]] = []
    for index in shown:
        row, donor = by_id[int(found.trial[index])], by_id[int(found.donor[index])]
        own, copied, after, gain = (
            float(x[index]) for x in (found.before, found.copied, found.after, found.gain)
        )
        lost = bool(found.failed[index])
        told = metrics([None if np.isnan(x) else x for x in (own, copied, after)])
        gained = "failed" if lost else "" if np.isnan(gain) else f"{gain:+.3g}"
        looks = "good" if gain > 0 else "bad" if gain < 0 or lost else ""
        rows.append([
            row.step, f"{donor.member} → {row.member}", *told,
            tag("span", gained, class_=looks), tables.explored(donor, row),
        ])  # fmt: skip
    header = ["step", "members", "before", "donor", "after", "gain", "explored"]
    return tag("section", title, note and tag("p", note, class_="soft"), table(header, rows))


def chosen(trials: Ints, gain: Any, line: Ints) -> Ints:
    """Which copies are told, as indices by trial."""
    own = np.flatnonzero(np.isin(trials, line))
    order = np.argsort(-np.nan_to_num(gain, nan=-np.inf), kind="stable")
    rest = [index for index in order if index not in set(own)][: max(0, COPIES - len(own))]
    return np.sort(np.concatenate([own, np.array(rest, dtype=np.int64)]))


def setup(result: Result) -> Html:
    """What was run: all that the experiment file says."""
    config = views.hidden(result.config)
    facts = [
        ("time", duration(result.seconds)), ("folder", str(result.folder.path)),
        ("checkpoints", str(result.checkpoints)),
        ("best checkpoint", str(result.best_so_far.checkpoint) if result.best_so_far else "none"),
    ]  # fmt: skip
    return tag(
        "section",
        tag("h2", "What was run"),
        tag("dl", [[tag("dt", name), tag("dd", fact)] for name, fact in facts], class_="facts"),
        tag("pre", safe_dump(config, sort_keys=False, allow_unicode=True), tabindex="0"),
    )


def table(names: list[str], rows: Iterable[Iterable[Child]]) -> Html:
    """A table that may be wider than the screen."""
    head = tag("tr", [tag("th", name, scope="col") for name in names])
    body = [tag("tr", [tag("td", cell) for cell in row]) for row in rows]
    inner = tag("table", tag("thead", head), tag("tbody", body))
    return tag("div", inner, class_="wide", tabindex="0", role="region")
