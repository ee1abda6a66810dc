"""Real servers of object stores, on this machine, for all tests that need one."""

import base64
import email.utils
import hashlib
import hmac
import shutil
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.lab import until

AZURITE = Path("build/azurite/node_modules/.bin/azurite-blob")  # `make soak` installs it
# The account that every Azurite has (https://learn.microsoft.com/azure/storage/common/storage-use-azurite)
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def port() -> int:
    """One that is free."""
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        found: int = here.getsockname()[1]
        return found


def asked(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> bool:
    with suppress(OSError):
        urllib.request.urlopen(
            urllib.request.Request(url, method=method, headers=headers or {})
        ).close()
        return True
    return False


@contextmanager
def serving(
    command: list[str], where: int, variables: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Have a server run at the port `where`, and the `variables` name it that everybody knows."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: reached(where))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            yield server
    finally:
        server.kill()
        server.wait()


def reached(where: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", where)).close()
        return True
    return False


@contextmanager
def serving_s3() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of an S3 server, and its process."""
    where = port()
    address = f"http://127.0.0.1:{where}"
    variables = {
        "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": address,
    }  # fmt: skip
    command = [sys.executable, "-m", "moto.server", "-p", str(where)]
    with serving(command, where, variables) as server:
        until(lambda: asked(f"{address}/moto-api/"))
        yield address, server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 server."""
    with serving_s3() as (address, _):
        yield address


@pytest.fixture(scope="session")
def azure() -> Iterator[str]:
    """The address of Azure's emulator."""
    if not AZURITE.exists() or not shutil.which("node"):
        pytest.skip("Azurite is not installed: `make soak` does, where there is npm")
    where = port()
    command = [str(AZURITE), "--silent", "--inMemoryPersistence", "--disableTelemetry"]
    variables = {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": f"http://127.0.0.1:{where}",
    }  # fmt: skip
    command += ["--skipApiVersionCheck", "--blobPort", str(where)]
    with serving(command, where, variables):
        yield f"http://127.0.0.1:{where}"


def bucket(address: str) -> str:
    """A prefix in a new bucket of the S3 server."""
    name = f"b{uuid.uuid4().hex[:12]}"
    assert asked(f"{address}/{name}", "PUT")
    return f"s3://{name}/digits"


def container(address: str) -> str:
    """A prefix in a new container of Azure's emulator."""
    name = f"c{uuid.uuid4().hex[:12]}"
    date = email.utils.formatdate(usegmt=True)
    signed = (
        f"PUT{12 * chr(10)}x-ms-date:{date}\nx-ms-version:2021-12-02\n"
        f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    )
    digest = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date, "x-ms-version": "2021-12-02",
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
    }  # fmt: skip
    assert asked(f"{address}/{ACCOUNT}/{name}?restype=container", "PUT", headers)
    return f"az://{name}/digits"


MAKERS = {"s3": bucket, "azure": container}


@pytest.fixture(params=["s3", pytest.param("azure", marks=pytest.mark.soak)])
def url(request: pytest.FixtureRequest) -> str:
    """A prefix in a place of one's own, in a store of each kind."""
    address: str = request.getfixturevalue(request.param)
    return MAKERS[request.param](address)
