"""shoal's trial protocol, for an interpreter that may have no shoal.

This package is found through the trial's import path and not through an installation, so it cannot
import shoal; but the protocol is to be written once. So the one file is loaded by where it lies.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

__all__ = ["protocol"]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_shoal_trial", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load shoal's trial protocol from {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# shoal/compat/nni/path/nni/_protocol.py -> shoal/trial.py
protocol = _load(Path(__file__).resolve().parents[4] / "trial.py")
