"""Experiments whose checkpoints are in an object store."""

import shutil
import signal
from datetime import timedelta
from pathlib import Path
from subprocess import Popen
from threading import Timer

import pytest

import shoal
from shoal import buckets
from shoal.buckets import Bucket
from shoal.config import ConfigError
from shoal.experiment import remove
from tests.lab import experiment, run, told
from tests.servers import bucket, serving_s3
from tests.toys import Toy, function


def kept(folder: Path) -> set[str]:
    """The checkpoints in `folder`."""
    return {f"{path.parent.name}/{path.name}" for path in folder.glob("*/[0-9]*")}


@pytest.mark.parametrize("form", ["trainable", "function", "script"])
def test_a_run_whose_checkpoints_are_in_a_store(tmp_path: Path, url: str, form: str) -> None:
    if form == "script":
        config = experiment(tmp_path, population=4, steps=4)
        here = shoal.run(config, verbose=False)
        away = shoal.run(config, checkpoints=url, verbose=False)
    else:
        work = Toy(tmp_path / "diary") if form == "trainable" else function
        words = {"metric": "quality" if form == "function" else "default", "steps": 4}
        here = run(work, tmp_path, **words)
        away = run(work, tmp_path, **words, checkpoints=url)
    assert away.state == "done"
    assert told(away) == told(here)
    assert set(Bucket(url).places()) == kept(here.checkpoints) == kept(away.checkpoints)
    best = away.best
    assert best is not None
    assert best.checkpoint is not None
    upload = Bucket(url).published("/".join(best.checkpoint.parts[-2:]))
    assert upload is not None
    assert upload.files.keys() >= {path.name for path in best.checkpoint.iterdir()} - {".lasts"}
    remove(str(away.folder.path))
    assert list(Bucket(url)._below("")) == []


@pytest.mark.parametrize("form", ["trainable", "function"])
def test_the_disk_is_lost_and_the_store_is_not(tmp_path: Path, url: str, form: str) -> None:
    work = Toy(tmp_path / "diary") if form == "trainable" else function
    words = {"metric": "quality" if form == "function" else "default"}
    whole = run(work, tmp_path, steps=6, **words)
    result = run(work, tmp_path, steps=3, checkpoints=url, **words)
    shutil.rmtree(result.checkpoints)
    steps = len(work.notes("step")) if isinstance(work, Toy) else 0
    again = shoal.resume(work, str(result.folder.path), steps=6, verbose=False)
    assert told(again) == told(whole)
    if isinstance(work, Toy):
        assert len(work.notes("step")) - steps == 3 * 4, "nothing was trained again"


def test_what_was_not_sent_when_the_controller_died_is_sent(tmp_path: Path, url: str) -> None:
    words = {"metric": "quality", "steps": 3, "keep": "all", "checkpoints": url}
    result = run(function, tmp_path, **words)
    sent = set(Bucket(url).places())
    Bucket(url).remove("0/2")
    Bucket(url).remove("3/0")
    shoal.resume(function, str(result.folder.path), steps=4, verbose=False)
    assert set(Bucket(url).places()) == sent | {f"{member}/3" for member in range(4)}


def test_a_place_in_a_store_is_one_experiments(tmp_path: Path, url: str) -> None:
    words = {"metric": "quality", "steps": 2, "checkpoints": url}
    first = run(function, tmp_path, **words)
    with pytest.raises(shoal.ExperimentError, match=f"checkpoints of experiment {first.id}"):
        run(function, tmp_path, **words)
    assert len(list((tmp_path / "home").iterdir())) == 1
    remove(str(first.folder.path))
    assert run(function, tmp_path, **words).state == "done"


def test_a_store_that_is_not_there(tmp_path: Path, s3: str) -> None:
    with pytest.raises(shoal.ExperimentError, match=r"s3://nobody-has-this/x cannot hold"):
        run(function, tmp_path, metric="quality", checkpoints="s3://nobody-has-this/x")
    assert not list(tmp_path.glob("home/*"))
    with pytest.raises(ConfigError, match=r"checkpoints: expected a path, or s3://"):
        run(function, tmp_path, checkpoints="ftp://nowhere/x")


class Silent(shoal.Observer):
    """Lets a server be silent once so many trials have ended, for so many seconds."""

    def __init__(self, server: Popen[bytes], trials: int, seconds: float | None) -> None:
        self._server, self._trials, self._seconds = server, trials, seconds
        self.timer: Timer | None = None

    def changed(self, tuner: shoal.Tuner, waiting: str) -> None:
        ended = len(tuner.population.trials) - len(tuner.population.running)
        if self.timer is None and ended >= self._trials:
            self._server.send_signal(signal.SIGSTOP)
            self.timer = Timer(self._seconds or 0, self.speak)
            if self._seconds is not None:
                self.timer.start()

    def speak(self) -> None:
        self._server.send_signal(signal.SIGCONT)


def test_a_store_that_is_silent_for_a_while(tmp_path: Path) -> None:
    words = {"metric": "quality", "steps": 6}
    before = run(function, tmp_path, **words)
    with serving_s3() as (address, server):
        silent = Silent(server, 4, 2.0)
        result = run(function, tmp_path, **words, checkpoints=bucket(address), observer=silent)
        assert silent.timer is not None
        silent.timer.join()
        assert (result.state, told(result)) == ("done", told(before))


def test_a_store_that_is_silent_for_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "RETRY", timedelta(seconds=1))
    monkeypatch.setattr(buckets, "REQUEST", timedelta(seconds=0.5))
    words = {"metric": "quality", "steps": 6}
    before = run(function, tmp_path, **words)
    with serving_s3() as (address, server):
        silent = Silent(server, 4, None)
        with pytest.raises(shoal.ExperimentError, match=r"cannot go on: s3://.*retries"):
            run(
                function, tmp_path, **words, checkpoints=bucket(address), observer=silent,
                name="silent",
            )  # fmt: skip
        silent.speak()
        result = shoal.resume(function, "silent", home=tmp_path / "home", verbose=False)
        assert (result.state, told(result)) == ("done", told(before))
