"""The command that explains a decision."""

from pathlib import Path

from shoal.cli.words import answer
from shoal.explain import Undecided
from shoal.home import ExperimentError
from shoal.result import open as result_of
from shoal.show.decision import decided, plain, told
from shoal.show.layout import show


def explain(
    experiment: str | None, member: int, step: int, home: Path | None, *, as_json: bool
) -> None:
    """Print why a member did what it did at a step.

    Raises:
        ExperimentError: there is no such experiment or decision.
    """
    result = result_of(experiment, home=home)
    try:
        found = decided(result, member, step)
    except Undecided as error:
        raise ExperimentError(f"experiment {result.id}: {error}") from error
    if as_json:
        answer(plain(found, result))
    else:
        show(*told(found, result))
