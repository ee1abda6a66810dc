import time
from contextlib import closing
from pathlib import Path

import pytest

from shoal.core.records import Finished, Trial
from shoal.stores.sqlite import SqliteStore
from shoal.web import followed
from shoal.web.followed import Followed
from tests.made import experiment, put

HEADS = 96  # bytes: the head of the index is there twice


def test_what_is_written_but_not_yet_seen_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite writes a commit to the log, syncs it, and tells readers of it only then."""
    monkeypatch.setattr(followed, "FRESH_S", 0)
    result = experiment(tmp_path, until=0)
    hparams = {"lr": 0.1, "momentum": 0.5, "batch_size": 32}
    index = result.folder.path / "journal.db-shm"
    with closing(SqliteStore(result.folder.journal)) as store:
        put(store, Trial(0, 0, 0, hparams, None), time.time())
        store.commit()
        page = Followed.of(result.folder)
        page.refresh()
        with index.open("r+b", buffering=0) as file:
            before = file.read(HEADS)
            put(store, Finished(0, 0.875), time.time())
            store.commit()
            file.seek(0)
            after = file.read(HEADS)
            file.seek(0)
            file.write(before)
            page.refresh()
            assert page.now().tally.finished == 0  # as long as the disk takes
            file.seek(0)
            file.write(after)
        page.refresh()
        assert page.now().tally.finished == 1
