"""What browsers are given by the report and by the page: styles, scripts, plotly.js."""

from functools import cache
from pathlib import Path

import plotly

FOLDER = Path(__file__).parent
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


@cache
def text(name: str) -> str:
    """The file `name` of this folder."""
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def plotly_js() -> str:
    """plotly.js, as the installed plotly has it: no network is asked."""
    return PLOTLY.read_text(encoding="utf-8")
