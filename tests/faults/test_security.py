"""What comes from a disk or a stranger is data and stays where it belongs; no secret leaks."""

import ast
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

import shoal
from tests.cli.shell import TRAIN, Shell, write
from tests.faults.test_kill_workers import CLIMB
from tests.lab import SPACE

SOURCE = Path(shoal.__file__).parent
# who may make code of data, and of whose
ALLOWED = {
    ("runners/worker/__main__.py", "cloudpickle.loads"): "what its own controller has just written",
    ("torch.py", "torch.load"): "with weights_only=True, see below",
    ("jax.py", "np.load"): "with allow_pickle=False, see below",
}
MAKES_CODE = {
    "eval", "exec", "compile", "pickle.load", "pickle.loads", "cloudpickle.load",
    "cloudpickle.loads", "dill.load", "joblib.load", "marshal.load", "marshal.loads",
    "shelve.open", "torch.load", "np.load", "numpy.load", "yaml.load", "yaml.unsafe_load",
    "yaml.full_load", "yaml.load_all", "pd.read_pickle",
}  # fmt: skip


def calls() -> list[tuple[str, str, ast.Call]]:
    """(file, what is called, the call) of every call in the package that has a plain name."""
    return [
        (str(path.relative_to(SOURCE)), ast.unparse(node.func), node)
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def test_nothing_that_was_read_becomes_code() -> None:
    there = {(file, name): call for file, name, call in calls() if name in MAKES_CODE}
    assert there.keys() == ALLOWED.keys()
    words = {
        name: {key.arg: ast.unparse(key.value) for key in call.keywords}
        for (_, name), call in there.items()
    }
    assert words["torch.load"]["weights_only"] == "True"
    assert words["np.load"]["allow_pickle"] == "False"


def test_yaml_is_read_by_a_safe_loader() -> None:
    import yaml  # noqa: PLC0415

    from shoal.documents import _Loader  # noqa: PLC0415

    assert issubclass(_Loader, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    loaders = [call for file, name, call in calls() if name in {"yaml.parse", "yaml.compose"}]
    for call in loaders:
        assert "_Loader" in {ast.unparse(key.value) for key in call.keywords} | set(
            map(ast.unparse, call.args)
        )


SECRET = "correct-horse-battery-staple-4711"


@pytest.mark.parametrize("what", ["script", "workers"])
def test_the_environment_is_not_written_down(shell: Shell, tmp_path: Path, what: str) -> None:
    if what == "script":
        script = TRAIN + f"\nassert os.environ['API_KEY'] == {SECRET[::-1]!r}[::-1]\n"
        config = write(tmp_path, script)
    else:
        (tmp_path / "climb.py").write_text(CLIMB)
        space = {"h0": {"float": [0.0, 1.0]}, "h1": {"float": [0.0, 1.0]}}
        config = write(tmp_path, trainable="climb:Climb", command=None, space=space)
    ended = shell("run", config, API_KEY=SECRET)
    assert ended.returncode == 0, ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    for said in ("status", "trials", "log", "best"):
        assert SECRET not in shell(said).stdout
    files = [path for path in shell.home.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


NAMES = (
    "../../escaped",
    "/tmp/escaped",
    "..",
    "a/b",
    "C:\\x",
    "~",
    "$HOME",
    "-rf",
    "\u202e",
    "a\nb",
)


def test_names_lead_nowhere(shell: Shell, tmp_path: Path) -> None:
    """Neither of hyperparameters and options, nor of an experiment or a metric."""
    script = (
        "import nni, os, pathlib\np = nni.get_next_parameter()\n"
        "save = pathlib.Path(p['save_checkpoint_dir']); save.mkdir(parents=True, exist_ok=True)\n"
        "(save / 'x').write_text('x')\n"
        "nni.report_final_result({'default': 1.0, '../../escaped': 2.0})\n"
    )
    space: dict[str, Any] = {name: {"choice": list(NAMES)} for name in NAMES}
    folder = tmp_path / "deep" / "deeper"
    config = write(folder, script, space=space, name="../../escaped", steps=2)
    before = {path for path in tmp_path.rglob("*") if shell.home not in path.parents}
    ended = shell("run", config)
    assert ended.returncode == 0, ended.stderr
    for what in ("trials", "best", "schedule", "lineage", "log", "list"):
        assert shell(what).returncode == 0
    assert shell("status", "../../escaped").returncode == 0, "it is a name, and finds it by that"
    after = {path for path in tmp_path.rglob("*") if shell.home not in path.parents}
    assert after - before <= {shell.home, folder / "__pycache__"}
    (only,) = shell.home.iterdir()
    assert only.name.isalnum()


def test_nobody_else_may_look(tmp_path: Path) -> None:
    (tmp_path / "climb.py").write_text(CLIMB)
    config = shoal.Config(
        trainable="climb:Climb", directory=tmp_path, space=SPACE, steps=2, population=2,
        home=tmp_path / "home",
    )  # fmt: skip
    old = os.umask(0)
    try:
        result = shoal.run(config, verbose=False)
    finally:
        os.umask(old)
    assert stat.S_IMODE(result.folder.path.stat().st_mode) == 0o700


def test_what_a_worker_reads_of_a_checkpoint_is_json(tmp_path: Path) -> None:
    (tmp_path / "climb.py").write_text(CLIMB)
    config = shoal.Config(
        trainable="climb:Climb", directory=tmp_path, space=SPACE, steps=2, population=2,
        home=tmp_path / "home",
    )  # fmt: skip
    result = shoal.run(config, verbose=False)
    ours = list(result.checkpoints.glob("*/*/.shoal.json"))
    assert ours
    for path in ours:
        assert json.loads(path.read_text())["trial"] >= 0
