"""How the user's command is started: held before its script, or by a shell."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import shoal
from shoal.home import Folder

NNI_PATH = Path(shoal.__file__).parent / "compat" / "nni" / "path"  # where `import nni` finds ours
EXPERIMENT = "SHOAL_EXPERIMENT"  # in the environment of whatever an experiment has started
PROBE_S = 20.0  # for another Python to say what it is
PROBE = """
import sys
print(sys.implementation.name, sys.version_info >= (3, 9), "site" in sys.modules)
"""

# Options of Python that a held one understands as well: what they take is in the same word or the
# next. Not -S, -I or -E (it would not find us), nor -i and none at all (they read stdin).
ALONE = re.compile(r"-[uOBbqsvdP]+")
WITH_WORD = re.compile(r"-[WX]")
WORDS_ONLY = re.compile(r"[\w ./:=@%+,'\"-]+")  # a command that means to a shell what it says


@dataclass(frozen=True, slots=True)
class Launch:
    """How a trial is started."""

    command: str | None = None  # for the shell; None: a fork of a held Python
    program: str = sys.executable  # that Python
    argv: Sequence[str] = ("python", "-c", "pass")  # what it is called with
    script: Path | None = None  # what to read the imports from
    folder: Path = Path()  # where the script looks for its own modules first
    text: str = ""  # the command as the user wrote it

    @classmethod
    def wanted(
        cls,
        command: str | None,
        train: str | None,
        directory: Path,
        env: Mapping[str, str],
        *,
        warm: bool,
    ) -> "Launch":
        """The function `train` or else the `command`, held if it can be and `warm` says so."""
        launch = cls.of(command or "", directory, env)
        if train is not None:
            launch = cls.function(train, directory)
        return launch if warm else launch.cold

    @classmethod
    def of(cls, command: str, directory: Path, env: Mapping[str, str]) -> "Launch":
        """Held where the command is a call of Python, by a shell everywhere else."""
        cold = cls(command)
        if not WORDS_ONLY.fullmatch(command.strip()):
            return cold
        try:
            words = shlex.split(command)
        except ValueError:
            return cold
        program = python_of(words[0], directory, env) if words else None
        rest = arguments(words[1:])
        if program is None or not rest:
            return cold
        if rest[0] == "-m" and len(rest) > 1:
            script, folder = module_in(rest[1], directory), directory
        elif rest[0] == "-c" and len(rest) > 1:
            script, folder = None, directory
        elif rest[0].startswith("-") or not (directory / rest[0]).exists():
            return cold
        else:
            script = (directory / rest[0]).resolve()
            folder = script.parent
            if script.is_dir():
                script, folder = script / "__main__.py", script
        return cls(None, program, words, script, folder, command)

    @classmethod
    def function(cls, train: str, directory: Path) -> "Launch":
        """The function `train`, which is written `module:name`."""
        script = module_in(train.partition(":")[0], directory)
        argv = (sys.executable, "-m", "shoal.trial", train)
        return cls(None, sys.executable, argv, script, directory, shlex.join(argv))

    @property
    def cold(self) -> "Launch":
        """The same by a shell."""
        if self.command is not None:
            return self
        return Launch(self.text)


def arguments(words: Sequence[str]) -> Sequence[str]:
    """`words` without the options of Python that come first."""
    while words:
        if ALONE.fullmatch(words[0]):
            words = words[1:]
        elif WITH_WORD.fullmatch(words[0]):
            words = words[2:]
        elif WITH_WORD.match(words[0]):
            words = words[1:]
        else:
            return words
    return words


def python_of(word: str, directory: Path, env: Mapping[str, str]) -> str | None:
    """The program that the command `word` starts, if it is a Python that can be held."""
    if not re.fullmatch(r"python(\d(\.\d+)?)?", Path(word).name):
        return None
    found = str(directory / word) if "/" in word else shutil.which(word, path=env.get("PATH"))
    if found is None or not os.access(found, os.X_OK):
        return None
    if Path(found).resolve() == Path(sys.executable).resolve():
        return found
    try:
        answer = subprocess.run(
            [found, "-c", PROBE], cwd=directory, env=dict(env), capture_output=True, text=True,
            timeout=PROBE_S, check=False, stdin=subprocess.DEVNULL,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return found if answer.split() == ["cpython", "True", "True"] else None


def module_in(name: str, directory: Path) -> Path | None:
    """The file of the module `name`, if it is in `directory`."""
    base = directory.joinpath(*name.split("."))
    for file in (base.with_suffix(".py"), base / "__main__.py"):
        if file.is_file():
            return file
    return None


def environment(folder: Folder, directory: Path, more: Mapping[str, str]) -> dict[str, str]:
    """What all trials of an experiment find in their environment; `more` is the user's wish."""
    env = {**os.environ, **more}
    env["PYTHONPATH"] = os.pathsep.join([str(NNI_PATH), *filter(None, [env.get("PYTHONPATH")])])
    env["PATH"] = search_path(env)
    return env | {
        EXPERIMENT: str(folder.path),
        "NNI_PLATFORM": "local",
        "NNI_EXP_ID": folder.id,
        "NNI_CODE_DIR": str(directory),
        "MULTI_PHASE": "false",
        "REUSE_MODE": "false",
    }


def as_a_shell_has_it(env: Mapping[str, str], launch: Launch, directory: Path) -> dict[str, str]:
    """`env` as a shell that is called in `directory` would hand it on to a held Python."""
    if launch.command is not None:
        return dict(env)
    return dict(env) | {"PWD": str(directory), "_": launch.program, "SHLVL": env.get("SHLVL", "0")}


def search_path(env: Mapping[str, str]) -> str:
    """Where commands are looked for: first in our own virtual environment, if it is the user's.

    `.venv/bin/shoal run` without activating the environment means its `python` too. An activated
    one is on the path already; one that pipx or uv made for shoal alone is not the user's.
    """
    path = env.get("PATH", os.defpath)
    activated = env.get("VIRTUAL_ENV") or env.get("CONDA_PREFIX")
    private = any(
        (Path(sys.prefix) / mark).exists() for mark in ("pipx_metadata.json", "uv-receipt.toml")
    )
    if sys.prefix == sys.base_prefix or activated or private:
        return path
    return os.pathsep.join([str(Path(sys.executable).parent), path])
