"""The command that explains a decision."""

from pathlib import Path

from shoal.cli.words import answer
from shoal.config import Config
from shoal.controller import made
from shoal.core.population import ProtocolError
from shoal.explain import Undecided
from shoal.explain import explain as decision_of
from shoal.home import ExperimentError
from shoal.result import open as result_of
from shoal.show.decision import plain, told
from shoal.show.layout import show
from shoal.stores.sqlite import unreadable


def explain(
    experiment: str | None, member: int, step: int, home: Path | None, *, as_json: bool
) -> None:
    """Print why a member did what it did at a step.

    Raises:
        ExperimentError: there is no such experiment or decision.
    """
    result = result_of(experiment, home=home)
    config = Config.restore(result.config)
    with result.folder.open() as store:
        try:
            found = decision_of(
                lambda records: made(config, records), store.records(), member, step
            )
        except Undecided as error:
            raise ExperimentError(f"experiment {result.id}: {error}") from error
        except ProtocolError as error:
            raise ExperimentError(unreadable(store.path, error)) from error
    if as_json:
        answer(plain(found, result))
    else:
        show(*told(found, result))
