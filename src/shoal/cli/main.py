"""The entry point of `shoal`: arguments in, an exit code out.

    0    done
    1    the run, or a check, failed
    2    bad usage, a bad file, an experiment that is not there or not to be had
    130  interrupted

What a command does is imported when it is called, so that `shoal --help` and `shoal status` wait
for no part of shoal that only a run needs.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from shoal.cli import entry

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed: `shoal run >&-`
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # no terminal is too poor for an arrow
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: list[str]) -> int:
    """The exit code of `shoal` with these arguments. Whatever goes wrong is told in plain words."""
    try:
        code: int | None = cli.main(arguments, prog_name="shoal", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # click exits where a pipe is broken, and nowhere else
        entry.unread()  # the reader has seen enough
        return DONE
    except click.ClickException as error:
        return misused(error)
    except Exception as error:  # noqa: BLE001 (nobody should have to read a traceback)
        return unable(error)
    return code or DONE


def misused(error: click.ClickException) -> int:
    """The exit code of arguments that are wrong, after saying how."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return REFUSED
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "shoal"
    return refused(f"{error.format_message()} See `{command} --help`.")


def unable(error: Exception) -> int:
    """The exit code of a command that cannot do what it should, after saying why."""
    from shoal.documents import ConfigError
    from shoal.home import ExperimentError

    if isinstance(error, ConfigError | ExperimentError):
        return refused(str(error))
    if os.environ.get("SHOAL_DEBUG"):
        raise error
    refused(f"{type(error).__name__}: {error}\nSHOAL_DEBUG=1 shows where this comes from.")
    return FAILED


def refused(message: str) -> int:
    """The exit code of what could not be done, after saying why."""
    from shoal.cli.words import complain

    complain(message)
    return REFUSED


Command = Callable[..., Any]


def looks(command: Command) -> Command:
    """A command that shows something of an experiment, as a table or as JSON."""
    for option in (home_option, json_option, experiment_argument):
        command = option(command)
    return command


def limits(command: Command) -> Command:
    """A command that may change how far an experiment goes."""
    for option in (
        click.option("--target", type=float, help="The metric at which to stop."),
        click.option(
            "--max-duration", metavar="TIME", help="Seconds, or 10m and the like, in all."
        ),
        click.option(
            "--max-trials", type=click.IntRange(1), help="How many trials are started, in all."
        ),
        workers_option,
        click.option("--steps", type=click.IntRange(1), help="Steps of each member, in all."),
    ):
        command = option(command)
    return command


home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where experiments are kept.  [default: $SHOAL_HOME, or ~/shoal-experiments]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
workers_option = click.option(
    "--workers", type=click.IntRange(1), help="How many trials run at a time."
)
experiment_argument = click.argument("experiment", required=False)
gpus_option = click.option(
    "--gpus-per-trial", type=float, help="GPUs of a trial, in place of the file's; 0 for none."
)
env_option = click.option(
    "--env",
    multiple=True,
    metavar="NAME=VALUE",
    callback=lambda *given: variables(given[-1]),
    help="A variable for the environment of trials; may be given again.",
)
on_option = click.option(
    "--on",
    type=click.Choice(["local", "ray"]),
    help="Where trials run: on this machine, or on a Ray cluster.",
)
address_option = click.option(
    "--address",
    metavar="WHERE",
    help="Of the Ray cluster: auto, HOST:PORT or ray://HOST:PORT.  [default: $RAY_ADDRESS, or a "
    "new one on this machine]",
)
track_option = click.option(
    "--track",
    multiple=True,
    metavar="NAME[=WHERE]",
    help="tensorboard, mlflow or wandb: is told of each step; may be given again.",
)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    callback=lambda *given: settings(given[-1]),
    help="Any key of the experiment file, in place of what it says; may be given again.",
)
config_argument = click.argument("config", type=click.Path(path_type=Path))


def settings(given: Sequence[str]) -> dict[str, Any]:
    """The keys of the experiment file in KEY=VALUE texts, each value as YAML has it.

    Raises:
        BadParameter: one is none.
    """
    if not given:
        return {}
    import yaml

    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise click.BadParameter(f"expected KEY=VALUE, a key of the file, got {text!r}.")
        if key in found:
            raise click.BadParameter(f"{key} is given twice.")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise click.BadParameter(f"{key}: expected a value in YAML, got {value!r}.") from None
    return found


def variables(given: Sequence[str]) -> dict[str, str] | None:
    """The variables in NAME=VALUE texts; None if there are none."""
    for text in given:
        if "=" not in text:
            raise click.BadParameter(f"expected NAME=VALUE, got {text!r}.")
    return {name: value for name, _, value in (text.partition("=") for text in given)} or None


class Commands(click.Group):
    """Commands that are listed in the order of this file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="shoal", message="%(prog)s %(version)s")
def cli() -> None:
    """Population based training for any training code.

    Train a population of models together; get the best model, and the hyperparameter schedule
    that made it. An EXPERIMENT is named by its id, its name or its folder; without one, the newest
    is meant.
    """


# ---------------------------------------------------------------------- running


@cli.command()
@config_argument
@click.option("--name", help="What to call the experiment.")
@click.option("--seed", type=int, help="The same seed, the same decisions.")
@click.option("--steps", type=click.IntRange(1), help="Steps of each member.")
@click.option("--control", type=click.IntRange(0), help="How many of the members never copy.")
@workers_option
@gpus_option
@env_option
@on_option
@address_option
@track_option
@set_option
@home_option
def run(**options: Any) -> int:
    """Run the experiment that the file CONFIG describes.

    CONFIG is in shoal's own form, or in one of NNI's for its PBTTuner. What the options say
    stands in place of what it says.
    """
    from shoal.cli import running

    return running.run(**options)


@cli.command()
@experiment_argument
@limits
@on_option
@address_option
@home_option
def resume(experiment: str | None, **options: Any) -> int:
    """Go on with an experiment.

    With one that was stopped or killed as if it had not been; with one that has ended if there are
    new limits; one that is paused goes on where it runs. The options stand in place of what it had,
    and stay with it.
    """
    from shoal.cli import running

    return running.resume(experiment, **options)


@cli.command()
@experiment_argument
@click.option("--now", is_flag=True, help="End what runs, too; a resume runs it again.")
@home_option
def stop(experiment: str | None, *, now: bool, home: Path | None) -> None:
    """Stop an experiment once the trials that run have ended.

    Waits for that. Like a second Ctrl-C, a second stop ends what runs.
    """
    from shoal.cli import steering

    steering.stop(experiment, now=now, home=home)


@cli.command()
@experiment_argument
@home_option
def pause(experiment: str | None, *, home: Path | None) -> None:
    """Pause an experiment: no further trial begins until `shoal resume`.

    Waits for those that run. Whoever runs the experiment stays, and lets go of GPUs and memory.
    """
    from shoal.cli import steering

    steering.pause(experiment, home=home)


@cli.command()
@experiment_argument
@limits
@home_option
def update(experiment: str | None, **options: Any) -> None:
    """Change how far an experiment goes, or how many trials run at a time, while it runs.

    Trials that run are left alone. Of one that nobody runs, the next `shoal resume` has it.
    """
    if all(options[name] is None for name in options if name != "home"):
        raise click.UsageError("Nothing to change: give one of its options.")
    from shoal.cli import steering

    steering.update(experiment, **options)


@cli.command()
@config_argument
@gpus_option
@env_option
def check(config: Path, **options: Any) -> int:
    """Try an experiment out: 2 members, 2 steps.

    Finds out whether trials finish, save, and load what was saved; leaves nothing behind.
    """
    from shoal.cli import running

    return running.check(config, **options)


# ---------------------------------------------------------------------- looking


@cli.command("list")
@json_option
@home_option
def list_(*, home: Path | None, as_json: bool) -> None:
    """List the experiments, newest first."""
    from shoal.cli import looking

    looking.listing(home, as_json=as_json)


@cli.command()
@looks
def status(experiment: str | None, *, home: Path | None, as_json: bool) -> None:
    """Show how an experiment stands, and what it waits for."""
    from shoal.cli import looking

    looking.status(experiment, home, as_json=as_json)


@cli.command()
@looks
def trials(experiment: str | None, *, home: Path | None, as_json: bool) -> None:
    """List every trial."""
    from shoal.cli import looking

    looking.trials(experiment, home, as_json=as_json)


@cli.command()
@looks
def best(experiment: str | None, *, home: Path | None, as_json: bool) -> None:
    """Show the best trial, its schedule, where its model is."""
    from shoal.cli import looking

    looking.best(experiment, home, as_json=as_json)


@cli.command()
@looks
def schedule(experiment: str | None, *, home: Path | None, as_json: bool) -> None:
    """Show the hyperparameters of the best trial, step by step."""
    from shoal.cli import looking

    looking.schedule(experiment, home, as_json=as_json)


@cli.command()
@looks
def lineage(experiment: str | None, *, home: Path | None, as_json: bool) -> None:
    """List the ancestors of the best trial, the first one first."""
    from shoal.cli import looking

    looking.lineage(experiment, home, as_json=as_json)


@cli.command()
@click.option("--member", type=click.IntRange(0), required=True, help="Which member.")
@click.option("--step", type=click.IntRange(0), required=True, help="As it began which step.")
@looks
def explain(
    experiment: str | None, *, member: int, step: int, home: Path | None, as_json: bool
) -> None:
    """Say why a member was replaced before a step, or was not.

    Who was compared, by which scores, who was drawn, and what exploring has changed.
    """
    from shoal.cli import explaining

    explaining.explain(experiment, member, step, home, as_json=as_json)


@cli.command()
@experiment_argument
@click.option("-f", "--follow", is_flag=True, help="Go on for as long as it runs.")
@click.option("--trial", type=click.IntRange(0), help="Print the output of this trial instead.")
@home_option
def log(experiment: str | None, *, follow: bool, trial: int | None, home: Path | None) -> None:
    """Print the log, or what a trial has printed.

    The stdout of the trial goes to stdout, its stderr to stderr.
    """
    from shoal.cli import looking

    looking.log(experiment, home, follow=follow, trial=trial)


@cli.command()
@experiment_argument
@click.option(
    "-o",
    "--output",
    metavar="WHERE",
    help='The file; "-" for stdout. Of a tracker: where it writes to.',
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "csv", "parquet", "tensorboard", "mlflow", "wandb"]),
    help="What to write.  [default: by the file's ending]",
)
@home_option
def export(
    experiment: str | None, *, output: str | None, form: str | None, home: Path | None
) -> None:
    """Write every trial to a JSON, CSV or Parquet file, or to a tracker.

    A file has the columns of NNI's export, and member, step, parent and state.
    """
    from shoal.cli import exporting

    exporting.export(experiment, home, output, form)


@cli.command()
@experiment_argument
@click.option(
    "-o", "--output", metavar="FILE", default="report.html", show_default=True,
    help='The file; "-" for stdout.',
)  # fmt: skip
@home_option
def report(experiment: str | None, *, output: str, home: Path | None) -> None:
    """Write what came out of an experiment to one HTML file.

    Pictures, schedule, copies and settings; it needs no server and no network.
    """
    from shoal.cli import exporting

    exporting.report(experiment, home, output)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port.  [default: a free one]")
@click.option(
    "--token", envvar="SHOAL_TOKEN", help="What has to be known; drawn for any but a local address."
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="A further name of this machine.")
@home_option
def ui(**options: Any) -> None:
    """Show the experiments in a browser, live.

    The page is for this machine only; at another address than 127.0.0.1 it asks for a token.
    """
    from shoal.cli import serving

    serving.ui(**options)


@cli.command()
@click.argument("experiment")
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
def repair(experiment: str, *, yes: bool, home: Path | None) -> None:
    """Make a damaged journal whole again, as far as it can be.

    Says first what can be recovered. The damaged file is kept.
    """
    from shoal.cli import mending

    mending.repair(experiment, home, yes=yes)


@cli.command()
@click.argument("experiment")
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
def rm(experiment: str, *, yes: bool, home: Path | None) -> None:
    """Delete an experiment with its checkpoints."""
    from shoal.cli import looking

    looking.remove(experiment, home, yes=yes)


if __name__ == "__main__":
    main()
