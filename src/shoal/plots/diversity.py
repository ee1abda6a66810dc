"""How different the members still are."""

import numpy as np
from plotly.subplots import make_subplots

from shoal.history import Domain, Floats, History
from shoal.plots.lineage import descendants
from shoal.plots.style import COLOURS, MIDDLE, Picture, escaped, nothing, of_journal, picture

LINES = [
    {"color": colour, "width": 1.5, "dash": dash}
    for dash in ("solid", "dash", "dot")
    for colour in COLOURS
]


@of_journal
def diversity(history: History) -> Picture:
    """The spread of each hyperparameter over the members, and how many founders are left."""
    title = "Diversity: spread of the hyperparameters, and founders left"
    if not len(history):
        return nothing(title, "no trial has begun yet")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.6, 0.4])
    picture(title, figure, height=460)
    steps = np.arange(history.steps)
    moving = [domain for domain in history.domains if not domain.fixed]
    for i, domain in enumerate(moving):
        name = escaped(domain.name)
        figure.add_scatter(
            x=steps, y=spread(history, domain), mode="lines", name=name, row=1, col=1,
            line=LINES[i % len(LINES)],
            hovertemplate=f"{name} at step %{{x}}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    alive, effective = founders(history)
    for name, count, dash in (("founders", alive, "solid"), ("effective", effective, "dot")):
        figure.add_scatter(
            x=steps, y=count, mode="lines", name=name, row=2, col=1,
            line={"color": MIDDLE, "width": 1.5, "dash": dash, "shape": "hv"},
            hovertemplate=f"%{{y:.3g}} {name} at step %{{x}}<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(title="spread", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="founders", rangemode="tozero", row=2, col=1)
    return figure.update_xaxes(title="step", row=2, col=1)


def spread(history: History, domain: Domain) -> Floats:
    """How far the members are apart in a hyperparameter, by step: (steps,).

    Of a number, the standard deviation as a share of its range (of its own first step, where it has
    no range), on the scale that it is moved on; of a choice, the chance that two members differ.
    """
    grid = history.on_grid(history.values[domain.name])
    if not domain.numeric:
        return unlike(grid, len(history.labels[domain.name]))
    low, high = domain.low, domain.high
    if domain.log:
        with np.errstate(divide="ignore", invalid="ignore"):
            grid = np.where(grid > 0, np.log(grid), np.nan)
        low, high = (None, None) if low is None or high is None else (np.log(low), np.log(high))
    deviation = np.full(grid.shape[1], np.nan)
    known = np.isfinite(grid).any(axis=0)
    deviation[known] = np.nanstd(grid[:, known], axis=0)
    whole = deviation[0] if low is None or high is None else high - low
    return deviation / whole if whole > 0 else deviation


def unlike(grid: Floats, options: int) -> Floats:
    """The chance that two members, drawn with return, have different options: (steps,)."""
    shares = np.stack([(grid == option).sum(axis=0) for option in range(options)]).astype(float)
    count = shares.sum(axis=0)
    with np.errstate(invalid="ignore"):
        result: Floats = 1.0 - ((shares / count) ** 2).sum(axis=0)
    return result


def founders(history: History) -> tuple[Floats, Floats]:
    """(founders with descendants, how many of equal size would be as diverse) by step: (steps,).

    The second is the inverse of Simpson's index: 1 over the sum of the squared shares.
    """
    counts = descendants(history)
    alive = (counts > 0).sum(axis=0).astype(float)
    shares = counts / counts.sum(axis=0)
    return alive, 1.0 / (shares**2).sum(axis=0)
