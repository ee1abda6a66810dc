"""What is in the repository."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST = 500_000  # bytes
BUILT = {".whl", ".gz", ".egg", ".so", ".pyc", ".zip"}


def test_nothing_in_the_repository_is_large_or_built() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    there = [file for file in files if file.is_file()]
    assert len(there) > 100
    assert [file for file in there if file.stat().st_size > LARGEST or file.suffix in BUILT] == []
