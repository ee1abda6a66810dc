"""Checkpoints in an object store: `<url>/<member>/<step>/`, there when their manifest is.

A folder is uploaded below a name that nobody else uses, file by file; then its manifest is written,
which names each with its length and digest, and with it the checkpoint is there. So whoever was
taken for lost can upload what it likes. What is read is checked against the manifest.

obstore (https://developmentseed.org/obstore) does the transfers; where credentials come from is its
affair: the usual variables, files and instance roles of each provider.
"""

import hashlib
import importlib
import json
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
AT_A_TIME = 4  # files
AHEAD = 16  # pieces of a file that have come and were not looked at yet
PART = 16 << 20  # bytes, of a file that goes in parts
RETRY = timedelta(minutes=3)  # for how long a request is tried again
REQUEST = timedelta(seconds=60)  # for one to be answered
CUT = "response body error"  # is what obstore says of an answer that has ended in the middle
TRIES = 3  # of that, which obstore does not try again if it was to say that nothing is there


class BucketError(OSError):
    """An object store does not do as it has to: the message says which, and what it answered."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A folder that was uploaded.

    Attributes:
        name: below which its files are, in the folder of its checkpoint; no other has it.
        files: (length, SHA-256) of each, by its path in the folder.
    """

    name: str
    files: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return sum(length for length, _ in self.files.values())

    def dump(self) -> str:
        """This as text, which `parse` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: bytes | str) -> "Upload":
        """What `dump` has written.

        Raises:
            ValueError: this is nothing that it has.
        """
        try:
            read = json.loads(text)
            files = {k: (int(size), str(digest)) for k, (size, digest) in read["files"].items()}
            upload = cls(str(read["name"]), files)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no manifest: {text!r:.80}") from error
        if outside := [k for k in (upload.name, *files) if k[:1] == "/" or ".." in k.split("/")]:
            raise ValueError(f"a manifest that names {outside[0]}")
        return upload


class Bucket:
    """A place in an object store.

    Args:
        url: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.

    Raises:
        BucketError: (from any method) it cannot be reached, or obstore is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._obstore: Any = importlib.import_module("obstore")
            stores: Any = importlib.import_module("obstore.store")
        except ImportError as error:
            raise BucketError(
                f"checkpoints in {url} need obstore, which cannot be imported here ({error}): "
                "pip install 'shoal[cloud]'"
            ) from error
        self._store = self._tried(
            lambda: stores.from_url(
                self.url,
                client_options={"timeout": REQUEST, "allow_http": True},
                retry_config={"max_retries": 20, "retry_timeout": RETRY},
            )
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Bucket, (self.url,)

    def upload(self, folder: Path, place: str) -> Upload:
        """Upload all files in `folder` for the checkpoint `place`, which is not there by that."""
        name = uuid.uuid4().hex
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]

        def one(path: Path) -> tuple[str, tuple[int, str]]:
            relative = path.relative_to(folder).as_posix()
            digest = digests.submit(digest_of, path)
            self._put(f"{place}/{name}/{relative}", path)
            return relative, (path.stat().st_size, digest.result())

        with ThreadPoolExecutor(AT_A_TIME) as digests:  # while it is sent
            return Upload(name, dict(each(one, paths)))

    def publish(self, place: str, upload: Upload) -> None:
        """Let the checkpoint `place` be what was uploaded; what was there before goes."""
        before = self.published(place)
        self._put(f"{place}/{MANIFEST}", upload.dump().encode())
        if before is not None and before.name != upload.name:
            self._delete(f"{place}/{before.name}/{file}" for file in before.files)

    def published(self, place: str) -> Upload | None:
        """What the checkpoint `place` is; None where there is none."""
        try:
            return Upload.parse(self._get(f"{place}/{MANIFEST}"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise BucketError(f"{self.url}/{place}/{MANIFEST} is of no use: {error}") from error

    def download(self, place: str, upload: Upload, folder: Path) -> None:
        """Make `folder`, with `upload` of the checkpoint `place` in it, or not at all."""
        partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")

        def one(file: tuple[str, tuple[int, str]]) -> None:
            relative, (length, digest) = file
            path = partial / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            found, size = hashlib.sha256(), 0
            pending: deque[Future[None]] = deque()
            with path.open("wb") as out, ThreadPoolExecutor(1) as digesting:  # as more comes
                for chunk in self._stream(f"{place}/{upload.name}/{relative}"):
                    pending.append(digesting.submit(found.update, chunk))
                    out.write(chunk)
                    size += len(chunk)
                    if len(pending) > AHEAD:
                        pending.popleft().result()
            if (size, found.hexdigest()) != (length, digest):
                raise BucketError(
                    f"{self.url}/{place}/{upload.name}/{relative} is not what was uploaded: it has "
                    f"{size} bytes of {length}, or others"
                )

        try:
            partial.mkdir(parents=True)
            each(one, upload.files.items())
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def remove(self, place: str) -> None:
        """Delete the checkpoint `place`, its manifest first, and all that was uploaded for it."""
        self._delete([f"{place}/{MANIFEST}"])
        self._delete(self._below(f"{place}/"))

    def places(self) -> Iterator[str]:
        """The checkpoints that are there."""
        for path in self._below(""):
            place, _, name = path.rpartition("/")
            if name == MANIFEST:
                yield place

    def read(self, name: str) -> bytes | None:
        """What was written to `name`; None if nothing was."""
        try:
            return self._get(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Let `name` hold `data`."""
        self._put(name, data)

    def swap(self, name: str, before: bytes | None, data: bytes) -> bool:
        """Let `name` hold `data`, if it holds what it held `before` (None: nothing).

        Returns:
            Whether it did, which is so for one of several at the same moment, but in a store that
            was said to have no conditional writes.
        """
        errors = self._obstore.exceptions
        try:
            found = self._tried(lambda: self._obstore.get(self._store, name))
            there = bytes(found.bytes())
            mode: Any = {"e_tag": found.meta["e_tag"]}
        except FileNotFoundError:
            there, mode = None, "create"
        if there != before:
            return False
        try:
            self._obstore.put(self._store, name, data, mode=mode)
        except (errors.AlreadyExistsError, errors.PreconditionError):
            return False
        except errors.NotSupportedError:
            self.write(name, data)
        except Exception as error:
            if before is not None and isinstance(error, errors.NotFoundError):
                return False
            raise self._error(error) from error
        return True

    def erase(self, name: str) -> None:
        """Delete what was written to `name`."""
        self._delete([name])

    def _put(self, path: str, what: Path | bytes) -> None:
        try:
            self._tried(lambda: self._obstore.put(self._store, path, what, chunk_size=PART))
        except FileNotFoundError as error:
            if isinstance(what, Path) and not what.exists():
                raise  # it was deleted meanwhile
            raise self._error(error) from error  # there is no such bucket

    def _get(self, path: str, tries: int = TRIES) -> bytes:
        try:
            return bytes(self._tried(lambda: self._obstore.get(self._store, path).bytes()))
        except BucketError as error:
            if tries == 1 or CUT not in str(error.__cause__):
                raise
            return self._get(path, tries - 1)

    def _stream(self, path: str) -> Iterator[bytes]:
        chunks = iter(self._tried(lambda: self._obstore.get(self._store, path).stream(1 << 20)))
        while (chunk := self._tried(lambda: next(chunks, None))) is not None:
            yield chunk

    def _below(self, prefix: str) -> Iterator[str]:
        listed = iter(self._tried(lambda: self._obstore.list(self._store, prefix or None)))
        while (some := self._tried(lambda: next(listed, None))) is not None:
            for one in some:
                yield one["path"]

    def _delete(self, paths: Iterable[str]) -> None:
        there = list(paths)
        if there:
            with suppress(FileNotFoundError):  # it is gone
                self._tried(lambda: self._obstore.delete(self._store, there))

    def _tried(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except (FileNotFoundError, self._obstore.exceptions.NotFoundError) as error:
            raise FileNotFoundError(f"{self.url}: {error}") from error
        except BucketError:
            raise
        except Exception as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> BucketError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return BucketError(f"{self.url}: {lines[0] if lines else type(error).__name__:.300}")


def digest_of(file: Path) -> str:
    """The SHA-256 of what is in `file`."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def each(one: Callable[[Any], Any], things: Iterable[Any]) -> list[Any]:
    """What `one` makes of each of `things`, some at a time."""
    things = list(things)
    if len(things) < 2:
        return [one(thing) for thing in things]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(one, things))
