from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from shoal.result import Result
from shoal.web.app import app
from shoal.web.safety import Door
from tests.made import experiment

Opened = Callable[..., TestClient]


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """An experiment that is done, to be looked at only."""
    return experiment(tmp_path_factory.mktemp("web") / "home", failing=0.1)


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens the server of a home, as a browser on this machine does."""
    clients = []

    def open_(home: Path, door: Door | None = None, host: str = "localhost:8450") -> TestClient:
        client = TestClient(
            app(home, door or Door("127.0.0.1", None)), base_url=f"http://{host}",
            raise_server_exceptions=False, follow_redirects=False,
        )  # fmt: skip
        client.__enter__()
        clients.append(client)
        return client

    yield open_
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(result: Result, opened: Opened) -> TestClient:
    return opened(result.folder.path.parent)
