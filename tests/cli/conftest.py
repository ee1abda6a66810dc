from pathlib import Path

import pytest

from tests.cli.shell import Shell, write


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A home with one experiment that is done, to be looked at only."""
    root = tmp_path_factory.mktemp("done")
    shell = Shell(root / "home")
    assert shell("run", write(root / "toy")).returncode == 0
    return shell
