"""Exit codes and messages."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.cli import looking, main
from tests.cli.shell import TRAIN, Shell, eventually, waiting, write

COMMANDS = sorted(main.cli.commands)


def refusal(ended: subprocess.CompletedProcess[str]) -> str:
    """What a command that refused has said."""
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: ")
    return ended.stderr


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_every_command_has_help(shell: Shell, name: str) -> None:
    ended = shell(*name.split(), "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"Usage: shoal {name}".rstrip())


def test_the_version_is_told(shell: Shell) -> None:
    assert shell("--version").stdout == "shoal 0.1.0\n"


def test_without_a_command_there_is_help(shell: Shell) -> None:
    ended = shell()
    assert ended.returncode == 2
    assert "Commands:" in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swim"], "No such command 'swim'. See `shoal --help`."),
        (["run"], "Missing argument 'CONFIG'. See `shoal run --help`."),
        (["run", "x.yml", "--stepz", "3"], "No such option"),
        (["run", "x.yml", "--steps", "0"], "0 is not in the range x>=1"),
        (["resume", "--target", "much"], "'much' is not a valid float"),
        (["export"], "Missing option '-o'"),
        (["export", "-o", "x", "--format", "xml"], "'xml' is not one of 'json', 'csv', 'parq"),
        (["update"], "Nothing to change"),
        (["rm"], "Missing argument 'EXPERIMENT'"),
    ],
)
def test_bad_usage(shell: Shell, arguments: list[str], message: str) -> None:
    assert message in refusal(shell(*arguments))


@pytest.mark.parametrize("name", ["run", "check"])
def test_a_file_that_is_not_there(shell: Shell, name: str) -> None:
    assert refusal(shell(name, "nowhere.yml")) == "error: nowhere.yml: there is no such file\n"
    assert shell.nothing_there()


@pytest.mark.parametrize("name", ["run", "check"])
def test_every_mistake_of_a_file_is_told_and_nothing_is_made(
    shell: Shell, tmp_path: Path, name: str
) -> None:
    file = write(tmp_path / "toy", population="many", stepz=3)
    said = refusal(shell(name, file))
    assert "population: expected a whole number, got " in said
    assert "unknown key 'stepz'; did you mean 'steps'?" in said
    assert shell.nothing_there()


def test_a_folder_that_holds_other_checkpoints_is_refused_and_left_alone(
    shell: Shell, tmp_path: Path
) -> None:
    old = tmp_path / "checkpoints" / "3" / "0" / "model"
    old.parent.mkdir(parents=True)
    old.write_text("precious")
    file = write(tmp_path / "toy", checkpoints=str(tmp_path / "checkpoints"))
    assert "already holds checkpoints" in refusal(shell("run", file))
    assert shell.nothing_there()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert old.read_text() == "precious"


LOOKS = ["status", "trials", "best", "schedule", "lineage", "log", "resume", "stop", "pause"]


@pytest.mark.parametrize("name", LOOKS)
def test_an_experiment_that_is_not_there(done: Shell, name: str) -> None:
    said = refusal(done(name, "nobody"))
    assert "no experiment has the id, name or folder 'nobody'" in said
    assert "(toy)" in said, "those that are there are named"


@pytest.mark.parametrize("name", LOOKS)
def test_no_experiment_at_all(shell: Shell, name: str) -> None:
    assert "`shoal run CONFIG` makes one" in refusal(shell(name))


def test_a_run_that_is_done(shell: Shell, tmp_path: Path) -> None:
    ended = shell("run", write(tmp_path / "toy"))
    assert ended.returncode == 0
    status = shell.json("status")
    assert f"toy  {status['id']}  done  12 trials in" in ended.stdout
    for part in ("best", "copied nobody", "steps", "lineage", "checkpoint"):
        assert part in ended.stdout
    assert status["best"]["checkpoint"] in ended.stdout
    assert "step 3/3  12/12 trials  best -" in ended.stderr
    assert f"`shoal trials {status['id']}`" in ended.stderr


def test_the_options_of_run_stand_in_place_of_the_file(shell: Shell, tmp_path: Path) -> None:
    file, home = write(tmp_path / "toy"), tmp_path / "other home"
    options = ("--name", "other", "--seed", 5, "--steps", 1, "--workers", 3, "--home", home)
    ended = shell("run", file, *options)
    assert ended.returncode == 0
    assert shell.nothing_there()
    status = shell.json("status", "other", "--home", home)
    assert (status["name"], status["steps"], status["workers"]) == ("other", 1, 3)
    assert status["trials"]["finished"] == 4
    other = shell("run", file, "--steps", 1)
    assert other.returncode == 0
    hparams = [
        [trial["hparams"] for trial in shell.json("trials", *at)] for at in ((), ["--home", home])
    ]
    assert hparams[0] != hparams[1], "another seed"
    # outside of the default home an experiment is named by its folder, which a shell can read
    assert f"`shoal trials '{status['folder']}'`" in ended.stderr


def test_a_run_that_failed(shell: Shell, tmp_path: Path) -> None:
    script = "import nni, sys\nnni.get_next_parameter()\nsys.exit('out of luck')\n"
    ended = shell("run", write(tmp_path / "toy", script))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "failed: all 4 trials of step 0 failed" in ended.stderr
    assert "out of luck" in ended.stderr
    assert shell.json("status")["state"] == "failed"
    assert shell.json("best") is None
    assert shell.json("schedule") == shell.json("lineage") == []
    for name in ("best", "schedule", "lineage"):
        looked = shell(name)
        assert looked.returncode == 0
        assert "no trial has finished yet" in looked.stdout + looked.stderr
    assert "crash: exit code 1" in shell("trials").stdout
    assert shell.json("trials")[0]["error"].startswith("crash: exit code 1")


def test_nothing_finished_in_the_only_step_is_a_failure(shell: Shell, tmp_path: Path) -> None:
    ended = shell("run", write(tmp_path / "toy", "raise SystemExit(3)\n", steps=1))
    assert ended.returncode == 1
    assert shell.json("status")["state"] == "failed"


def shape(trials: list[dict[str, Any]]) -> list[Any]:
    keys = ("id", "member", "step", "hparams", "parent", "state", "metric")
    return [[trial[key] for key in keys] for trial in trials]


def held(shell: Shell, file: Path, gate: Path) -> tuple[subprocess.Popen[str], Any]:
    """A run whose step 1 waits for `gate`, and its status once it is there."""
    return shell.start("run", file, GATE=str(gate)), waiting(shell)


def test_interrupted_and_resumed(shell: Shell, tmp_path: Path) -> None:
    file, gate = write(tmp_path / "toy"), tmp_path / "gate"
    run, status = held(shell, file, gate)
    assert (status["state"], status["controller"]["pid"]) == ("running", run.pid)
    assert {row["state"] for row in shell.json("trials")} == {"finished", "running"}
    # a second controller is refused, and names the first
    assert f"is being run by process {run.pid}" in refusal(shell("resume"))
    run.send_signal(signal.SIGINT)
    eventually("the signal to be seen", lambda: "interrupted" in shell("log").stdout)
    gate.touch()
    out, err = run.communicate()
    assert run.returncode == 130
    assert "stopped" in out
    assert f"`shoal resume {status['id']}` goes on." in err
    assert {row["state"] for row in shell.json("trials")} == {"finished"}, "what ran has ended"

    assert shell("resume").returncode == 0
    broken = shell.json("trials")
    assert shell("run", file).returncode == 0
    assert shape(shell.json("trials")) == shape(broken), "as if it had not been interrupted"


def test_interrupted_twice_ends_at_once(shell: Shell, tmp_path: Path) -> None:
    run, _ = held(shell, write(tmp_path / "toy"), tmp_path / "gate")
    run.send_signal(signal.SIGINT)
    eventually("the signal to be seen", lambda: "interrupted" in shell("log").stdout)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted" in {row["state"] for row in shell.json("trials")}
    assert shell("resume").returncode == 0
    assert shell.json("status")["trials"]["finished"] == 12


def test_resume_with_new_limits(shell: Shell, tmp_path: Path) -> None:
    assert shell("run", write(tmp_path / "toy", steps=1)).returncode == 0
    assert shell("resume", "--steps", 2, "--workers", 1).returncode == 0
    assert shell.json("status")["trials"]["finished"] == 8
    assert shell("resume", "--max-trials", 10).returncode == 0
    assert shell.json("status")["trials"]["finished"] == 10
    ended = shell("resume", "--steps", 50, "--target", -2.999)
    assert ended.returncode == 0
    assert "the target of -2.999 was reached" in ended.stdout
    ended = shell("resume", "--max-duration", "1ms")
    assert "expected a time" in refusal(ended)
    ended = shell("resume", "--max-duration", "0.01s", "--target", 0)
    assert ended.returncode == 0
    assert "the time limit of 0.01 s was reached" in ended.stdout


def test_a_reader_that_has_seen_enough_is_no_error(done: Shell) -> None:
    process = done.start("trials", "--json")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate()
    assert err == ""


def test_a_fault_of_ours_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise KeyError("oh")

    monkeypatch.setattr(looking, "status", fault)
    monkeypatch.delenv("SHOAL_DEBUG", raising=False)
    assert main.execute(["status"]) == 1
    assert capsys.readouterr().err.startswith("error: KeyError: 'oh'\nSHOAL_DEBUG=1")
    monkeypatch.setenv("SHOAL_DEBUG", "1")
    with pytest.raises(KeyError):
        main.execute(["status"])


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["status"], ["trials", "--json"]])
def test_looking_waits_for_nothing_that_only_a_run_needs(done: Shell, arguments: list[str]) -> None:
    heavy = ["pydantic", "psutil", "yaml", "numpy", "shoal.experiment", "shoal.runners.script"]
    code = (
        "import json, sys\nfrom shoal.cli.main import execute\n"
        f"execute({arguments!r})\n"
        f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=done.environment, stdout=subprocess.PIPE, check=True
    )
    assert json.loads(ended.stdout.splitlines()[-1]) == []


def test_a_run_below_a_home_that_cannot_be(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = write(tmp_path / "toy", TRAIN)
    assert "experiments cannot be kept in" in refusal(
        shell("run", file, "--home", tmp_path / "file" / "home")
    )


ESCAPES = "a\x1b[31m\x07b\nc\u202ed\u2028e"
SHOWN = r"a\x1b[31m\x07b\nc\u202ed\u2028e"


def test_what_a_terminal_would_obey_is_shown(shell: Shell, tmp_path: Path) -> None:
    space = {"o\x1bp": {"choice": [ESCAPES, "x\x9by"]}}
    script = TRAIN.replace('p["lr"]', "0.1")
    file = write(tmp_path, script, space=space, steps=2)
    for command in (
        ["run", file, "--name", ESCAPES],
        ["list"], ["status"], ["trials"], ["best"], ["schedule"], ["lineage"], ["log"],
        ["export", "-o", tmp_path / "out.csv"],
        ["stop"],
        ["rm", ESCAPES, "--yes"],
    ):  # fmt: skip
        ended = shell(*command)
        assert ended.returncode == 0, ended
        said = ended.stdout + ended.stderr
        assert not set("\x1b\x07\x9b\u202e\u2028") & set(said), command
        if command[0] in {"run", "list", "status", "export", "stop", "rm"}:
            assert SHOWN in said
        if command[0] in {"status", "trials", "schedule"}:
            assert r"o\x1bp" in said
    ended = shell("run", tmp_path / "a\x1bb.yml")
    assert ended.returncode == 2
    assert r"a\x1bb.yml" in ended.stderr


def test_any_key_of_the_file_can_be_set(shell: Shell, tmp_path: Path) -> None:
    file = write(tmp_path)
    given = ["steps=2", "population=3", "exploit={truncation: 0.5}", f"home={tmp_path / 'other'}"]
    ended = shell("run", file, *(word for text in given for word in ("--set", text)))
    assert ended.returncode == 0, ended.stderr
    (result,) = (shoal.open(home=tmp_path / "other"),)
    assert [result.config[key] for key in ("steps", "population")] == [2, 3]
    assert result.config["exploit"] == {"truncation": 0.5}
    for wrong, said in (
        ("sets=2", "unknown key 'sets'; did you mean 'steps'?\n"),
        ("steps=two", "steps: expected a whole number, got 'two'\n"),
        ("steps", "expected KEY=VALUE"),
        ("space=[", "space: expected a value in YAML"),
        ("control=9", "control: expected at most the population, 4, got 9\n"),
    ):
        assert said in refusal(shell("run", file, "--set", wrong))
    assert "is given twice" in refusal(shell("run", file, "--set", "steps=1", "--set", "steps=2"))
    assert "steps has an option" in refusal(shell("run", file, "--set", "steps=1", "--steps", "2"))


MINUS_ZERO = re.compile(r"(?<![\w/-])-0(\.0*)?(?![\w.-])")  # as a number: not in a path's pytest-0


def test_a_metric_of_zero_is_zero_when_less_is_better(shell: Shell, tmp_path: Path) -> None:
    script = "import nni\nnni.get_next_parameter()\nnni.report_final_result(0.0)\n"
    assert shell("run", write(tmp_path, script, mode="min", steps=1)).returncode == 0
    for command in ("list", "status", "trials", "best", "export"):
        more = ["-o", "-", "--format", "csv"] if command == "export" else []
        assert not MINUS_ZERO.search(shell(command, *more).stdout), command
    assert '"metric": 0.0' in shell("best", "--json").stdout
    assert '"best": 0.0' in shell("list", "--json").stdout


@pytest.mark.parametrize("command", [["status"], ["run", "config.json"], ["--help"]])
def test_an_interrupt_at_any_moment_ends_it_silently(
    shell: Shell, done: Shell, tmp_path: Path, command: list[str]
) -> None:
    """As soon as there is anything of ours in the process: Python itself takes 20 ms to begin."""
    write(tmp_path)
    environment = (done if command == ["status"] else shell).environment
    begin = (
        "import os, sys, threading, signal, time\n"
        "def interrupt(after=float(sys.argv.pop())):\n"
        "    time.sleep(after)\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "from shoal.cli import entry\n"
        "sys.argv[0] = 'shoal'\n"
        "signal.signal(signal.SIGINT, entry.end)\n"  # or it may come before `main` has begun
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "entry.main()\n"
    )
    codes = set()
    for milliseconds in range(1, 100, 6):
        ended = subprocess.run(
            [sys.executable, "-c", begin, *command, str(milliseconds / 1000)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        codes.add(ended.returncode)
        assert "Traceback" not in ended.stderr
        assert "SHOAL_DEBUG" not in ended.stderr
        if ended.returncode == 130 and "shoal resume" not in ended.stderr:
            assert ended.stderr == ""
    assert 130 in codes
    assert codes <= {0, 130, -signal.SIGINT}
