"""What the members' time went into."""

import numpy as np

from shoal.history import FAILED, NOBODY, Floats, History, Ints
from shoal.plots.style import (
    BAD,
    GOOD,
    OTHERS,
    WINNER,
    Picture,
    nothing,
    of_journal,
    pairs,
    picture,
    times,
)  # fmt: skip

BARS = 3000  # trials that are drawn one by one
PARTS = 400  # of the time, where there are more


@of_journal
def timeline(history: History) -> Picture:
    """When each member trained, was saved, and waited: for a slot, or the others of its step.

    What a script saves is part of its training.
    """
    title = "Timeline: training, saving, and waiting"
    begun = np.flatnonzero(np.isfinite(history.decided))
    if not len(begun):
        return nothing(title, "no trial has begun yet")
    if len(begun) > BARS:
        return busy(history, title)
    figure = picture(title)
    for name, colour, width, (who, begin, end) in (
        ("waiting", OTHERS, 2, waits(history)),
        ("training", GOOD, 9, trained(history, failed=False)),
        ("failed", BAD, 9, trained(history, failed=True)),
        ("saving", WINNER, 5, saves(history)),
    ):
        figure.add_scatter(
            x=times(pairs(begin, end)), y=pairs(who, who), mode="lines", name=name,
            line={"color": colour, "width": width},
            hovertemplate=f"member %{{y}}: {name}, %{{x}}<extra></extra>",
        )  # fmt: skip
    return figure.update_yaxes(title="member", zeroline=False)


def busy(history: History, title: str) -> Picture:
    """The share of time that each member trained, where there are too many trials for bars."""
    figure = picture(title)
    who, begin, end = trained(history)
    low, high = begin.min(), end.max()
    edges = np.linspace(low, high, PARTS + 1)
    share = np.zeros((history.population, PARTS))
    width = (high - low) / PARTS or 1.0
    for member in range(history.population):
        mine = who == member
        # the time trained before each edge; its differences are what was trained between two
        starts, ends = np.sort(begin[mine]), np.sort(end[mine])
        before = passed(starts, edges) - passed(ends, edges)
        share[member] = np.diff(before) / width
    figure.add_heatmap(
        x=times((edges[:-1] + edges[1:]) / 2), z=np.clip(share, 0, 1).astype(np.float32),
        colorscale="Cividis", zmin=0, zmax=1,
        colorbar={"title": {"text": "training"}, "tickformat": ".0%", "thickness": 10},
        hovertemplate="member %{y}, %{x}: training %{z:.0%} of the time<extra></extra>",
    )  # fmt: skip
    return figure.update_yaxes(title="member", zeroline=False)


def passed(moments: Floats, edges: Floats) -> Floats:
    """The time that has passed at each edge since the moments before it, all together."""
    count = np.searchsorted(moments, edges)
    total = np.concatenate([[0.0], np.cumsum(moments)])[count]
    result: Floats = count * edges - total
    return result


def trained(history: History, *, failed: bool | None = None) -> tuple[Ints, Floats, Floats]:
    """(member, begin, end) of all that was trained, as far as it has come."""
    begin = np.where(np.isfinite(history.started), history.started, history.decided)
    there = np.isfinite(history.ended)
    if failed is not None:
        there &= (history.state == FAILED) == failed
    ids = np.flatnonzero(there)
    return history.member[ids], begin[ids], history.ended[ids]


def saves(history: History) -> tuple[Ints, Floats, Floats]:
    """(member, begin, end) of each state that was saved, where workers hold states."""
    ids = np.flatnonzero(np.isfinite(history.saved))
    end = history.saved[ids]
    return history.member[ids], end - history.saving[ids], end


def waits(history: History) -> tuple[Ints, Floats, Floats]:
    """(member, begin, end) of the time between a member's trials."""
    ids = np.flatnonzero((history.before != NOBODY) & np.isfinite(history.started))
    begin = history.ended[history.before[ids]]
    known = np.isfinite(begin)
    ids, begin = ids[known], begin[known]
    return history.member[ids], begin, np.maximum(begin, history.started[ids])
