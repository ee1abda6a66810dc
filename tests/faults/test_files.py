"""Whatever a trial puts in the place of a file that is read is its failure, and the run goes on."""

import json
import shutil
from pathlib import Path

import pytest

import shoal
from tests.cli.shell import TRAIN, Shell, write

# `first` is trial 0, each time that it is tried; `own` is its folder, `saves` its member's.
SETUP = """
import os, pathlib, shutil, socket, sys
import nni
own = pathlib.Path(os.environ["SHOAL_TRIAL_DIR"])
first = os.environ["NNI_TRIAL_SEQ_ID"] == "0"
parameters = nni.get_next_parameter()
save = pathlib.Path(parameters["save_checkpoint_dir"])
def listen(path):
    os.chdir(path.parent)  # or the name is too long for a socket
    socket.socket(socket.AF_UNIX).bind(path.name)
def loop(path):
    path.symlink_to(path)
def sparse(path):
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)
def endless(path):
    path.write_bytes(b"[" * (1 << 21))
def device(path):
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:  # of the superuser only
        path.symlink_to("/dev/zero")
"""
PUT = {
    "FIFO": ("os.mkfifo(path)", "is a FIFO"),
    "device": ("device(path)", "is a "),
    "folder": ("path.mkdir()", "is a folder"),
    "loop of links": ("loop(path)", "is a link"),
    "memory": ("path.symlink_to('/proc/self/mem')", "is a link"),
    "socket": ("listen(path)", "is a socket"),
}


def attacked(shell: Shell, folder: Path, attack: str, **changes: object) -> str:
    """What the first trial's error is, after a run in which all others did well."""
    script = f"{SETUP}\nif first:\n{attack}\n    sys.exit()\n{TRAIN}"
    config = write(folder, script, checkpoints=str(folder / "checkpoints"), steps=2, **changes)
    result = shoal.run(config, home=shell.home, verbose=False)
    assert result.state == "done"
    rows = result.trials()
    assert [row.state for row in rows] == ["failed"] + ["finished"] * 7
    assert rows[0].attempt == 2, "it is tried once more"
    return str(rows[0].error)


def lines(*code: str) -> str:
    return "\n".join(f"    {line}" for line in code)


@pytest.mark.parametrize(
    ("what", "name"),
    [(what, "metrics.jsonl") for what in PUT]
    + [(what, name) for what in ("FIFO", "memory") for name in ("stdout", "stderr")],
)
def test_what_is_no_file_in_the_place_of_one(
    shell: Shell, tmp_path: Path, what: str, name: str
) -> None:
    put, said = PUT[what]
    attack = lines(
        "nni.report_final_result(1.0)",
        f"path = own / {name!r}",
        "path.unlink()",
        put,
    )
    error = attacked(shell, tmp_path, attack)
    assert error.startswith(f"bad files: its {name} {said}")
    assert shell("log", "--trial", 0).returncode == 0


def test_a_fifo_from_the_beginning(shell: Shell, tmp_path: Path) -> None:
    """The controller looks at it while the trial runs, and nobody ever writes to it."""
    attack = lines("os.mkfifo(own / 'metrics.jsonl')", "import time; time.sleep(1.2)")
    assert "its metrics.jsonl is a FIFO" in attacked(shell, tmp_path, attack)


@pytest.mark.parametrize("big", ["sparse", "endless"])
def test_reports_without_an_end(shell: Shell, tmp_path: Path, big: str) -> None:
    attack = lines(f"{big}(own / 'metrics.jsonl')", "import time; time.sleep(1.2)")
    error = attacked(shell, tmp_path, attack)
    assert error == "bad files: it reported a line of more than 1 MiB"


def test_a_huge_output_is_no_failure(shell: Shell, tmp_path: Path) -> None:
    script = f"{SETUP}\nif first:\n    os.truncate(own / 'stderr', 1 << 40)\n{TRAIN}"
    assert shell("run", write(tmp_path, script)).returncode == 0
    assert {row["state"] for row in shell.json("trials")} == {"finished"}


@pytest.mark.parametrize(
    ("put", "said"),
    [
        ("own.write_text('x')", "metrics.jsonl is not to be reached (Not a directory)"),
        ("os.mkfifo(own)", "metrics.jsonl is not to be reached (Not a directory)"),
        ("loop(own)", "metrics.jsonl is not to be reached (Too many levels of symbolic links)"),
        ("shutil.rmtree(own.parent); loop(own.parent)", "in the place of its folder"),
    ],
)
def test_its_own_folder_is_none(shell: Shell, tmp_path: Path, put: str, said: str) -> None:
    attack = lines("shutil.rmtree(own)", put)
    assert said in attacked(shell, tmp_path, attack)


@pytest.mark.parametrize(
    ("put", "said"),
    [
        ("save.parent.mkdir(parents=True); save.write_text('x')", "a file, where a folder"),
        ("save.parent.mkdir(parents=True); os.mkfifo(save)", "a FIFO, where a folder"),
        ("save.parent.parent.mkdir(exist_ok=True); save.parent.write_text('x')", "Not a directory"),
        ("save.mkdir(parents=True); os.mkfifo(save / 'weights')", "a FIFO, which nobody can load"),
        ("save.mkdir(parents=True); device(save / 'weights')", "a device, which nobody can load"),
        ("(save / 'a').mkdir(parents=True); listen(save / 'a' / 'w')", "a socket, which nobody"),
    ],
)
def test_what_it_saves_is_no_checkpoint(shell: Shell, tmp_path: Path, put: str, said: str) -> None:
    attack = lines(
        "nni.report_final_result(1.0)",
        "shutil.rmtree(save.parent, ignore_errors=True)",
        "if save.parent.exists(): save.parent.unlink()",
        put,
    )
    error = attacked(shell, tmp_path, attack)
    assert error.startswith("bad files: ")
    assert said in error


def test_links_to_files_are_checkpoints(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "shared.bin").write_text("weights")
    link = f"save.mkdir(parents=True)\n(save / 'w').symlink_to({str(tmp_path / 'shared.bin')!r})\n"
    assert shell("run", write(tmp_path, f"{SETUP}\n{link}{TRAIN}")).returncode == 0
    assert {row["state"] for row in shell.json("trials")} == {"finished"}


def test_something_else_in_the_checkpoints_folder(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "0").write_text("not a member")
    ended = shell("run", write(tmp_path, checkpoints=str(tmp_path / "checkpoints")))
    assert ended.returncode == 2
    assert "checkpoints/0" in ended.stderr
    assert shell.nothing_there()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["0"]


def test_one_of_six_gets_the_folder(shell: Shell, tmp_path: Path) -> None:
    config = write(tmp_path, checkpoints=str(tmp_path / "checkpoints"))
    runs = [shell.start("run", config) for _ in range(6)]
    said = [run.communicate(timeout=60) for run in runs]
    assert sorted(run.returncode for run in runs) == [0] + [2] * 5, said
    assert len(shell.json("list")) == 1
    assert {row["state"] for row in shell.json("trials")} == {"finished"}


def test_resume_after_another_has_taken_the_folder(shell: Shell, tmp_path: Path) -> None:
    config = write(tmp_path, checkpoints=str(tmp_path / "checkpoints"))
    assert shell("run", config, "--name", "one").returncode == 0
    shutil.rmtree(tmp_path / "checkpoints")
    assert shell("run", config, "--name", "two").returncode == 0
    before = sorted((tmp_path / "checkpoints").rglob("x"))
    ended = shell("resume", "one", "--steps", 9)
    assert ended.returncode == 2
    owner = next(brief["id"] for brief in shell.json("list") if brief["name"] == "two")
    assert f"by now the checkpoint folder of experiment {owner}" in ended.stderr
    assert sorted((tmp_path / "checkpoints").rglob("x")) == before


RANKS = """
import os, subprocess, sys, time
import nni
p = nni.get_next_parameter()
rank = os.environ.get("{name}")
if rank is None:
    ranks = [
        subprocess.Popen([sys.executable, __file__], env={{**os.environ, "{name}": str(r)}})
        for r in (1, 0)
    ]
    sys.exit(max(r.wait() for r in ranks))
told = os.path.join(os.environ["SHOAL_TRIAL_DIR"], "told")
while rank == "0" and not os.path.exists(told):
    time.sleep(0.01)
nni.report_intermediate_result(float(rank))
nni.report_final_result(float(rank))
open(told, "w").close()
"""


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_rank_0_is_heard_whoever_is_first(shell: Shell, tmp_path: Path, name: str) -> None:
    config = write(tmp_path, RANKS.format(name=name), steps=1)
    assert shell("run", config).returncode == 0
    assert {row["metric"] for row in shell.json("trials")} == {0.0}
    exported = json.loads(shell("export", "-o", "-", "--format", "json").stdout)
    assert [row["intermediate"] for row in exported] == [[0.0]] * 4
    assert "several final results" not in shell("log").stdout


def test_ranks_of_the_controller_itself(shell: Shell, tmp_path: Path) -> None:
    """A controller that Slurm has started as its third process has trials of one process each."""
    assert shell("run", write(tmp_path), SLURM_PROCID="3").returncode == 0
    exported = json.loads(shell("export", "-o", "-", "--format", "json").stdout)
    assert all(row["intermediate"] for row in exported)


def test_only_other_ranks_report(shell: Shell, tmp_path: Path) -> None:
    script = 'import os\nos.environ["RANK"] = "2"\n' + TRAIN
    assert shell("run", write(tmp_path, script)).returncode == 0
    assert {row["state"] for row in shell.json("trials")} == {"finished"}
