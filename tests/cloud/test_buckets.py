"""Checkpoints in an object store, a real one."""

import importlib
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from shoal.buckets import Bucket, BucketError, Upload


def made(folder: Path, text: str = "model") -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "model.pt").write_bytes(text.encode() * 300_000)
    (folder / "sub" / "optimizer é.pt").write_text(text)
    (folder / "empty").touch()
    return folder


def read(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_what_was_uploaded_is_there_once_it_is_published(tmp_path: Path, url: str) -> None:
    bucket, folder = Bucket(url), made(tmp_path / "here")
    assert bucket.published("3/7") is None
    upload = bucket.upload(folder, "3/7")
    assert bucket.published("3/7") is None
    assert list(bucket.places()) == []
    bucket.publish("3/7", upload)
    found = Bucket(url).published("3/7")
    assert found == upload == Upload.parse(upload.dump())
    assert found.size == sum(map(len, read(folder).values()))
    bucket.download("3/7", found, tmp_path / "there" / "7")
    assert read(tmp_path / "there" / "7") == read(folder)
    assert list(bucket.places()) == ["3/7"]
    assert list(Bucket(url.rpartition("/")[0]).places()) == ["digits/3/7"]


def test_published_again_it_is_the_new_one_and_the_old_is_gone(tmp_path: Path, url: str) -> None:
    bucket = Bucket(url)
    for text in ("old", "new"):
        bucket.publish("0/1", bucket.upload(made(tmp_path / text, text), "0/1"))
    found = bucket.published("0/1")
    assert found is not None
    bucket.download("0/1", found, tmp_path / "there")
    assert read(tmp_path / "there") == read(tmp_path / "new")
    assert len(list(bucket._below("0/1"))) == 1 + len(found.files)


def test_what_somebody_uploads_who_was_given_up_changes_nothing(tmp_path: Path, url: str) -> None:
    bucket = Bucket(url)
    bucket.publish("0/1", bucket.upload(made(tmp_path / "mine", "mine"), "0/1"))
    bucket.upload(made(tmp_path / "theirs", "theirs"), "0/1")
    found = bucket.published("0/1")
    assert found is not None
    bucket.download("0/1", found, tmp_path / "there")
    assert read(tmp_path / "there") == read(tmp_path / "mine")
    bucket.remove("0/1")
    assert bucket.published("0/1") is None
    assert list(bucket._below("")) == []


def test_a_file_that_is_deleted_as_it_is_sent_is_no_fault_of_the_store(
    tmp_path: Path, url: str
) -> None:
    bucket, folder = Bucket(url), made(tmp_path / "here")
    folder.joinpath("empty").unlink()
    with pytest.raises(FileNotFoundError):  # which whoever has deleted it takes for that
        bucket._put("0/1/empty", folder / "empty")


def test_what_has_changed_is_refused_and_leaves_nothing(tmp_path: Path, url: str) -> None:
    bucket = Bucket(url)
    upload = bucket.upload(made(tmp_path / "here"), "0/1")
    bucket.publish("0/1", upload)
    bucket.write(f"0/1/{upload.name}/model.pt", b"another")
    with pytest.raises(BucketError, match=r"model.pt is not what was uploaded: it has 7 bytes"):
        bucket.download("0/1", upload, tmp_path / "there")
    bucket.erase(f"0/1/{upload.name}/model.pt")
    with pytest.raises(OSError, match="not found"):
        bucket.download("0/1", upload, tmp_path / "there")
    assert not list(tmp_path.glob("*there*"))
    bucket.write("0/2/manifest.json", b'{"name": 3}')
    with pytest.raises(BucketError, match="manifest"):
        bucket.published("0/2")
    bucket.write("0/3/manifest.json", b'{"name": "a", "files": {"x/../../y": [1, ""]}}')
    with pytest.raises(BucketError, match=r"names x/\.\./\.\./y"):
        bucket.published("0/3")


class Cut(BaseHTTPRequestHandler):
    """An S3 server without anything, whose first answer ends in the middle."""

    asked = 0

    def do_GET(self) -> None:
        text = b"<Error><Code>NoSuchKey</Code></Error>"
        self.send_response(404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        Cut.asked += 1
        self.wfile.write(text[:9] if Cut.asked == 1 else text)

    def log_message(self, *_: Any) -> None:
        pass


def test_an_answer_that_ends_in_the_middle_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with HTTPServer(("127.0.0.1", 0), Cut) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            assert Bucket("s3://bucket/x").published("0/1") is None
        finally:
            server.shutdown()
            serving.join()
    assert Cut.asked == 2


class Overtaken:
    """obstore, as it is for somebody who is overtaken between reading and writing."""

    def __init__(self, overtake: Callable[[], object]) -> None:
        self._overtake = overtake

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("obstore"), name)

    def get(self, *what: Any) -> Any:
        try:
            return importlib.import_module("obstore").get(*what)
        finally:
            self._overtake()


def test_of_several_at_the_same_moment_one_writes(url: str) -> None:
    bucket, other = Bucket(url), Bucket(url)
    for before, theirs in ((None, b"first"), (b"first", b"theirs")):
        bucket._obstore = Overtaken(partial(other.swap, "owner", before, theirs))
        assert not bucket.swap("owner", before, b"mine")
        assert other.read("owner") == theirs
        bucket._obstore = importlib.import_module("obstore")
    assert not bucket.swap("owner", b"another", b"mine")
    assert not bucket.swap("owner", None, b"mine")
    assert not bucket.swap("nothing", b"another", b"mine")
    assert bucket.swap("owner", b"theirs", b"mine")
    assert other.read("owner") == b"mine"


def test_what_is_not_there_says_which(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme, _, _ = url.partition(":")
    with pytest.raises(BucketError, match=rf"{scheme}://nobody-has-this/x: .*"):
        Bucket(f"{scheme}://nobody-has-this/x").write("a", b"1")
    with pytest.raises(BucketError, match="ftp://"):
        Bucket("ftp://nowhere/x")
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(BucketError, match=r"pip install 'shoal\[cloud\]'"):
        Bucket(url)
