"""Population based training for any training code.

What is here is loaded when it is first used, so that a trial or `shoal status` does not wait for
what only a controller needs. The names and their types are in `__init__.pyi`.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Config": "shoal.config",
    "ConfigError": "shoal.config",
    "Ray": "shoal.config",
    "Branch": "shoal.core.space",
    "Choice": "shoal.core.space",
    "Fixed": "shoal.core.space",
    "Float": "shoal.core.space",
    "Int": "shoal.core.space",
    "Normal": "shoal.core.space",
    "Space": "shoal.core.space",
    "SpaceError": "shoal.core.space",
    "Truncation": "shoal.core.exploit",
    "Perturb": "shoal.core.explore",
    "Shift": "shoal.core.explore",
    "ProtocolError": "shoal.core.population",
    "Failed": "shoal.core.records",
    "Finished": "shoal.core.records",
    "Trial": "shoal.core.records",
    "Tuner": "shoal.core.tuner",
    "Trainable": "shoal.trainable",
    "check": "shoal.checking",
    "resume": "shoal.experiment",
    "run": "shoal.experiment",
    "ShoalWarning": "shoal.experiment",
    "Observer": "shoal.controller",
    "ExperimentError": "shoal.home",
    "Result": "shoal.result",
    "open": "shoal.result",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (the static list is in the stub)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"shoal has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
