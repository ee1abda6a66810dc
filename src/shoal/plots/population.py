"""How the members came along: all of them, what is usual, what is best, and whence it came."""

import numpy as np

from shoal.history import NOBODY, Flags, Floats, History, Ints
from shoal.plots.style import (
    BAND,
    FAINT,
    MIDDLE,
    POINTS,
    WINNER,
    Picture,
    by_step,
    escaped,
    nothing,
    of_journal,
    picture,
    segments,
    thinned,
)  # fmt: skip

FAR = 3.0
BAND_OF = (10, 50, 90)  # percentiles


@of_journal
def population(history: History) -> Picture:
    """The metric of every member by step, with the winner's ancestry in bold.

    A member's line has a gap where it copied another: what goes on there are other weights.
    """
    metric = escaped(history.called)
    title = f"Population: {metric} by step"
    if history.best is None:
        return nothing(title, "no trial has finished yet")
    figure = picture(title)
    trials, first = runs(history)
    figure.add_scatter(
        x=segments(history.step[trials], first), y=segments(history.metric[trials], first),
        customdata=segments(history.member[trials], first), name="members",
        mode="lines" if history.steps > 2 else "lines+markers", marker={"color": FAINT, "size": 4},
        line={"color": FAINT, "width": 1},
        hovertemplate="member %{customdata}, step %{x}: %{y}<extra></extra>",
    )  # fmt: skip
    steps, low, middle, high = band(history)
    figure.add_scatter(
        x=np.concatenate([steps, steps[::-1]]), y=np.concatenate([high, low[::-1]]),
        name="10 % to 90 %", fill="toself", fillcolor=BAND, line={"width": 0}, mode="lines",
        hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=steps, y=middle, name="median", mode="lines", line={"color": MIDDLE, "width": 1.5},
        hovertemplate="median of step %{x}: %{y}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=steps, y=best_so_far(history), name="best so far", mode="lines",
        line={"color": MIDDLE, "width": 1.5, "dash": "dot", "shape": "hv"},
        hovertemplate="best up to step %{x}: %{y}<extra></extra>",
    )  # fmt: skip
    line = history.lineage(history.best)
    figure.add_scatter(
        x=history.step[line], y=history.metric[line], customdata=history.member[line],
        name="the winner's ancestry", mode="lines+markers" if len(line) <= 60 else "lines",
        line={"color": WINNER, "width": 3}, marker={"size": 6},
        hovertemplate="the winner was member %{customdata} at step %{x}: %{y}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(**by_step(history))
    values = history.metric[history.finished]
    whole, half = reach(values), best_half(values, higher=history.higher)
    names = {"all": {"yaxis.autorange": True}, "best half": {"yaxis.range": half}}
    figure.update_layout(updatemenus=[{
        "type": "buttons", "direction": "right", "x": 1, "xanchor": "right", "y": 1.02,
        "yanchor": "bottom", "showactive": False, "bgcolor": "rgba(138,143,152,0.15)",
        "borderwidth": 0, "font": {"size": 11}, "pad": {"b": 2},
        "buttons": [{"label": k, "method": "relayout", "args": [v]} for k, v in names.items()],
    }])  # fmt: skip
    return figure.update_yaxes(title=metric, range=whole)


def reach(values: Floats) -> list[float] | None:
    """The part of the axis that is shown at first, where some are far from all others; else None.

    Far is more than three times the distance of the quartiles beyond them (Tukey's outer fence).
    """
    low, high = np.percentile(values, [25, 75])
    fence = FAR * (high - low)
    inside = values[(values >= low - fence) & (values <= high + fence)]
    if len(inside) == len(values) or not fence:
        return None
    return ends(float(inside.min()), float(inside.max()))


def best_half(values: Floats, *, higher: bool) -> list[float]:
    """The part of the axis that the better half of `values` takes."""
    middle = float(np.median(values))
    return ends(middle, float(values.max())) if higher else ends(float(values.min()), middle)


def ends(low: float, high: float) -> list[float]:
    """From `low` to `high`, and a little beyond."""
    beyond = 0.04 * (high - low) or 0.5
    return [low - beyond, high + beyond]


def runs(history: History) -> tuple[Ints, Flags]:
    """(finished trials, member by member, as many as can be drawn; whether each begins a line).

    A line ends where its member copied another.
    """
    most = max(4, POINTS // history.population)
    trials, first = [], []
    for row in history.grid:
        mine = row[row != NOBODY]
        mine = mine[history.finished[mine]]
        kept = thinned(history.metric[mine], most)
        copies = np.cumsum(history.copied[mine])[kept]  # so far
        trials.append(mine[kept])
        first.append(np.diff(copies, prepend=-1) > 0)
    return np.concatenate(trials), np.concatenate(first)


def band(history: History) -> tuple[Ints, Floats, Floats, Floats]:
    """(steps, 10th percentile, median, 90th percentile) of the metrics of each step with any."""
    grid = history.on_grid(history.metric)
    steps = np.flatnonzero(np.isfinite(grid).any(axis=0))
    low, middle, high = np.nanpercentile(grid[:, steps], BAND_OF, axis=0)
    return steps, low, middle, high


def best_so_far(history: History) -> Floats:
    """The best metric of each step with any, or of one before it."""
    grid = history.on_grid(history.score)
    steps = np.isfinite(grid).any(axis=0)
    top = np.maximum.accumulate(np.nanmax(grid[:, steps], axis=0))
    return top if history.higher else -top
