"""What all pictures have in common: colours, axes, and how much of a long line is drawn."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeAlias

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from shoal.history import Domain, Flags, Floats, History, Ints
from shoal.result import Result

Picture: TypeAlias = go.Figure

# Okabe and Ito's colours, which those who see colours otherwise can tell apart; their black aside
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
WINNER, OTHERS, FAINT = "#D55E00", "#8a8f98", "rgba(138,143,152,0.45)"
GOOD, BAD = "#009E73", "#CC79A7"
BAND = "rgba(0,114,178,0.18)"
MIDDLE = "#0072B2"
INK, GRID = "#7b8088", "rgba(138,143,152,0.25)"  # to be read on white and on black
LONG = ("x", "y", "z", "customdata")
FEW_STEPS = 12  # each of which has a tick
POINTS = 12_000  # of one picture, at most: as many as a screen can show


def of_journal(draw: Callable[[History], Picture]) -> Callable[[Result | History], Picture]:
    """`draw`, given an experiment or what was read of one before."""

    @wraps(draw)
    def drawn(experiment: Result | History) -> Picture:
        history = experiment if isinstance(experiment, History) else History.of(experiment)
        return lean(draw(history))

    return drawn


def lean(figure: go.Figure) -> go.Figure:
    """`figure` with its long arrays in as few bytes as a screen needs."""
    for trace in figure.data:
        for key in LONG:
            values = trace[key] if key in trace else None  # noqa: SIM401 (no dict)
            if isinstance(values, np.ndarray) and values.dtype.kind in "if":
                trace[key] = values.astype(smallest(values))
    return figure


def smallest(values: NDArray[Any]) -> np.dtype[Any]:
    """The type for `values` that takes the least room."""
    if values.dtype.kind == "f":
        return np.dtype(np.float32)
    ends = (values.min(initial=0), values.max(initial=0))
    return np.result_type(*(np.min_scalar_type(end) for end in (*ends, -1)))


def picture(title: str, figure: go.Figure | None = None, **layout: Any) -> go.Figure:
    """An empty picture, or `figure`, in our style."""
    figure = go.Figure() if figure is None else figure
    figure.update_layout(
        template="none",
        title={"text": title, "x": 0, "xanchor": "left", "font": {"size": 15}},
        font={"color": INK, "size": 12, "family": "system-ui, sans-serif"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 60, "r": 16, "t": 44, "b": 76},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
        colorway=list(COLOURS),
        **layout,
    )
    plain: dict[str, Any] = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID}
    figure.update_xaxes(exponentformat="e", automargin=True, **plain)  # 1e-4, and not 100µ
    figure.update_yaxes(exponentformat="e", automargin=True, **plain)
    return figure


def by_step(history: History) -> dict[str, Any]:
    """The axis of steps, which are whole numbers."""
    return {"title": "step", "dtick": 1} if history.steps <= FEW_STEPS else {"title": "step"}


def nothing(title: str, why: str) -> go.Figure:
    """A picture that says why there is nothing to be seen yet."""
    figure = picture(title)
    figure.add_annotation(text=why, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure.update_xaxes(visible=False).update_yaxes(visible=False)


def escaped(text: str) -> str:
    """`text` as plotly shows it letter by letter: it takes some HTML, such as links."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def segments(points: NDArray[Any], first: Flags) -> Floats:
    """`points` with a NaN, which is a gap in a line, before each that is the `first` of its own."""
    return np.insert(points.astype(float), np.flatnonzero(first)[1:], np.nan)


def pairs(begin: NDArray[Any], end: NDArray[Any]) -> Floats:
    """Lines from each of `begin` to its `end`, in one trace: a NaN between two is a gap."""
    gaps = np.full(len(begin), np.nan)
    return np.stack([begin.astype(float), end, gaps], axis=1).ravel()[:-1]


def thinned(y: NDArray[Any], most: int) -> Ints:
    """The indices of at most `most` points of a line, peaks and ends included.

    The line is cut into stretches of equal length, of each of which the lowest and the highest
    point stay: what is drawn looks the same while a stretch is no wider than a pixel.
    """
    size = len(y)
    if size <= most:
        return np.arange(size)
    wide = -(-size // max(1, (most - 2) // 2))  # a stretch
    rest = -size % wide
    kept = [0, size - 1]
    for fill, pick in ((np.inf, np.argmin), (-np.inf, np.argmax)):
        known = np.where(np.isfinite(y), y, fill)
        rows = np.pad(known, (0, rest), constant_values=fill).reshape(-1, wide)
        peaks = pick(rows, axis=1)
        there = rows[np.arange(len(rows)), peaks] != fill
        kept += (peaks + wide * np.arange(len(rows)))[there].tolist()
    return np.unique(kept)


def sampled(count: int, most: int) -> Ints:
    """At most `most` of so many indices, evenly."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).astype(int))


def axis(domain: Domain, labels: Sequence[str] = ()) -> dict[str, Any]:
    """How the axis of a hyperparameter is drawn."""
    if domain.numeric:
        return {"type": "log"} if domain.log else {}
    return {"tickmode": "array", "tickvals": list(range(len(labels))), "ticktext": shown(labels)}


def shown(labels: Sequence[str]) -> list[str]:
    """Names as they fit beside an axis."""
    return [escaped(label if len(label) <= 24 else f"{label[:23]}…") for label in labels]


def times(seconds: Floats) -> NDArray[np.datetime64]:
    """Seconds since the epoch as an axis of dates takes them."""
    return (seconds * 1000).astype("datetime64[ms]")
