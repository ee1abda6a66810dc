"""A real S3 server, on this machine, for all tests that need one."""

import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.lab import until


def port() -> int:
    """One that is free."""
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        found: int = here.getsockname()[1]
        return found


def asked(url: str, method: str = "GET") -> bool:
    with suppress(OSError):
        urllib.request.urlopen(urllib.request.Request(url, method=method)).close()
        return True
    return False


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of the server, which the variables that everybody knows name."""
    where = port()
    address = f"http://127.0.0.1:{where}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(where)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": address,
        }.items():  # fmt: skip
            patch.setenv(name, value)
        until(lambda: asked(f"{address}/moto-api/"))
        yield address
    server.kill()
    server.wait()


@pytest.fixture
def url(s3: str) -> str:
    """A bucket of one's own, and a prefix in it."""
    name = f"b{uuid.uuid4().hex[:12]}"
    assert asked(f"{s3}/{name}", "PUT")
    return f"s3://{name}/digits"
