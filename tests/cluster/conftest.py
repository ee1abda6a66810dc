"""One Ray cluster of two nodes, on this machine, for all tests that need one."""

import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from tests.faults.test_disks import private
from tests.lab import until
from tests.servers import azure, port, s3, url

__all__ = ["azure", "s3", "url"]

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


# A node is given up after half a minute; here it is sooner, as tests wait for it.
# And processes are begun when somebody wants one: most would never get anything to do.
SYSTEM = {
    "health_check_period_ms": 300, "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 2, "prestart_worker_first_driver": False,
}  # fmt: skip


class Nodes:
    """A cluster whose nodes come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster  # noqa: PLC0415 (seconds, where it is not needed)

        door = port()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves its server's log open
            self._cluster = Cluster(
                initialize_head=True,
                head_node_args={
                    "num_cpus": 2, "include_dashboard": False, "ray_client_server_port": door,
                    "_system_config": SYSTEM,
                },
            )  # fmt: skip
            gc.collect()
        self.address: str = self._cluster.address
        host, _, _ = self.address.rpartition(":")
        self.addresses = {"near": self.address, "far": f"ray://{host}:{door}"}
        import ray  # noqa: PLC0415

        # once for all tests in this process, which takes seconds; what is run as a command connects
        ray.init(self.address, namespace="tests", log_to_driver=False, logging_level="ERROR")
        self._disconnect = ray.shutdown
        self.second = self.add()

    def add(self, **words: Any) -> Any:
        """A node more, with two CPUs."""
        return self._cluster.add_node(**{"num_cpus": 2, **words})

    def kill(self, node: Any) -> None:
        """End a node hard: all its processes at once, as when the machine is taken away."""
        for pid in (raylet_of(node), *self.below(node)):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        with suppress(Exception):  # it is dead
            self._cluster.remove_node(node, allow_graceful=False)

    def below(self, node: Any) -> set[int]:
        """The processes that run on `node`."""
        return {p.pid for p in psutil.Process(raylet_of(node)).children(recursive=True)}

    def there(self) -> list[Any]:
        """The nodes that Ray takes for alive."""
        import ray  # noqa: PLC0415

        return [node for node in ray.nodes() if node["Alive"]]

    def close(self) -> None:
        self._disconnect()
        self._cluster.shutdown()


@contextmanager
def joined(nodes: Nodes, disk: Path, options: str = "size=1g") -> Iterator[None]:
    """A node with two CPUs that has a disk of its own at `disk`, and its temporary files there."""
    disk.mkdir()
    join = f"mount -t tmpfs -o {options} none {disk} && export TMPDIR={disk} && "
    join += f"exec {sys.executable} -m ray.scripts.scripts start --address={nodes.address} "
    join += "--num-cpus=2 --block"
    before = len(nodes.there())
    process = subprocess.Popen(private(join), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: len(nodes.there()) > before, 60.0)
        yield
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()
    until(lambda: len(nodes.there()) == before, 60.0)


def raylet_of(node: Any) -> int:
    """What leads `node`."""
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.close()


@pytest.fixture
def on(nodes: Nodes) -> shoal.Ray:
    """Where to run."""
    return shoal.Ray(nodes.address)


@pytest.fixture
def spread(nodes: Nodes) -> shoal.Ray:
    """The same, with one worker on each node."""
    return shoal.Ray(nodes.address, cpus_per_trial=2)
