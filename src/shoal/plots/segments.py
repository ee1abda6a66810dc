"""Which hyperparameters went with which gain: each step of each member a line."""

import numpy as np

from shoal.history import NOBODY, Domain, Floats, History, Ints
from shoal.plots.style import INK, Picture, escaped, nothing, of_journal, picture, sampled, shown

LINES = 2000  # as many are drawn, of the best gains more


@of_journal
def parallel(history: History) -> Picture:
    """Parallel coordinates of the steps: hyperparameters, the metric, and what the step gained.

    Drawn step by step and not by member: under PBT a member's hyperparameters change as it goes.
    """
    title = "Steps: hyperparameters, and what a step under them gained"
    gained = gains(history)
    there = np.flatnonzero(np.isfinite(gained))
    if not len(there):
        return nothing(title, "no step has gone on from another one yet")
    kept = there[chosen(gained[there])]
    moving = [domain for domain in history.domains if not domain.fixed]
    dimensions = [
        {"label": "step", "values": history.step[kept]},
        *(dimension(history, domain, kept) for domain in moving),
        {"label": escaped(history.called), "values": history.metric[kept]},
        {"label": "gain", "values": gained[kept]},
    ]
    figure = picture(title)
    ends = np.nanpercentile(gained[kept], [5, 95])
    figure.add_parcoords(
        dimensions=dimensions,
        line={
            "color": gained[kept], "colorscale": "Cividis", "cmin": ends[0], "cmax": ends[1],
            "showscale": True, "colorbar": {"title": {"text": "gain"}, "thickness": 10},
        },
        labelfont={"color": INK}, tickfont={"color": INK}, rangefont={"color": INK},
    )  # fmt: skip
    return figure.update_layout(margin={"l": 70, "r": 30, "t": 90, "b": 30})


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


def dimension(history: History, domain: Domain, kept: Ints) -> dict[str, object]:
    """The axis of a hyperparameter; a logarithmic one has its labels at powers of ten."""
    values, name = history.values[domain.name][kept], escaped(domain.name)
    if not domain.numeric:
        labels = history.labels[domain.name]
        ticks = {"tickvals": list(range(len(labels))), "ticktext": shown(labels)}
        return {"label": name, "values": values, **ticks}
    if not domain.log:
        return {"label": name, "values": values}
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(values > 0, np.log10(values), np.nan)
    low, high = np.nanmin(logs), np.nanmax(logs)
    powers = np.arange(np.floor(low), np.ceil(high) + 1)
    texts = [f"{10**power:.0e}" for power in powers]
    return {"label": name, "values": logs, "tickvals": powers.tolist(), "ticktext": texts}
