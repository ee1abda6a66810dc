from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time: a red test here means a change here. For new ones:
# pytest --hypothesis-profile=explore
settings.register_profile("repeat", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("repeat")


# What these tests need: a Python may have the `test` extra alone (`make test-others`).
NEEDS = {
    "browser": "playwright",
    "cloud": "moto",
    "cluster": "ray",
    "cli/test_looking.py": "pyarrow",
    "runners/test_preload.py": "sklearn",
    "test_examples.py": "torch",
    "test_notebook.py": "nbclient",
    "test_trial.py": "torch",
    "trackers": "wandb",
    "web/test_schema.py": "schemathesis",
}
collect_ignore = [tests for tests, module in NEEDS.items() if find_spec(module) is None]


def pytest_report_header() -> list[str]:
    without = sorted({module for module in NEEDS.values() if find_spec(module) is None})
    return [f"not collected: {len(collect_ignore)} of {', '.join(without)}"] if without else []


@pytest.fixture(autouse=True, scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the experiments of tests out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("shoal-home")
        patch.setenv("SHOAL_HOME", str(folder))
        yield folder
