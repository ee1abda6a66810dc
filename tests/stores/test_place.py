from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from shoal.stores.place import shaky


def test_a_journal_is_not_for_a_network_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shaky(tmp_path) is None, "a disk of this machine"
    mounts = {"/": "ext4", str(tmp_path / "nfs"): "nfs4", str(tmp_path / "nfs" / "here"): "xfs"}

    def partitions(*, all: bool) -> list[Any]:
        return [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in mounts.items()]

    monkeypatch.setattr(psutil, "disk_partitions", partitions)
    assert shaky(tmp_path / "nfs" / "here" / "home") is None
    why = shaky(tmp_path / "nfs" / "home")
    assert why is not None
    assert "(nfs4)" in why
    assert "$SHOAL_HOME" in why
