"""What `interpreter.py` asks of Python, each in a process of its own."""

import subprocess
import sys

import pytest

BEGIN = """
import sys
from shoal.runners.warm import interpreter
"""
CHECKS = {
    "finalizers are not done, and the next one is": (
        "import weakref, os\nclass A: pass\na, b = A(), A()\n"
        "weakref.finalize(a, print, 'of the server')\n"
        "interpreter.forget_finalizers(weakref)\nimport atexit\natexit._clear()\n"
        "weakref.finalize(b, print, 'of the trial')",
        "of the trial\n",
    ),
    "a key of its own": (
        "import multiprocessing as m\nkey = m.current_process().authkey\n"
        "interpreter.new_authkey()\nnew = m.current_process().authkey\n"
        "print(new != key, type(new) is type(key), len(new))",
        "True True 32\n",
    ),
    "logging counts from now": (
        "import logging, time\ntime.sleep(0.3)\ninterpreter.new_start_time()\n"
        "print(logging.makeLogRecord({}).relativeCreated is not None,"
        " logging.LogRecord('', 1, '', 1, '', (), None).relativeCreated < 200)",
        "True True\n",
    ),
    "warning filters": (
        "import warnings\nbefore = interpreter.filters()\n"
        "warnings.simplefilter('error')\nwarnings.warn_explicit\n"
        "assert interpreter.filters() != before\ninterpreter.new_filters(before)\n"
        "print(interpreter.filters() == before)\nwarnings.warn('no error')",
        "True\n",
    ),
    "the environment is watched": (
        "import os\nread, written = [], []\n"
        "watch = interpreter.EnvironmentWatch(read.append, lambda *a: written.append(a))\n"
        "watch.__enter__()\n"
        "os.environ.get('A'), os.getenv('B'), 'C' in os.environ\n"
        "os.environ['D'] = '1'; os.environ.setdefault('E', '2'); del os.environ['D']\n"
        "os.environ.update(F='3')\nwatch.__exit__()\nos.environ.get('G')\n"
        "print([r for r in read if r != 'D'], written)",
        "['A', 'B', 'C', 'E', 'E'] [('D', '1'), ('E', '2'), ('D', None), ('F', '3')]\n",
    ),
    "a function of the import system": (
        "import traceback\n@interpreter.as_importing\ndef f(): raise ValueError\n"
        "try: f()\nexcept ValueError: print('_bootstrap' in traceback.format_exc())",
        "True\n",
    ),
    "a spec that is watched": (
        "import importlib.util as u\nspec = u.find_spec('colorsys')\nplain = type(spec)\n"
        "said = []\ninterpreter.watch_spec(spec, lambda: said.append(1), lambda: said.append(2))\n"
        "class Finder:\n    def find_spec(*_): return spec\n"
        "sys.meta_path.insert(0, Finder())\nimport colorsys, json\n"
        "print(said, type(colorsys.__spec__) is plain, colorsys.__spec__ is spec, vars(spec).keys()"
        " == vars(json.__spec__).keys())",
        "[1, 2] True True True\n",
    ),
    "a spec that two watch": (
        "import importlib.util as u\nspec = u.find_spec('colorsys')\nplain, said = type(spec), []\n"
        "for n in (1, 2):\n"
        "    begin, end = (lambda n=n: said.append(n)), (lambda n=n: said.append(-n))\n"
        "    interpreter.watch_spec(spec, begin, end)\n"
        "class Finder:\n    def find_spec(*_): return spec\n"
        "sys.meta_path.insert(0, Finder())\nimport colorsys\nprint(said, type(spec) is plain)",
        "[2, 1, -1, -2] True\n",
    ),
}


@pytest.mark.parametrize("name", CHECKS)
def test_private_functions_do_what_they_are_asked_for(name: str) -> None:
    script, expected = CHECKS[name]
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script], capture_output=True, text=True, check=False
    )
    assert done.stdout == expected, done.stderr
