"""NNI's module as a trial sees it, for trials that shoal runs: they need no change and no NNI.

shoal puts the folder above this package first on the trial's import path, so that it is found here
whether or not NNI is installed. Only the standard library is imported. This is the trial side and
nothing else: experiments are started with ``shoal run``, and what NNI has besides is not here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import IO, Any

from . import utils
from ._absent import absent
from .trial import (
    get_current_parameter,
    get_experiment_id,
    get_next_parameter,
    get_next_parameters,
    get_sequence_id,
    get_trial_id,
    report_final_result,
    report_intermediate_result,
    silence_stdout,
)

__all__ = [
    "NoMoreTrialError",
    "dump",
    "enable_global_logging",
    "get_current_parameter",
    "get_experiment_id",
    "get_next_parameter",
    "get_next_parameters",
    "get_sequence_id",
    "get_trial_id",
    "load",
    "report_final_result",
    "report_intermediate_result",
    "silence_stdout",
    "trace",
    "utils",
]

# NNI's last release, whose trial side this is. Scripts compare it to choose among NNI's own old
# spellings, so it is not shoal's version.
__version__ = "3.0"


class NoMoreTrialError(Exception):
    """There are no more trials. Never raised by shoal; here for the scripts that catch it."""

    def __init__(self, ErrorInfo: str = "") -> None:  # noqa: N803 - NNI's name, may be a keyword
        super().__init__(ErrorInfo)
        self.errorinfo = ErrorInfo


def trace(
    cls_or_func: Any = None, *, kw_only: bool = True, inheritable: bool = False
) -> Callable[[Any], Any] | Any:
    """What it was given, unchanged; with options alone, a decorator that does the same.

    NNI records the arguments of traced calls for its architecture search, of which shoal has none.
    """
    del kw_only, inheritable
    return (lambda traced: traced) if cls_or_func is None else cls_or_func


def dump(
    obj: Any, fp: IO[str] | None = None, *, allow_nan: bool = True, indent: int | None = None
) -> str:
    """The JSON text of a value, also written to `fp` where there is one.

    Raises:
        TypeError: It holds something that is neither JSON's nor a scalar of numpy or torch.
        ValueError: It holds NaN or an infinity, which `allow_nan` forbids.
    """
    text = json.dumps(obj, default=_scalar, allow_nan=allow_nan, indent=indent)
    if fp is not None:
        fp.write(text)
    return text


def load(string: str | None = None, *, fp: IO[str] | None = None) -> Any:
    """The value of a JSON text, or of the file `fp`.

    Raises:
        ValueError: There is neither, or it is not JSON.
    """
    if fp is not None:
        string = fp.read()
    if string is None:
        raise ValueError("nni.load() needs a string, or a file as fp=")
    return json.loads(string)


def enable_global_logging(enable: bool = True) -> None:
    """Show the log messages of all modules on stdout, from INFO up; False undoes it.

    As in NNI the root logger keeps its level when undone.
    """
    import logging  # noqa: PLC0415 - as slow as the rest of this package, and seldom asked for

    root = logging.getLogger()
    while _handlers:
        root.removeHandler(_handlers.pop())
    if enable:
        handler = logging.StreamHandler(sys.stdout)
        form = "[%(asctime)s] %(levelname)s (%(name)s/%(threadName)s) %(message)s"
        handler.setFormatter(logging.Formatter(form, "%Y-%m-%d %H:%M:%S"))
        _handlers.append(handler)
        root.addHandler(handler)
        root.setLevel(logging.INFO)


_handlers: list[Any] = []


def __getattr__(name: str) -> Any:
    raise AttributeError(absent(f"{__name__}.{name}"))


class _Absent:
    """Finds nothing, and says why: imports of the modules that NNI has and this package has not.

    Without it `from nni import experiment` would say "cannot import name" and leave the user to
    wonder what is wrong with their NNI. It stands last among the finders, so it is asked only
    when there is no such module.
    """

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Nothing, for whatever is not this package's.

        Raises:
            ModuleNotFoundError: It would be this package's, and is not here.
        """
        del path, target
        if fullname.startswith(f"{__name__}.") and sys.modules.get(__name__) is _here:
            # Without name=, by which the import system would know the error and replace it.
            raise ModuleNotFoundError(absent(fullname))


_here = sys.modules[__name__]
sys.meta_path.append(_Absent)


def _scalar(value: Any) -> Any:
    try:
        return value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise TypeError(f"nni.dump() cannot write {value!r} as JSON") from None
