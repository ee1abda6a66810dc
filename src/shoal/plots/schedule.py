"""What PBT has found: the hyperparameters along the winner's ancestry."""

import numpy as np
from plotly.subplots import make_subplots

from shoal.history import History
from shoal.plots.style import (
    FAINT,
    POINTS,
    WINNER,
    Picture,
    axis,
    escaped,
    nothing,
    of_journal,
    picture,
    sampled,
)  # fmt: skip

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
    figure = make_subplots(
        rows=len(moving), cols=1, shared_xaxes=True, vertical_spacing=0.3 / max(3, len(moving) + 1)
    )
    picture(title, figure, height=90 + HEIGHT * len(moving), showlegend=False)
    line = history.lineage(history.best)
    dots = sampled(len(history), POINTS // len(moving))
    for row, domain in enumerate(moving, start=1):
        values, labels = history.values[domain.name], history.labels.get(domain.name, ())
        there = dots[np.isfinite(values[dots])]
        name = escaped(domain.name)
        figure.add_scatter(
            x=history.step[there], y=values[there], customdata=history.member[there],
            row=row, col=1, name="others", mode="markers", marker={"color": FAINT, "size": 3},
            hovertemplate=f"member %{{customdata}}, step %{{x}}: {name} %{{y}}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=history.step[line], y=values[line], customdata=history.member[line], row=row, col=1,
            name="winner", mode="lines+markers" if len(line) < 2 else "lines",
            line={"color": WINNER, "width": 2.5, "shape": "hv"},
            hovertemplate=f"step %{{x}} (member %{{customdata}}): {name} %{{y}}<extra></extra>",
        )  # fmt: skip
        figure.update_yaxes(title=name, row=row, col=1, **axis(domain, labels))
    return figure.update_xaxes(title="step", row=len(moving), col=1)
