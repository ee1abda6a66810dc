"""Processes that begin warm, as what starts them sees them."""

import os
import selectors
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal.runners.forkserver import ForkServer, Imports
from shoal.runners.launch import Launch, as_a_shell_has_it
from shoal.runners.processes import Ended, Processes
from tests.lab import until
from tests.runners.held import PYTHON, environment


@contextmanager
def started(folder: Path, script: str) -> Iterator[tuple[Processes, selectors.DefaultSelector]]:
    """The processes of `script`, once they can be started."""
    (folder / "script.py").write_text(script)
    env = environment({})
    launch = Launch.of(PYTHON, folder, env)
    selector = selectors.DefaultSelector()
    processes = Processes(
        launch, Imports(), env=as_a_shell_has_it(env, launch, folder), directory=folder,
        output=folder / "server.log", selector=selector, log=print,
    )  # fmt: skip
    try:
        until(lambda: heard(processes, selector).ready)
        yield processes, selector
    finally:
        processes.close()
        selector.close()


def heard(processes: Processes, selector: selectors.DefaultSelector) -> Processes:
    """The same, after whatever its servers have said by now."""
    for key, _ in selector.select(0.1):
        assert isinstance(key.fileobj, ForkServer)
        processes.receive(key.fileobj)
    return processes


def start(processes: Processes, folder: Path, key: str) -> None:
    processes.start(
        key, cwd=folder, env={}, out=folder / "out", err=folder / "err", note=folder / "note"
    )


def test_who_is_ended_before_its_beginning_was_heard_of_ends(tmp_path: Path) -> None:
    """A worker tells of itself by a way of its own, which on a busy machine is the shorter one."""
    script = "import time\nopen('here', 'x').close()\ntime.sleep(600)"
    with started(tmp_path, script) as (processes, selector):
        start(processes, tmp_path, "it")
        until((tmp_path / "here").exists)
        processes.signal("it", signal.SIGKILL)

        def ended() -> list[Ended]:
            events = heard(processes, selector).events()
            return [event for event in events if isinstance(event, Ended)]

        (event,) = until(ended)
        assert os.WTERMSIG(event.status) == signal.SIGKILL


def test_a_server_that_was_let_go_is_heard_no_more(tmp_path: Path) -> None:
    """It had something to say at the same moment as whatever was a reason to let go of it."""
    with started(tmp_path, "") as (processes, selector):
        (ready,) = [key.fileobj for key in selector.get_map().values()]
        assert isinstance(ready, ForkServer)
        processes.close()
        processes.receive(ready)
        assert processes.events() == []
