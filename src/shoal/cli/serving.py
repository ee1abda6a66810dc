"""The command that serves the page."""

from collections.abc import Sequence
from pathlib import Path

from shoal.cli.entry import interruptible
from shoal.cli.words import tell
from shoal.result import home_of
from shoal.web.server import serve


def ui(
    *,
    host: str,
    port: int | None,
    token: str | None,
    allow_host: Sequence[str],
    home: Path | None,
) -> None:
    """Serve the page until interrupted.

    Raises:
        ExperimentError: there is nothing to be listened on.
    """
    with interruptible():
        serve(
            home_of(home), host, port, token or None, allow_host,
            lambda where: tell(f"experiments in {home_of(home)}: {where} (Ctrl-C ends it)"),
        )  # fmt: skip
