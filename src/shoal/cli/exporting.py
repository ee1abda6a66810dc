"""The commands that write what there is elsewhere: every trial, and the report."""

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from shoal.cli.entry import interruptible
from shoal.cli.words import tell, title
from shoal.config import TRACKERS
from shoal.home import ExperimentError
from shoal.result import Result
from shoal.result import open as result_of
from shoal.show.tables import comma_separated, names_of, plural
from shoal.views import columns, strict

FILES = ("json", "csv", "parquet")


def export(experiment: str | None, home: Path | None, output: str | None, form: str | None) -> None:
    """Write every trial to the file `output`, whole or not at all, or tell a tracker of it.

    Args:
        experiment: which.
        home: where experiments are kept.
        output: the file, "-" for stdout; of a tracker, where to, if not where it does by itself.
        form: one of `FILES` or the name of a tracker; None: as the file ends.

    Raises:
        ExperimentError: the format is not known, or the file cannot be written.
    """
    if output is None and form not in TRACKERS:
        raise click.UsageError("Missing option '-o' / '--output'.")
    result = result_of(experiment, home=home)
    if form in TRACKERS:
        track(result, form, output)
        return
    assert output is not None
    kind = form or Path(output).suffix.lower().removeprefix(".")
    if kind not in FILES:
        endings = ", ".join(f".{name}" for name in FILES)
        raise ExperimentError(f"{output} ends in none of {endings}: say which with --format")
    exported = result.export()
    what = f"{plural(len(exported), 'trial')} of {title(result.name, result.id)}"
    if kind == "parquet":
        write(Path(output), parquet(columns(exported, names_of(result))))
        tell(f"{what} in {output}")
    elif kind == "csv":
        put(output, comma_separated(columns(exported, names_of(result))), what)
    else:
        put(output, json.dumps(strict(exported), indent=2, allow_nan=False) + "\n", what)


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """`rows` as a Parquet file: numbers are numbers, and what is nested is JSON.

    Raises:
        ExperimentError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 (an extra)
        from pyarrow import parquet as files  # noqa: PLC0415
    except ImportError as error:
        raise ExperimentError(
            "to write Parquet, pyarrow has to be installed: `pip install shoal[parquet]`"
        ) from error
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: column([row.get(name) for row in rows]) for name in names})
    file = io.BytesIO()
    files.write_table(table, file)
    return file.getvalue()


def column(values: Sequence[Any]) -> list[Any]:
    """`values` as one type: as they are, or, where that cannot be, as text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) <= 1 and not kinds & {dict, list, tuple}:
        return list(values)
    return [
        value if value is None or isinstance(value, str) else json.dumps(value) for value in values
    ]


def track(result: Result, name: str, where: str | None) -> None:
    """Tell a tracker of all that is in the journal.

    Raises:
        ExperimentError: its library is not installed, or it cannot be told.
    """
    from shoal import trackers  # noqa: PLC0415 (they wait for libraries)
    from shoal.trackers.following import tell_all  # noqa: PLC0415

    what = name if where is None else f"{name}={where}"
    trackers.installed(what)
    with interruptible():
        steps = tell_all(result.folder, what, Path.cwd())
    tell(f"{plural(steps, 'step')} of {title(result.name, result.id)} told to {what}")


def report(experiment: str | None, home: Path | None, output: str) -> None:
    """Write the report of an experiment to the file `output`, whole or not at all.

    Raises:
        ExperimentError: the file cannot be written.
    """
    from shoal.report import report as made  # noqa: PLC0415 (plotly and numpy take long)

    result = result_of(experiment, home=home)
    put(output, made(result), f"the report of {title(result.name, result.id)}")


def put(output: str, text: str, what: str) -> None:
    """Write `text`, and say `what` it is; "-" is stdout."""
    if output == "-":
        click.echo(text, nl=False)
        return
    write(Path(output), text)
    tell(f"{what} in {output}")


def write(path: Path, text: str | bytes) -> None:
    """Make `path` hold `text`, whole or not at all.

    Raises:
        ExperimentError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with interruptible(), partial.open("xb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise ExperimentError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
