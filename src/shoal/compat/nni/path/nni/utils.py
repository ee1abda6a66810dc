"""What trials import from ``nni.utils``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ._absent import absent

__all__ = ["merge_parameter"]

# As that of a package without modules: what is imported of it and is not there is looked for, and
# so is told of by the finder in `nni`, where Python would say "cannot import name" and no more.
__path__: list[str] = []

Base = TypeVar("Base")

_ABSENT = object()


def merge_parameter(base_params: Base, override_params: Mapping[str, Any] | None) -> Base:
    """The base parameters, updated in place with a trial's own.

    As in NNI each overriding key must be one of the base's and its value of the base's type, where
    the base has one (is not None). Beyond NNI a whole number passes for a float, since a choice of
    ``[0, 0.5]`` has both. Unlike in NNI nothing is updated where something is refused.

    Args:
        base_params: A dict, or what `argparse` returned: then the script's arguments must include
            ``--load_checkpoint_dir`` and ``--save_checkpoint_dir``, for a trial gets both.
        override_params: What `get_next_parameter` returned, or None for nothing.

    Raises:
        ValueError: A key is not in the base parameters.
        TypeError: A value is of another type than the base's.
    """
    if override_params is None:
        return base_params
    for key, value in override_params.items():
        if isinstance(base_params, dict):
            old = base_params.get(key, _ABSENT)
        else:
            old = getattr(base_params, key, _ABSENT)
        if old is _ABSENT:
            raise ValueError(f"Key '{key}' not found in base parameters.")
        # Not isinstance: True is an int, and a flag is no batch size.
        fits = old is None or type(value) is type(old) or (type(old), type(value)) == (float, int)
        if not fits:
            raise TypeError(
                f"Expected '{key}' in override parameters to have type "
                f"'{type(old).__name__}', but found '{type(value).__name__}': {value!r}"
            )
    if isinstance(base_params, dict):
        base_params.update(override_params)
    else:
        for key, value in override_params.items():
            setattr(base_params, key, value)
    return base_params


def __getattr__(name: str) -> Any:
    raise AttributeError(absent(f"{__name__}.{name}"))
