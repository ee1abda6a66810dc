"""What is said of what NNI has and this package has not."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["absent"]


def absent(name: str) -> str:
    """The words for the missing `name`, which begins with that of its module."""
    there = ", ".join(f"nni.{public}" for public in sys.modules["nni"].__all__)
    return (
        f"there is no {name}: this is the trial side of NNI that shoal gives its trials "
        f"({Path(__file__).with_name('__init__.py')}). It has {there}. Whatever else "
        "a script needs of NNI it cannot use as a trial of shoal."
    )
