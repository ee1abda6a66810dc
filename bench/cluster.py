"""What shoal costs on a cluster: the table "On a cluster" of README.md, row by row.

    python bench/cluster.py [ROW ...]

ROW is one of steps, overhead, store; by default, all. Needs the extras ray and cloud; for `steps`
Ray Tune (`ray[tune]`), and for `store` an S3 server (`moto[server]`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import shoal

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.trainables import HERE, POPULATION, STEPS, WORKERS, Noop, row, run, steady

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


class Second(Noop):
    """Takes a second."""

    def step(self, state: Any, hparams: Any) -> Any:
        began = time.monotonic()
        time.sleep(1.0)
        state, metrics = super().step(state, hparams)
        return state, {**metrics, "began": began}


def started() -> Any:
    """A Ray cluster of two CPUs, on this machine."""
    from ray.cluster_utils import Cluster

    return Cluster(
        initialize_head=True, head_node_args={"num_cpus": WORKERS, "include_dashboard": False}
    )


def steps(home: str) -> None:
    """A trainable that does nothing, against Ray Tune on the same cluster."""
    cluster = started()
    on = shoal.Ray(cluster.address)
    ours, firsts = [], []
    for seed in range(3):
        began, rows = run(Noop, home, seed=seed, execution=on, verbose=False)
        ours.append(steady(rows) * WORKERS / len(rows))
        firsts.append(min(r.metrics["began"] for r in rows) - began)
    sizes = [str(n) for n in (POPULATION, STEPS, WORKERS)]
    said = subprocess.run(
        [sys.executable, str(HERE / "peers" / "ray_trainable.py"), *sizes, cluster.address],
        capture_output=True, text=True, check=True, cwd=home, timeout=600,
    ).stdout  # fmt: skip
    cluster.shutdown()
    theirs = json.loads(said.strip().splitlines()[-1])
    each, our = theirs["steady"] * WORKERS / theirs["steps"], statistics.median(ours)
    row(
        "trainable that does nothing, a step",
        f"{our * 1e3:.2f} ms; Ray Tune {each * 1e3:.0f} ms: {each / our:.0f} ×",
        "≥ 10 × less than Ray Tune",
    )
    row(
        "from `shoal.run` to the first step",
        f"{statistics.median(firsts):.1f} s; Ray Tune {theirs['first']:.1f} s",
        "",
    )


def overhead(home: str) -> None:
    """Steps of a second, against the same in processes of this machine."""
    cluster = started()
    on = shoal.Ray(cluster.address)
    found: dict[str, list[float]] = {"here": [], "there": []}
    for seed in range(3):
        for name, execution in (("here", None), ("there", on)):
            words = {"steps": 8, "seed": seed, "verbose": False, "execution": execution}
            _, rows = run(Second, home, **words)
            found[name].append(steady(rows))
    cluster.shutdown()
    here, there = (statistics.median(found[name]) for name in ("here", "there"))
    row(
        "steps of 1 s, against workers of this machine",
        f"{there:.2f} s and {here:.2f} s: {100 * (there / here - 1):+.1f} %",
        "≤ 2 %",
    )


def store(home: str) -> None:
    """A checkpoint of 100 MB to an S3 server and back, against plain obstore."""
    import obstore
    from obstore.store import from_url
    from tests.servers import asked, port

    from shoal.buckets import Bucket

    where = port()
    address = f"http://127.0.0.1:{where}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true",
    }  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(where)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not asked(f"{address}/moto-api/"):
            time.sleep(0.05)
        asked(f"{address}/bench", "PUT")
        folder = Path(home) / "checkpoint"
        folder.mkdir()
        (folder / "model.pt").write_bytes(os.urandom(100_000_000))
        bucket, plain = Bucket("s3://bench/ours"), from_url("s3://bench/plain")
        ours, theirs = [], []
        for step in range(9):
            place = f"0/{step}"
            began = time.perf_counter()
            bucket.publish(place, bucket.upload(folder, place))
            upload = bucket.published(place)
            assert upload is not None
            bucket.download(place, upload, Path(home) / "back")
            ours.append(time.perf_counter() - began)
            bucket.remove(place)
            began = time.perf_counter()
            obstore.put(plain, "model.pt", folder / "model.pt")
            with (Path(home) / "plain.pt").open("wb") as file:
                for chunk in obstore.get(plain, "model.pt").stream():
                    file.write(chunk)
            theirs.append(time.perf_counter() - began)
    finally:
        server.kill()
    our, plainly = statistics.median(ours), statistics.median(theirs)
    row(
        "100 MB to an S3 server and back, against plain obstore",
        f"{our:.2f} s and {plainly:.2f} s: {our / plainly:.2f} ×",
        "≤ 1.1 ×",
    )


ROWS = {"steps": steps, "overhead": overhead, "store": store}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], default=[])
    for name in parser.parse_args().rows or ROWS:
        with tempfile.TemporaryDirectory() as home:
            ROWS[name](home)


if __name__ == "__main__":
    main()
