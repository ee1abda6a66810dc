"""Pictures of an experiment, from its journal alone: each call gives a plotly figure.

    import shoal.plots

    shoal.plots.population(shoal.open())

In a notebook a figure shows itself; its `write_html(file)` keeps it. `shoal report` and `shoal ui`
show the same ones.
"""

from collections.abc import Callable, Mapping

from shoal.history import History
from shoal.plots.diversity import diversity
from shoal.plots.exploits import exploits
from shoal.plots.lineage import lineage, survival
from shoal.plots.population import population
from shoal.plots.schedule import schedule
from shoal.plots.segments import parallel
from shoal.plots.style import Picture
from shoal.plots.timeline import timeline
from shoal.result import Result

__all__ = [
    "PICTURES", "diversity", "exploits", "lineage", "parallel", "population", "schedule",
    "survival", "timeline",
]  # fmt: skip

# by name, in the order in which they tell the story
PICTURES: Mapping[str, Callable[[Result | History], Picture]] = {
    "population": population,
    "schedule": schedule,
    "lineage": lineage,
    "survival": survival,
    "exploits": exploits,
    "diversity": diversity,
    "parallel": parallel,
    "timeline": timeline,
}
