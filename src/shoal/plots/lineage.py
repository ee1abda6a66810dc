"""Who copied whom, and whose descendants are left."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.history import NOBODY, Floats, History, Ints
from shoal.plots.style import (
    COLOURS,
    OTHERS,
    WINNER,
    Picture,
    by_step,
    nothing,
    of_journal,
    pairs,
    picture,
    sampled,
)

ARROWS = 300  # as many copies are drawn: the winner's, and evenly of the others
CROWD = 20  # members, of more of whom only what the winner descends from stands out
FEW = 12  # members, each of whom has a tick
NAMED = len(COLOURS)  # founders with a colour of their own


@dataclass(frozen=True, slots=True)
class Copies:
    """Who went on from another member's weights: arrays of (C,), by trial."""

    trial: Ints  # the first one after the copy
    donor: Ints  # the trial that was copied
    shown: Ints  # which of them a picture with `ARROWS` arrows has, as indices


@of_journal
def lineage(history: History) -> Picture:
    """Members by steps, in the colours of their founders; arrows lead from donor to recipient."""
    title = "Lineage: whose weights each member has"
    if not len(history):
        return nothing(title, "no trial has begun yet")
    found, line = copies(history), history.lineage(history.best)
    more = len(found.trial) - len(found.shown)
    figure = picture(f"{title} ({more:,} copies more than are drawn)" if more else title)
    ranks = founder_ranks(history)
    cells = np.where(history.grid == NOBODY, NOBODY, ranks[history.founder][history.grid])
    crowd = history.population > CROWD  # of which only the winner's part can be followed
    bands(figure, history, cells, opacity=0.18 if crowd else 0.55)
    own = np.isin(found.trial[found.shown], line)
    if crowd:
        kept = np.zeros(cells.shape, dtype=bool)
        kept[history.member[line], history.step[line]] = True
        bands(figure, history, np.where(kept, cells, NOBODY), opacity=0.95)
        found = Copies(found.trial, found.donor, found.shown[own])
    donors, trials = found.donor[found.shown], found.trial[found.shown]
    figure.add_scatter(
        x=pairs(history.step[donors], history.step[trials]),
        y=pairs(history.member[donors], history.member[trials]),
        mode="lines", name="copies", line={"color": OTHERS, "width": 1}, hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=history.step[trials], y=history.member[trials], mode="markers", name="copied",
        customdata=np.stack([history.member[donors], history.step[donors]], axis=1),
        marker={
            "color": OTHERS, "size": 6, "angle": turned(history, donors, trials), "symbol": "arrow",
        },
        hovertemplate=(
            "member %{y} goes on from member %{customdata[0]}, step %{customdata[1]}, at step %{x}"
            "<extra></extra>"
        ),
    )  # fmt: skip
    figure.add_scatter(
        x=history.step[line], y=history.member[line], mode="lines", name="the winner's ancestry",
        line={"color": WINNER, "width": 3},
        hovertemplate="the winner was member %{y} at step %{x}<extra></extra>",
    )  # fmt: skip
    for founder in np.argsort(ranks)[: min(NAMED, history.population)]:
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=f"began as member {founder}",
            marker={"symbol": "square", "size": 10, "color": COLOURS[int(ranks[founder])]},
        )  # fmt: skip
    for trial, text, shift in (
        (line[:1], "it began here", 14), (line[-1:], f"the best: {metric_of(history)}", -14),
    ):  # fmt: skip
        if len(trial):
            figure.add_annotation(
                x=int(history.step[trial[0]]), y=int(history.member[trial[0]]), text=text,
                showarrow=False, yshift=shift, font={"size": 11},
                xanchor="left" if shift > 0 else "right",
            )  # fmt: skip
    figure.update_xaxes(**by_step(history))
    whole: dict[str, Any] = {"tickformat": "d", "dtick": 1} if history.population <= FEW else {}
    ends = [-0.5, history.population - 0.5]  # bands are as wide at the edges as inside
    return figure.update_yaxes(title="member", showgrid=False, range=ends, **whole)


def bands(figure: Picture, history: History, cells: Ints, opacity: float) -> None:
    """Draw members by steps in the colours of their founders, which `cells` has the ranks of."""
    colours = ["rgba(0,0,0,0)", *COLOURS, OTHERS]
    many = len(colours)
    figure.add_heatmap(
        z=np.minimum(cells, NAMED), zmin=NOBODY - 0.5, zmax=NOBODY + many - 0.5,
        customdata=np.where(cells == NOBODY, NOBODY, history.founder[history.grid]),
        colorscale=[(n / many, colour) for i, colour in enumerate(colours) for n in (i, i + 1)],
        showscale=False, opacity=opacity, ygap=1 if history.population <= 60 else 0,
        hovertemplate="member %{y}, step %{x}: began as member %{customdata}<extra></extra>",
    )  # fmt: skip


def metric_of(history: History) -> str:
    """The best metric, as a label has it."""
    return "" if history.best is None else f"{history.metric[history.best]:.4g}"


@of_journal
def survival(history: History) -> Picture:
    """How many members go back to each founder, by step."""
    title = "Founders: how many members go back to each"
    if not len(history):
        return nothing(title, "no trial has begun yet")
    figure = picture(title)
    ranks, counts = founder_ranks(history), descendants(history)
    named = np.argsort(ranks)[:NAMED]
    steps = np.arange(history.steps)
    rest = counts.sum(axis=0) - counts[named].sum(axis=0)
    layers = [(f"member {founder}", counts[founder], COLOURS[i]) for i, founder in enumerate(named)]
    if rest.any():
        layers.append((f"{history.population - NAMED} more", rest, OTHERS))
    for name, count, colour in layers:
        figure.add_scatter(
            x=steps, y=count.astype(np.int32), name=name, stackgroup="founders", mode="lines",
            line={"width": 0, "shape": "hv"}, fillcolor=colour,
            hovertemplate=f"{name} at step %{{x}}: %{{y}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(**by_step(history))
    whole = {"dtick": 1} if history.population <= FEW else {}
    return figure.update_yaxes(title="members", **whole)


def copies(history: History) -> Copies:
    """All copies, and which of them are drawn."""
    trial = np.flatnonzero(history.copied)
    line = history.lineage(history.best)
    own = np.isin(trial, line)
    others = np.flatnonzero(~own)
    others = others[sampled(len(others), ARROWS)]
    return Copies(trial, history.parent[trial], np.union1d(np.flatnonzero(own), others))


def descendants(history: History) -> NDArray[np.int64]:
    """How many members' trials of each step go back to each founder: (N, steps)."""
    counts = np.zeros((history.population, history.steps), dtype=np.int64)
    np.add.at(counts, (history.founder, history.step), 1)
    return counts


def founder_ranks(history: History) -> Ints:
    """The place of each member among founders: who has most trials of the last steps is first."""
    counts = descendants(history)
    order = np.lexsort((np.arange(history.population), -counts.sum(axis=1), -counts[:, -1]))
    ranks = np.empty(history.population, dtype=np.int64)
    ranks[order] = np.arange(history.population)
    return ranks


def turned(history: History, donors: Ints, trials: Ints) -> Floats:
    """Which way each arrow points, in degrees from straight up: members upwards, or downwards."""
    return np.where(history.member[trials] > history.member[donors], 0.0, 180.0)
