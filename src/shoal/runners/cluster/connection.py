"""A Ray cluster: reached, looked at, let go of."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import shoal
from shoal.buckets import Bucket
from shoal.runners.base import RunnerError

KNOCK_S = 10.0  # for a machine to let us in
ANSWER_S = 60.0  # for Ray to fetch an answer that is there
PROBE_S = 120.0  # for all nodes to answer, the start of their processes included
OURS = "shoal"  # the namespace of what we start there
CLIENT = "ray://"
LOCAL = "local"  # what Ray calls a new cluster on this machine
# Of "ray://", after half a minute: the process that Ray forks to serve us hangs at times (2.60).
NO_SERVER = "Starting Ray client server failed"
TOKEN = ".shoal-token-"  # noqa: S105 (a file, by which a folder is recognised)


@dataclass(frozen=True, slots=True)
class Need:
    """What a worker needs of a node.

    Attributes:
        cpus: how many CPUs, as Ray counts them.
        gpus: how many GPUs, or which part of one.
        resources: what else, by Ray's names.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return ", ".join(f"{amount:g} {name}" for name, amount in parts.items() if amount)


class Cluster:
    """A Ray cluster.

    Args:
        address: of one that runs: "auto", "HOST:PORT" or "ray://HOST:PORT"; None for $RAY_ADDRESS,
            or a new one on this machine.
        runtime_env: what Ray is to provide processes with.

    Raises:
        RunnerError: Ray is not installed.
    """

    def __init__(self, address: str | None, runtime_env: Mapping[str, Any]) -> None:
        self.address, self._runtime_env = address, dict(runtime_env)
        self._connected = False  # by us
        if (ray := sys.modules.get("ray")) is None or not ray.is_initialized():
            show_token(address or os.environ.get("RAY_ADDRESS", ""))
        try:
            self.ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise RunnerError(
                f"running on Ray needs Ray, which cannot be imported here ({error}): "
                "pip install 'shoal[ray]'"
            ) from error

    def connect(self) -> None:
        """Be connected to it, if we are not; Ray then copies what is to be shipped.

        Raises:
            RunnerError: it cannot be reached.
        """
        if self.ray.is_initialized():  # by the user's own program, or by us
            more = sorted(self._runtime_env.keys() - {"working_dir"})
            if more and not self._connected:
                raise RunnerError(
                    f"runtime_env ({', '.join(more)}) has to be given to ray.init, which was "
                    "called before"
                )
            return
        words: dict[str, Any] = {"runtime_env": self._runtime_env} if self._runtime_env else {}
        if self.address is None and "RAY_ADDRESS" not in os.environ:
            words["include_dashboard"] = False
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        where = self.address or os.environ.get("RAY_ADDRESS") or "a new one on this machine"
        address = self.address
        if not address and not os.environ.get("RAY_ADDRESS") and self._gone():
            address = LOCAL  # Ray would try for minutes to reach the one that is no more
        try:
            knock(self.address or os.environ.get("RAY_ADDRESS", ""))
            if where == "auto":
                self._refuse_what_is_gone()
            try:
                self._init(address, words)
            except ConnectionAbortedError as error:
                if NO_SERVER not in str(error):
                    raise
                self._init(address, words)
        except Exception as error:
            shown = ":" in where  # by us; where none is named, by Ray
            token = ", and is its token in ~/.ray/auth_token here if it wants one" if shown else ""
            raise RunnerError(
                f"the Ray cluster ({where}) cannot be reached: {first_and_last(error)}. Is it "
                f"running (`ray status`), with the same versions of Ray and Python{token}?"
            ) from error
        self._connected = True

    def _refuse_what_is_gone(self) -> None:
        if gone := self._gone():
            raise ConnectionError(f"{gone}, which Ray has noted as the current one, is gone")

    def _gone(self) -> str:
        """The cluster that Ray would connect to by itself, if nobody listens there any more.

        Ray's note of its current cluster outlives one that was killed. Where Ray keeps the note is
        its own affair: if that cannot be found out, there is none.
        """
        try:
            utils, services = (
                importlib.import_module(f"ray._private.{name}") for name in ("utils", "services")
            )
            noted = utils.read_ray_address() or ""
            others = services.find_gcs_addresses() if self.address == "auto" else ()
        except Exception:  # noqa: BLE001 (a Ray that keeps it elsewhere)
            return ""
        if not noted or others:
            return ""
        try:
            knock(noted)
        except OSError:
            return str(noted)
        return ""

    def _init(self, address: str | None, words: Mapping[str, Any]) -> None:
        with signals_kept():
            self.ray.init(
                address=address,
                namespace=OURS,
                log_to_driver=False,
                logging_level="ERROR",
                **deepcopy(dict(words)),  # Ray writes into it
            )

    def disconnect(self) -> None:
        """Let go of it, if it was us who connected; a cluster that was started here ends."""
        if self._connected:
            self._connected = False
            with signals_kept(), suppress(Exception):
                self.ray.shutdown()

    @property
    def connected(self) -> bool:
        """Whether we are connected still. If not, nothing may be asked of Ray.

        It would connect anew to whatever it finds, or begin a cluster on this machine.
        """
        return bool(self.ray.is_initialized())

    @property
    def ships(self) -> bool:
        """Whether processes there find themselves in a copy of a folder of ours."""
        return "working_dir" in self.ray.get_runtime_context().runtime_env

    def nodes(self) -> dict[str, str]:
        """The names of the nodes that are there, by id."""
        there = (node for node in self.ray.nodes() if node["Alive"])
        return {node["NodeID"]: node["NodeManagerHostname"] for node in there}

    def can_ever(self, need: Need) -> bool:
        """Whether some node that is there is large enough for `need`, were it empty."""
        wanted = {"CPU": need.cpus, "GPU": need.gpus, **need.resources}
        return any(
            all(node["Resources"].get(name, 0) >= amount for name, amount in wanted.items())
            for node in self.ray.nodes()
            if node["Alive"]
        )

    def check(self, where: Path | str, env: Mapping[str, str]) -> None:
        """See that every node that is there has our version, and reads and writes `where`.

        Args:
            where: a folder, or the URL of an object store.
            env: variables for whoever does.

        Raises:
            RunnerError: one does not; the message says which, and what to do.
        """
        token = uuid.uuid4().hex
        shelf = shelf_of(str(where))
        new = [] if isinstance(shelf, Bucket) else missing(Path(shelf.url))
        try:
            shelf.write(f"{TOKEN}{token}", token.encode())
        except OSError as error:
            raise RunnerError(f"{where} cannot hold checkpoints: {error}") from error
        nodes = self.nodes()
        try:
            asked = {node: self._ask(node, str(where), token, env) for node in nodes}
            done, _ = self.ray.wait(list(asked.values()), num_returns=len(nodes), timeout=PROBE_S)
            for node, answer in asked.items():
                self._judge(nodes[node], answer if answer in done else None, shelf)
        finally:
            for name in ("", *(f"-{node[:12]}" for node in nodes)):
                shelf.erase(f"{TOKEN}{token}{name}")
            with suppress(OSError):  # there is something in it by now
                for folder in new:
                    folder.rmdir()

    def _ask(self, node: str, where: str, token: str, env: Mapping[str, str]) -> Any:
        strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            node, soft=False
        )
        task = self.ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(answer)
        return task.remote(where, token, node, dict(env))

    def _judge(self, node: str, answered: Any, shelf: "Shelf | Bucket") -> None:
        if answered is None:
            raise RunnerError(f"node {node} of the cluster has not answered for {PROBE_S:g} s")
        errors = self.ray.exceptions
        try:
            there, problem, wrote = self.ray.get(answered, timeout=ANSWER_S)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            raise RunnerError(f"node {node} of the cluster is of no use: {unfit(error)}") from error
        except errors.RayError:
            return  # it is about to be gone
        if there != shoal_version():
            raise RunnerError(
                f"node {node} has shoal {there}, and it is {shoal_version()} here: install the "
                "same on all nodes"
            )
        if problem is None and shelf.read(wrote) is not None:
            return
        why = problem or "what it writes there does not arrive here"
        raise RunnerError(
            f"node {node} does not have {shelf.url}, where checkpoints are to be ({why}): name a "
            "folder that all nodes mount, as `checkpoints: /mnt/...`, or a place in an object "
            "store, as `checkpoints: s3://...`"
        )


class Shelf:
    """A folder, as a `Bucket` is written to and read."""

    def __init__(self, url: str) -> None:
        self.url = url

    def read(self, name: str) -> bytes | None:
        path = Path(self.url) / name
        return path.read_bytes() if path.is_file() else None

    def write(self, name: str, data: bytes) -> None:
        Path(self.url).mkdir(parents=True, exist_ok=True)
        (Path(self.url) / name).write_bytes(data)

    def erase(self, name: str) -> None:
        (Path(self.url) / name).unlink(missing_ok=True)


def shelf_of(where: str) -> Shelf | Bucket:
    """The folder, or the place in an object store, that `where` names."""
    return Bucket(where) if "://" in where else Shelf(where)


def show_token(address: str) -> None:
    """Let Ray show the user's token to a cluster that wants one, as `ray start` makes it do.

    It does so by itself (2.60) where no address is named, and reads the mode as it is imported.
    """
    places = Path.home() / ".ray" / "auth_token", os.environ.get("RAY_AUTH_TOKEN_PATH")
    there = "RAY_AUTH_TOKEN" in os.environ or any(p and Path(p).is_file() for p in places)
    if not there or "RAY_AUTH_MODE" in os.environ or address in {"", "auto"}:
        return
    if address.startswith(CLIENT) or wants_token(address):
        os.environ["RAY_AUTH_MODE"] = "token"


def wants_token(address: str) -> bool:
    """Whether the cluster at HOST:PORT lets nobody in without one.

    Who shows one to a cluster that has none is not understood by it, unlike from a distance.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        knock(address)
        asked = subprocess.run(
            command,
            env={**os.environ, "RAY_AUTH_MODE": "disabled"},
            capture_output=True,
            text=True,
            timeout=KNOCK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False  # nobody is there, as will be seen
    return asked.returncode != 0 and "InvalidAuthToken" in asked.stderr


def missing(folder: Path) -> list[Path]:
    """`folder` and those above it, as far as they are not there, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def knock(address: str) -> None:
    """See that somebody listens at `address`, if it names a port: Ray would try for a minute.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def answer(
    where: str, token: str, node: str, env: Mapping[str, str]
) -> tuple[str, str | None, str]:
    """(our version there, what is wrong with `where` if anything, what was written to it)."""
    os.environ.update(env)
    theirs, problem = f"{TOKEN}{token}-{node[:12]}", None
    try:
        shelf = shelf_of(where)
        read = shelf.read(f"{TOKEN}{token}")
        if read != token.encode():
            problem = f"{socket.gethostname()} does not find there what was written here"
        else:
            shelf.write(theirs, node.encode())
    except OSError as error:
        problem = str(error)
    return shoal_version(), problem, theirs


def shoal_version() -> str:
    """Which shoal this is."""
    return version(shoal.__name__)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Let Ray not keep the signals that it takes for itself, which are the controller's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def unfit(error: BaseException) -> str:
    """Why a node is of no use, in a sentence, from what Ray raised about it."""
    text = str(error)
    if "No module named 'shoal" in text:
        return "shoal is not installed there"
    return first_line(error)


def first_and_last(error: BaseException) -> str:
    """What `error` says, without what is between: it may have a traceback of the cluster in it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return first_line(error) if len(lines) < 2 else f"{lines[0].rstrip(':.')}: {lines[-1]}"


def first_line(error: BaseException) -> str:
    """The first line of what `error` says that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
