"""The commands that write files: every trial, and the report."""

import json
import os
from pathlib import Path
from typing import Literal

import click

from shoal.cli.entry import interruptible
from shoal.cli.words import tell, title
from shoal.home import ExperimentError
from shoal.result import open as result_of
from shoal.show.tables import comma_separated, names_of, plural
from shoal.views import columns, strict

Format = Literal["json", "csv"]


def export(experiment: str | None, home: Path | None, output: str, form: Format | None) -> None:
    """Write every trial to the file `output`, whole or not at all; "-" is stdout.

    Raises:
        ExperimentError: the format is not known, or the file cannot be written.
    """
    result = result_of(experiment, home=home)
    ending = Path(output).suffix.lower().removeprefix(".")
    if form is None and ending not in {"json", "csv"}:
        raise ExperimentError(
            f"{output} ends neither in .json nor in .csv: say which with --format"
        )
    exported = result.export()
    if (form or ending) == "csv":
        text = comma_separated(columns(exported, names_of(result)))
    else:
        text = json.dumps(strict(exported), indent=2, allow_nan=False) + "\n"
    what = f"{plural(len(exported), 'trial')} of {title(result.name, result.id)}"
    put(output, text, what)


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


def write(path: Path, text: str) -> None:
    """Make `path` hold `text`, whole or not at all.

    Raises:
        ExperimentError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with interruptible(), partial.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise ExperimentError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
