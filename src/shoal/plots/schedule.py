"""What PBT has found: the hyperparameters along the winner's ancestry."""

import numpy as np
from plotly.subplots import make_subplots

from shoal.history import Floats, History
from shoal.plots.style import (
    FAINT,
    POINTS,
    WINNER,
    Picture,
    axis,
    by_step,
    escaped,
    nothing,
    of_journal,
    picture,
    sampled,
)  # fmt: skip

COLUMNS = ((4, 1), (10, 2), (10**9, 3))  # of so many hyperparameters, in how many columns
HEIGHT = 150  # of a hyperparameter's part, in pixels


@of_journal
def schedule(history: History) -> Picture:
    """Every hyperparameter by step: of the winner's ancestry as a line, of all others as dots."""
    title = "Schedule: the winner's hyperparameters by step"
    moving = [domain for domain in history.domains if not domain.fixed]
    if history.best is None:
        return nothing(title, "no trial has finished yet")
    if not moving:
        return nothing(title, "every hyperparameter is fixed")
    line = history.lineage(history.best)
    moving.sort(key=lambda domain: -changes(history.values[domain.name][line]))
    cols = next(cols for most, cols in COLUMNS if len(moving) <= most)
    rows = -(-len(moving) // cols)
    figure = make_subplots(
        rows=rows, cols=cols, shared_xaxes="all", vertical_spacing=0.36 / max(3, rows + 1),
        horizontal_spacing=0.08, subplot_titles=[escaped(domain.name) for domain in moving],
    )  # fmt: skip
    picture(title, figure, height=100 + HEIGHT * rows, showlegend=False)
    figure.update_annotations(font_size=12)
    figure.update_layout(margin_t=64)
    dots = sampled(len(history), POINTS // len(moving))
    for place, domain in enumerate(moving):
        row, col = place // cols + 1, place % cols + 1
        values, labels = history.values[domain.name], history.labels.get(domain.name, ())
        there = dots[np.isfinite(values[dots])]
        name = escaped(domain.name)
        figure.add_scatter(
            x=history.step[there], y=values[there], customdata=history.member[there],
            row=row, col=col, name="others", mode="markers", marker={"color": FAINT, "size": 3},
            hovertemplate=f"member %{{customdata}}, step %{{x}}: {name} %{{y}}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=history.step[line], y=values[line], customdata=history.member[line], row=row, col=col,
            name="winner", mode="lines+markers" if len(line) < 2 else "lines",
            line={"color": WINNER, "width": 2.5, "shape": "hv"},
            hovertemplate=f"step %{{x}} (member %{{customdata}}): {name} %{{y}}<extra></extra>",
        )  # fmt: skip
        figure.update_yaxes(row=row, col=col, **axis(domain, labels))
        if place + cols >= len(moving):
            figure.update_xaxes(row=row, col=col, showticklabels=True, **by_step(history))
    return figure


def changes(values: Floats) -> int:
    """How often a hyperparameter changes along a line."""
    return int((values[1:] != values[:-1]).sum())
