from pathlib import Path

import pytest

from shoal.runners.preload import imports_of

SCRIPT = """
from __future__ import annotations
import os, sys as system
import numpy.random as r
from sklearn.linear_model import SGDClassifier
from . import sibling
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import heavy
else:
    import light
try:
    import orjson
except ImportError:
    import json
with open(os.devnull):
    import within
for _ in ():
    import looped
import helpers, package.part
from package import thing
def main():
    import lazily
class C:
    import inside
if __name__ == "__main__":
    import argparse
"""


def test_what_a_script_imports_when_it_starts(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "helpers.py").write_text("import torch, helpers\nfrom package import other\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("import pandas\n")
    (tmp_path / "package" / "part.py").write_text("import scipy.stats\n")
    assert imports_of(tmp_path / "train.py") == [
        "os", "sys", "numpy.random", "sklearn.linear_model", "typing", "light", "orjson", "json",
        "within", "looped", "torch", "pandas", "scipy.stats", "argparse",
    ]  # fmt: skip


@pytest.mark.parametrize("content", [b"def broken(:", b"\xff\xfe\0", b"import \0"])
def test_what_cannot_be_parsed_imports_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.py").write_bytes(content)
    assert imports_of(tmp_path / "train.py") == []
    assert imports_of(tmp_path / "missing.py") == []
