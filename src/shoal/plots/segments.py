"""Which hyperparameters went with which gain: each step of each member a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from plotly.colors import sample_colorscale

from shoal.history import FAILED, NOBODY, Domain, Floats, History, Ints
from shoal.plots.style import (
    BAD,
    GRID,
    Picture,
    escaped,
    nothing,
    of_journal,
    picture,
    sampled,
    shown,
)

LINES = 1000  # as many are drawn, of the best gains more
SCALE = ["#56B4E9", "#8a8f98", "#D55E00"]  # to be seen on white and on black
SHADES = 7  # colours, from the smallest gain to the largest
TICKS = 5  # of an axis, about


@dataclass(frozen=True, slots=True)
class Axis:
    """One of the parallel axes.

    Args:
        name: what is on it.
        values: of each line, as they are: (L,).
        heights: where that is on the axis, from 0 to 1: (L,).
        ticks: (height, label) of what is written beside it.
    """

    name: str
    values: Floats
    heights: Floats
    ticks: Sequence[tuple[float, str]]


@of_journal
def parallel(history: History) -> Picture:
    """Parallel coordinates of the steps: hyperparameters, the metric, and what the step gained.

    Drawn step by step and not by member: under PBT a member's hyperparameters change as it goes.
    The lines are ordinary ones, and not plotly's `parcoords`, which run code that is made on the
    way: a page with a strict Content-Security-Policy forbids that.
    """
    title = "Steps: hyperparameters, and what a step under them gained"
    gained = gains(history)
    there = np.flatnonzero(np.isfinite(gained))
    if not len(there):
        return nothing(title, "no step has gone on from another one yet")
    kept = there[chosen(gained[there])]
    lost = np.flatnonzero((history.state == FAILED) & (history.parent != NOBODY))
    kept = np.concatenate([kept, lost[sampled(len(lost), LINES // 4)]])
    moving = [domain for domain in history.domains if not domain.fixed]
    axes = [
        whole("step", history.step[kept]),
        *(axis_of(history, domain, kept) for domain in moving),
        linear(escaped(history.called), history.metric[kept]),
        linear("gain", gained[kept]),
    ]
    figure = picture(title, showlegend=False, hovermode="closest", dragmode="select")
    shades = shaded(gained[kept])
    colours = sample_colorscale(SCALE, [n / (SHADES - 1) for n in range(SHADES)])
    for shade, colour in ((-1, BAD), *enumerate(colours)):
        lines = np.flatnonzero(shades == shade)
        x, y, facts = strung(axes, lines, kept, history)
        figure.add_scatter(
            x=x, y=y, customdata=facts, mode="lines",
            name="failed" if shade < 0 else f"gain {shade + 1} of {SHADES}",
            line={"color": colour, "width": 1, "dash": "dot" if shade < 0 else "solid"},
            connectgaps=False, meta="parallel",
            hovertemplate=(
                "trial %{customdata[0]} (member %{customdata[1]}, step %{customdata[2]}): "
                "%{customdata[3]:.4g}<extra></extra>"
            ),
        )  # fmt: skip
    low, high = spread_of(gained[kept])
    figure.add_scatter(
        x=[None], y=[None], mode="markers", hoverinfo="skip",
        marker={
            "color": [low], "cmin": low, "cmax": high, "colorscale": SCALE, "showscale": True,
            "colorbar": {"title": {"text": "gain"}, "thickness": 10, "tickfont": {"size": 10}},
        },
    )  # fmt: skip
    for place, axis in enumerate(axes):
        figure.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line={"color": GRID})
        for height, label in axis.ticks:
            figure.add_annotation(
                x=place, y=height, text=label, showarrow=False, xanchor="left", xshift=3,
                font={"size": 10},
            )  # fmt: skip
    figure.update_xaxes(
        tickvals=list(range(len(axes))), ticktext=[axis.name for axis in axes], side="top",
        showgrid=False, range=[-0.1, len(axes) - 0.6], fixedrange=True,
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[-0.03, 1.03], fixedrange=True)
    return figure.update_layout(margin={"l": 20, "r": 20, "t": 84, "b": 20})


def strung(
    axes: Sequence[Axis], lines: Ints, kept: Ints, history: History
) -> tuple[Floats, Floats, Floats]:
    """(x, y, customdata) of some lines over all axes, a gap after each."""
    gap = np.full((len(lines), 1), np.nan)
    across = np.arange(len(axes), dtype=float)[None].repeat(len(lines), axis=0)
    heights = np.stack([axis.heights[lines] for axis in axes], axis=1)
    values = np.stack([axis.values[lines] for axis in axes], axis=1)
    trials = kept[lines]
    facts = [trials, history.member[trials], history.step[trials]]
    wide = [fact[:, None].repeat(len(axes) + 1, axis=1) for fact in facts]
    told = np.stack([*wide, np.concatenate([values, gap], axis=1)], axis=2)
    x, y = (np.concatenate([part, gap], axis=1).ravel() for part in (across, heights))
    return x, y, told.reshape(-1, 4)


def gains(history: History) -> Floats:
    """By how much each trial is better than what it started from; NaN where that is not known."""
    known = history.parent != NOBODY
    score = history.score
    return np.where(known, score - score[history.parent], np.nan)


def chosen(gained: Floats) -> Ints:
    """Which of the steps are drawn: a quarter of them those that gained most, others evenly."""
    if len(gained) <= LINES:
        return np.arange(len(gained))
    top = np.argsort(-gained, kind="stable")[: LINES // 4]
    return np.union1d(top, sampled(len(gained), LINES - len(top)))


def shaded(gained: Floats) -> Ints:
    """The shade of each gain, in order, -1 where there is none: (L,).

    Single large ones do not make all others alike.
    """
    low, high = spread_of(gained)
    share = (gained - low) / (high - low) if high > low else np.full(len(gained), 0.5)
    shades = np.clip(np.nan_to_num(share) * SHADES, 0, SHADES - 1)
    known: Ints = np.where(np.isfinite(gained), shades, -1).astype(np.int64)
    return known


def spread_of(gained: Floats) -> tuple[float, float]:
    """The gains between which shades differ."""
    low, high = np.nanpercentile(gained, [5, 95])
    return float(low), float(high)


def whole(name: str, values: Ints) -> Axis:
    """An axis of whole numbers."""
    low, high = int(values.min()), max(int(values.max()), int(values.min()) + 1)
    ticks = [
        ((n - low) / (high - low), str(n)) for n in range(low, high + 1, ceil((high - low) / TICKS))
    ]
    return Axis(name, values.astype(float), (values - low) / (high - low), ticks)


def axis_of(history: History, domain: Domain, kept: Ints) -> Axis:
    """The axis of a hyperparameter, on the scale of its domain."""
    values, name = history.values[domain.name][kept], escaped(domain.name)
    if not domain.numeric:
        labels = shown(history.labels[domain.name])
        last = max(1, len(labels) - 1)
        ticks = [(n / last, label) for n, label in enumerate(labels)]
        return Axis(name, values, values / last, ticks)
    return logarithmic(name, values) if domain.log else linear(name, values)


def linear(name: str, values: Floats) -> Axis:
    """An axis from the lowest of `values` to the highest."""
    low, high = ends(values)
    ticks = [(n / TICKS, f"{low + (high - low) * n / TICKS:.3g}") for n in range(TICKS + 1)]
    return Axis(name, values, (values - low) / (high - low), ticks)


def logarithmic(name: str, values: Floats) -> Axis:
    """An axis with powers of ten."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(values > 0, np.log10(values), np.nan)
    low, high = ends(logs)
    low, high = floor(low), max(ceil(high), floor(low) + 1)
    every = ceil((high - low) / TICKS)
    ticks = [((n - low) / (high - low), f"1e{n}") for n in range(low, high + 1, every)]
    return Axis(name, values, (logs - low) / (high - low), ticks)


def ends(values: Floats) -> tuple[float, float]:
    """(lowest, highest) of `values`, never the same."""
    if not np.isfinite(values).any():
        return 0.0, 1.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return (low, high) if high > low else (low - 0.5, high + 0.5)
