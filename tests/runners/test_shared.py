"""What trials share of their imports, and what they do not: real modules, in a real fork server."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.runners.held import PYTHON, Held, by_a_shell


@contextmanager
def held(folder: Path, script: str, *load: str, **others: Any) -> Iterator[Held]:
    (folder / "script.py").write_text(script)
    held = Held(folder, PYTHON, *load, **others)
    try:
        yield held
    finally:
        held.server.close()


def installed(folder: Path, **modules: str) -> str:
    """A folder for PYTHONPATH with these modules in it."""
    there = folder / "site-packages"
    there.mkdir(exist_ok=True)
    for name, text in modules.items():
        (there / f"{name}.py").write_text(text)
    return str(there)


def test_what_is_shared_is_not_executed_again(tmp_path: Path) -> None:
    path = installed(tmp_path, heavy="import os; MADE_BY = os.getpid()\n")
    script = "import os, sys; print('heavy' in sys.modules)\nimport heavy\nprint(heavy.MADE_BY)"
    with held(tmp_path, script, "heavy", more=("heavy",), PYTHONPATH=path) as lab:
        assert lab.run().out == f"False\n{lab.server.pid}\n"


def test_an_environment_that_a_script_sets_has_its_effect(tmp_path: Path) -> None:
    path = installed(
        tmp_path,
        reads="import os; WIDTH = os.environ.get('WIDTH', '1'); MADE_BY = os.getpid()\n",
        outer="import reads\n",
    )
    script = (
        "import os; os.environ['WIDTH'] = '7'; print('said once', flush=True)\n"
        "import outer; print(outer.reads.WIDTH, outer.reads.MADE_BY == os.getpid())"
    )
    with held(tmp_path, script, "outer", more=("outer",), PYTHONPATH=path) as lab:
        ended = lab.run()
        assert (ended.code, ended.out) == (0, "said once\n7 True\n"), "it began anew"
        note = json.loads((tmp_path / "out1" / "imports.json").read_text())
        assert note["variables"] == {"WIDTH": "7"}
        assert note["library"] == "outer"
    # the server that is then loaded under what the script sets is of use
    with held(
        tmp_path, script, "outer", more=("outer",), PYTHONPATH=path, environ=note["variables"]
    ) as lab:
        shutil.rmtree(tmp_path / "out1")
        assert lab.run().out == "said once\n7 False\n"
        assert not (tmp_path / "out1" / "imports.json").exists()


def test_what_an_import_sets_and_does_is_there_from_then_on(tmp_path: Path) -> None:
    path = installed(
        tmp_path,
        does="import atexit, os, sys, warnings\nos.environ['SET'] = 'by does'\n"
        "atexit.register(print, 'the end of does')\n"
        "warnings.filterwarnings('ignore', 'quiet', UserWarning)\n"
        "class Finder:\n    @staticmethod\n    def find_spec(*_): return None\n"
        "sys.meta_path.append(Finder)\n",
        passing="import warnings\nwith warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore')\n    import does\n",
    )
    script = (
        "import atexit, os, sys, warnings\n"
        "atexit.register(print, 'the end of the script')\n"
        "def tell(): print(os.environ.get('SET'), [f.__name__ for f in sys.meta_path"
        " if isinstance(f, type)], warnings.filters)\n"
        "tell()\nimport passing\ntell()\nwarnings.warn('quiet')\nwarnings.warn('loud')\n"
    )
    with held(tmp_path, script, "passing", more=("passing",), PYTHONPATH=path) as lab:
        warm = lab.run()
    cold = by_a_shell(tmp_path, PYTHON, PYTHONPATH=path)
    assert (warm.code, warm.out, warm.err) == (cold.code, cold.out, cold.err)
    assert "the end of does" in warm.out


UNFIT = {
    "threads": (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
        "it starts threads",
    ),
    "threads of C": (
        "import _thread, time\n_thread.start_new_thread(time.sleep, (100,))",
        "it starts threads",
    ),
    "a server process": (
        "import multiprocessing as m; manager = m.get_context('fork').Manager()",
        "it starts processes",
    ),
    "a child": (
        "import subprocess; child = subprocess.Popen(['sleep', '100'])",
        "it starts processes",
    ),
    "an open file": ("f = open(__file__); f.read(3)", "open"),
    "a socket": ("import socket; s = socket.socket()", "open"),
    "a print": ("print('welcome')", "it prints something"),
    "a print of C": ("import os; os.write(2, b'welcome')", "it prints something"),
    "a log handler": ("import logging; logging.basicConfig()", "it changes the root logger"),
    "a signal handler": (
        "import signal; signal.signal(signal.SIGUSR1, print)",
        "it changes signal handlers",
    ),
    "an excepthook": ("import sys; sys.excepthook = print", "it changes sys.excepthook"),
    "a path": ("import sys; sys.path.append('/x')", "it changes sys.path"),
    "a folder": ("import os; os.chdir('/')", "it changes the working directory"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_import_that_cannot_be_shared(tmp_path: Path, name: str) -> None:
    text, why = UNFIT[name]
    path = installed(tmp_path, unfit=text, outer="import json, unfit")
    with held(tmp_path, "", "csv", "outer", more=("outer",), PYTHONPATH=path) as lab:
        message = lab.hear("unfit", "loaded")
        assert message.get("unfit") == "outer", message
        assert why in message["why"]
        assert lab.server.close() == 0, "it is gone, and what it started with it"


def test_an_import_that_forks_goes_on_once(tmp_path: Path) -> None:
    path = installed(tmp_path, forks="import os\nif os.fork() > 0: os.wait()\n")
    with held(tmp_path, "print(1)", "forks", more=("forks",), PYTHONPATH=path) as lab:
        assert lab.hear("loaded")["loaded"] == ["forks"]
        assert lab.run().out == "1\n"


def test_an_import_that_fails_is_left_to_the_trial(tmp_path: Path) -> None:
    path = installed(tmp_path, exits="raise SystemExit('not today')")
    script = "import json, nowhere"
    with held(tmp_path, script, "exits", "nowhere", "json", PYTHONPATH=path) as lab:
        message = lab.hear("loaded")
        assert message["loaded"] == ["json"]
        assert set(message["failed"]) == {"exits", "nowhere"}
        assert lab.run().err == by_a_shell(tmp_path, PYTHON, PYTHONPATH=path).err


def test_a_module_that_was_edited_since_is_a_reason_to_begin_anew(tmp_path: Path) -> None:
    path = installed(tmp_path, unused="")
    (tmp_path / "mine.py").write_text("VALUE = 1")
    (tmp_path / "also.py").write_text("import mine")
    script = "import also; print(also.mine.VALUE)"
    with held(tmp_path, script, "also", more=("also", "mine"), PYTHONPATH=path) as lab:
        assert lab.run().out == "1\n"
        (tmp_path / "mine.py").write_text("VALUE = 22")
        assert lab.run().out == "22\n"


def test_state_of_an_import_that_is_not_shared_is_a_trials_own(tmp_path: Path) -> None:
    path = installed(tmp_path, run_id="import uuid, os; ID = uuid.uuid4(); BY = os.getpid()\n")
    script = "import os, run_id; print(run_id.ID, run_id.BY == os.getpid())"
    with held(tmp_path, script, "uuid", PYTHONPATH=path) as lab:
        told = [lab.run().out.split() for _ in range(3)]
    assert len({id for id, _ in told}) == 3
    assert {own for _, own in told} == {"True"}


NUMBERS = """
import random, numpy as np, torch, multiprocessing
order = torch.utils.data.DataLoader(torch.arange(100), shuffle=True, batch_size=100)
torch.optim.SGD([torch.zeros(1, requires_grad=True)])
print(random.random(), np.random.rand(), np.random.default_rng().random(), torch.rand(1).item(),
      torch.initial_seed(), [b.tolist()[:5] for b in order], torch.nn.Linear(1, 1).weight.item(),
      torch.nn.functional.dropout(torch.ones(64)).sum().item() + torch.rand(1).item(),
      multiprocessing.current_process().authkey.hex(), sep='|')
"""


def test_no_two_trials_share_a_random_number(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with held(tmp_path, NUMBERS, "torch", "torch.utils.data", "multiprocessing") as lab:
        told = [lab.run().out.strip().split("|") for _ in range(3)]
    assert not (tmp_path / "out1" / "imports.json").exists(), "an optimizer imports a lot, shared"
    assert len(told[0]) == 9
    for numbers in zip(*told, strict=True):
        assert len(set(numbers)) == 3


TORCH = """
import os, types
BY = os.getpid()
random = types.SimpleNamespace(default_generator=types.SimpleNamespace(seed=int))
"""


@pytest.mark.parametrize(
    "files",
    [{"torch.py": ""}, {"torch/__init__.py": "", "torch/_dynamo.py": "raise RuntimeError('no')"}],
    ids=["is not there", "fails"],
)
def test_what_a_library_imports_in_use_need_not_be_there(
    tmp_path: Path, files: dict[str, str]
) -> None:
    path = Path(installed(tmp_path))
    for name, text in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(text or TORCH)
    script = "import os, torch; print(torch.BY == os.getpid())"
    with held(tmp_path, script, "torch", PYTHONPATH=str(path)) as lab:
        said = lab.hear("loaded", "unfit")
        assert (said["loaded"], said["failed"]) == (["torch"], {})
        assert lab.run().out == "False\n", "it is shared all the same"


def test_a_trial_tells_what_it_had_to_import(tmp_path: Path) -> None:
    path = installed(
        tmp_path,
        slow="import time; time.sleep(0.4)\nimport slower\n",
        slower="import time; time.sleep(0.2)\n",
        brief="import time; time.sleep(0.1)\nimport slow",
    )
    (tmp_path / "mine.py").write_text("import time; time.sleep(0.5)\nimport brief\n")
    with held(tmp_path, "import mine, decimal", "time", PYTHONPATH=path) as lab:
        lab.run()
        note = json.loads((tmp_path / "out1" / "imports.json").read_text())
    assert note["slow"].keys() == {"brief"}, "the outermost that is not the user's own"
    assert 0.7 <= note["slow"]["brief"] < 0.9
    assert note["imports"] == [], "what the standard library took is not worth it"
    with held(tmp_path, "import numpy.linalg", "time", PYTHONPATH=path) as lab:
        shutil.rmtree(tmp_path / "out1")
        lab.run()
        assert json.loads((tmp_path / "out1" / "imports.json").read_text())["imports"]


@pytest.mark.parametrize(
    "library",
    [
        "torch", "transformers", "numpy", "sklearn.linear_model", "jax", "PIL.Image",
        *(
            pytest.param(name, marks=pytest.mark.soak)
            for name in (
                "torchvision", "lightning", "pytorch_lightning", "torchmetrics", "timm", "triton",
                "stable_baselines3", "accelerate", "safetensors.torch", "flax", "flax.linen",
                "sympy", "gymnasium", "scipy.optimize", "pandas", "matplotlib.pyplot", "einops",
                "optax", "networkx", "huggingface_hub", "tokenizers", "joblib",
            )
        ),
    ],
)  # fmt: skip
def test_a_library_is_the_same_in_a_fork(tmp_path: Path, library: str) -> None:
    if find_spec(library.partition(".")[0]) is None:
        pytest.skip(f"{library} is not installed")
    script = (
        "import sys\nbefore = set(sys.modules)\n"
        f"import {library}\n"
        "import os, warnings, atexit\n"
        "print(sorted(set(sys.modules) - before), sorted(os.environ.items()), warnings.filters,"
        " [getattr(f, '__name__', 0) for f in sys.meta_path if isinstance(f, type)], sep='\\n')"
    )
    with held(tmp_path, script, library) as lab:
        assert lab.hear("loaded", "unfit")["loaded"][0] == library
        warm = lab.run()
    cold = by_a_shell(tmp_path, PYTHON)
    assert (warm.code, warm.err) == (cold.code, cold.err)
    for ours, theirs in zip(warm.out.splitlines(), cold.out.splitlines(), strict=True):
        assert ours.split(", ") == theirs.split(", ")


assert sys.platform == "linux", "these tests look at processes as Linux has them"
