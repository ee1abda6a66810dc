"""A warm trial is what `python script.py` would have been: the same script, held and by a shell."""

import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runners.held import PYTHON, Ended, Held, by_a_shell

SHARED = (
    "json", "logging", "random", "threading", "multiprocessing.pool", "concurrent.futures",
    "socket", "xml.dom.minidom", "warnings", "weakref", "tempfile", "uuid", "platform", "inspect",
    "shoal.trial",
)  # fmt: skip

SCRIPTS = {
    "prints": "print('hello'); import sys; print('oh', file=sys.stderr)",
    "arguments": "import sys; print(sys.argv, sys.orig_argv, sys.path[0], __name__, __file__)",
    "what it knows of itself": (
        "print(__spec__, __cached__, type(__loader__), __loader__.path, __package__, __doc__,"
        " sorted(globals()))"
    ),
    "what is imported": "import sys; print(list(sys.modules))",
    "what is imported later": (
        "import sys; import json, multiprocessing.pool; print(sorted(sys.modules))"
    ),
    "imports in functions": (
        "import sys\ndef f():\n    print('json' in sys.modules)\n    import json\nf()\n"
        "print('json' in sys.modules, 'random' in sys.modules)"
    ),
    "a submodule is an attribute once imported": (
        "import xml\nprint(hasattr(xml, 'dom'))\nimport xml.dom\nprint(hasattr(xml, 'dom'),"
        " hasattr(xml.dom, 'minidom'))\nimport xml.dom.minidom as m\nprint(xml.dom.minidom is m)"
    ),
    "reload": "import importlib, json\nold = json.dumps\nimportlib.reload(json)\nprint(old is json.dumps)",
    "find_spec": (
        "import importlib.util as u\ns = u.find_spec('json')\n"
        "print(s.origin, type(s.loader), s.submodule_search_locations)\n"
        "import json; print(json.__spec__.origin, type(json.__loader__), json.__spec__.cached)\n"
        "m = u.module_from_spec(s); s.loader.exec_module(m); print(m.dumps(1))"
    ),
    "a module of the name of another beside it": "import socket; print(socket.MINE)",
    "that others import": "import json, colorsys; print(colorsys.MINE)",
    "vendored": (
        "import sys, os; sys.path.insert(0, os.path.join(sys.path[0], 'vendored'))\n"
        "import json; print(json.MINE)"
    ),
    "vendored, within what is shared": (
        "import sys, os; sys.path.insert(0, os.path.join(sys.path[0], 'vendored'))\n"
        "import logging, tempfile; print(tempfile.random.MINE)"
    ),
    "exit code": "import sys; sys.exit(41)",
    "exit code beyond a byte": "import sys; sys.exit(259)",
    "exit with text": "import sys; sys.exit('no data')",
    "exit with nothing": "import sys; sys.exit()",
    "exit in an exit function": "import atexit, sys; atexit.register(sys.exit, 3)",
    "an exit function that fails": "import atexit; atexit.register(lambda: 1 / 0)",
    "exit functions": "import atexit; atexit.register(print, 'one'); atexit.register(print, 'two')",
    "os._exit": "import os; print('lost'); os._exit(5)",
    "traceback": "def f():\n    raise ValueError('deep')\n\nf()",
    "chained traceback": "try:\n  1 / 0\nexcept ZeroDivisionError as e:\n  raise KeyError from e",
    "traceback through an import": "import broken",
    "an import that is not there": "import nowhere",
    "syntax error": "print('never')\ndef broken(:",
    "syntax error in an import": "import syntax",
    "warnings": (
        "import warnings\nfor n in range(1, 5): warnings.warn(f'level {n}', stacklevel=n)"
    ),
    "warnings of an import": "import warns, json",
    "stack": "import inspect; print([f.function for f in inspect.stack()])",
    "depth": (
        "import sys\ndef f(n):\n    try: return f(n + 1)\n    except RecursionError: return n\n"
        "print(f(0))"
    ),
    "last exception": (
        "import atexit, sys\n"
        "atexit.register(lambda: print(sys.last_type, sys.last_value, sys.last_traceback))\n"
        "raise ValueError(1)"
    ),
    "excepthook": "import sys; sys.excepthook = lambda *a: print('hooked', a[:2])\nraise KeyError(1)",
    "interrupt": "raise KeyboardInterrupt",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "segfault's stack": (
        "import faulthandler, os, signal\nfaulthandler.enable()\n"
        "def f(): os.kill(os.getpid(), signal.SIGSEGV)\nf()"
    ),
    "an open file is flushed": "f = open('made', 'w'); f.write('whole'); print('x', end='')",
    "an open file that a function holds": (
        "def f(x=open('made', 'w')): pass\nf.__defaults__[0].write('whole')"
    ),
    "an open file of an imported module": "import keeps; keeps.file.write('whole')",
    "an open file in a cycle": (
        "class A: pass\na = A(); a.a = a; a.f = open('made', 'w'); a.f.write('whole'); del a"
    ),
    "C's output": "import ctypes; ctypes.CDLL(None).printf(b'said by C\\n')",
    "C's exit functions": (
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "f = ctypes.CFUNCTYPE(None)(lambda: None)\n"
        "libc.__cxa_atexit(libc.puts, ctypes.c_char_p(b'said at the end'), None)"
    ),
    "a full stdout": (
        "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('no room for this')"
    ),
    "a closed stdout": "import os; os.close(1); print('nowhere to go')",
    "finalisers": (
        "class A:\n    def __init__(self, n): self.n = n\n"
        "    def __del__(self): print('gone', self.n, flush=True)\n"
        "a, b, c = A(1), A(2), A(3)\nb.a = a\nd = [c]; d.append(d)"
    ),
    "a finaliser that imports": (
        "import json\nclass A:\n    def __del__(self):\n        import json, sys\n"
        "        print(json.dumps([1]), flush=True)\na = A(); a.a = a; del a"
    ),
    "weakref.finalize": (
        "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'finalised')\n"
        "import atexit; atexit.register(print, 'before')"
    ),
    "a dead weak proxy": (
        "import weakref\nclass A: pass\na = A(); p = weakref.proxy(a); del a; print(type(p))"
    ),
    "a lazy object": (
        "class Lazy:\n    def __getattr__(self, name): raise RuntimeError('not yet')\n"
        "    @property\n    def __class__(self): raise RuntimeError('not yet')\n"
        "lazy = Lazy(); print('done')"
    ),
    "a thread is waited for": (
        "import threading\ne = threading.Event()\n"
        "threading.Thread(target=lambda: (e.wait(), print('thread'))).start()\n"
        "threading.Timer(0.1, e.set).start()"
    ),
    "a pool of threads is waited for": (
        "from concurrent.futures import ThreadPoolExecutor as P\np = P(2)\n"
        "import time; p.submit(lambda: (time.sleep(0.1), print('task')))"
    ),
    "a daemon thread": (
        "import threading, time\n"
        "def f():\n    while True: time.sleep(0.001)\n"
        "threading.Thread(target=f, daemon=True).start(); print('main ends')"
    ),
    "threads": (
        "import threading as t\nprint(t.main_thread() is t.current_thread(), t.active_count(),"
        " t.main_thread().ident == t.get_ident(), t.enumerate()[0].name)"
    ),
    "its own module": "import mine; print(mine.VALUE, mine.__file__, mine.__cached__)",
    "pickling what it defines": (
        "import pickle\nclass A: x = 3\nprint(pickle.loads(pickle.dumps(A())).x, A.__module__)"
    ),
    "signals": (
        "import signal\nprint([(n, str(signal.getsignal(n))) for n in range(1, 32)"
        " if n not in (9, 19)][:0], signal.getsignal(signal.SIGINT) is signal.default_int_handler,"
        " [signal.getsignal(n) for n in (1, 13, 15, 17)],"
        " signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.set_wakeup_fd(-1))"
    ),
    "multiprocessing's main": (
        "import sys, multiprocessing\n"
        "print(sys.modules['__mp_main__'] is sys.modules['__main__'],"
        " multiprocessing.current_process().name, multiprocessing.parent_process())"
    ),
    "a pool by fork": (
        "import multiprocessing as mp\n"
        "if __name__ == '__main__':\n"
        "    with mp.get_context('fork').Pool(2) as pool: print(pool.map(abs, [-1, -2]))"
    ),
    "a pool by spawn": (
        "import multiprocessing as mp\nclass P:\n    def __init__(self, x): self.x = x\n"
        "def shift(p): return P(p.x + 1)\n"
        "if __name__ == '__main__':\n"
        "    with mp.get_context('spawn').Pool(1) as pool:\n"
        "        print(sum(p.x for p in pool.map(shift, map(P, range(3)))))"
    ),
    "a pool by forkserver": (
        "import multiprocessing as mp\nclass P:\n    def __init__(self, x): self.x = x\n"
        "def shift(p): return P(p.x + 1)\n"
        "if __name__ == '__main__':\n"
        "    with mp.get_context('forkserver').Pool(1) as pool:\n"
        "        print(sum(p.x for p in pool.map(shift, map(P, range(3)))))"
    ),
    "a session of its own": "import os; print(os.getpid() == os.getpgrp() == os.getsid(0))",
    "no children": "import os\ntry: os.wait()\nexcept ChildProcessError as e: print(e)",
    "files": "import os; print(os.listdir('/proc/self/fd'))",
    "standard streams": (
        "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr): print(s.encoding, s.errors,"
        " s.line_buffering, s.write_through, s.fileno(), s.isatty(), s.mode)\n"
        "print(repr(sys.stdin.read()), sys.__stdout__ is sys.stdout)"
    ),
    "the interpreter": (
        "import sys, gc, os\nprint(sys.flags, sys.warnoptions, sys._xoptions, sys.executable,"
        " sys.prefix, gc.isenabled(), gc.get_threshold(), sys.getrecursionlimit(),"
        " sys.getswitchinterval(), os.umask(0), os.nice(0), sys.getprofile(), sys.gettrace())"
    ),
    "the path": (
        "import sys; print(sys.path, [f.__name__ for f in sys.meta_path if isinstance(f, type)],"
        " len(sys.path_hooks))"
    ),
    "the environment": (
        "import os, posix\nprint(sorted((k, v) for k, v in os.environ.items()))\n"
        "print(os.environ['PWD'], {os.fsdecode(k) for k in posix.environ} == set(os.environ))\n"
        "os.environ['X'] = '1'; os.system('echo $X $PWD $_')"
    ),
    "warning filters": "import warnings; print(warnings.filters)",
    "logging": "import logging; print(logging.root.handlers, logging.lastResort, logging._handlers)",
    "it starts itself again": (
        "import os, sys\nprint('AGAIN' in os.environ, flush=True)\n"
        "if 'AGAIN' not in os.environ:\n    os.environ['AGAIN'] = '1'\n"
        "    os.execv(sys.executable, sys.orig_argv)"
    ),
    "what is on the stack of main": "import sys; print(sys._getframe().f_back)",
    "a generator left open": (
        "def g():\n    try: yield 1\n    finally: print('closed')\nx = g(); next(x)"
    ),
    "asyncio": "import asyncio\nasync def f(): print('ran')\nasyncio.run(f())",
    "a child by fork that exits": (
        "import os, sys, atexit\natexit.register(print, 'end of', flush=True)\n"
        "pid = os.fork()\nif pid == 0: sys.exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    ),
    "the name of the process": "print(open('/proc/self/comm').read().strip())",
    "a private key": (
        "import multiprocessing as m, hashlib\nk = m.current_process().authkey\nprint(len(k))"
    ),
}
BESIDE = {
    "mine.py": "VALUE = 7\n",
    "socket.py": "MINE = 'mine'\n",
    "colorsys.py": "MINE = 'mine'\n",
    "vendored/json.py": "MINE = 'vendored'\n",
    "vendored/random.py": "MINE = 'vendored'\nclass Random: pass\n",
    "broken.py": "import deeper\n",
    "deeper.py": "def f():\n    raise LookupError('in an import')\nf()\n",
    "syntax.py": "def broken(:\n",
    "warns.py": "import warnings\nfor n in range(1, 4): warnings.warn(f'level {n}', stacklevel=n)\n",
    "keeps.py": "file = open('made', 'w')\n",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Held]]:
    folder = tmp_path_factory.mktemp("warm")
    for name, text in BESIDE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if name not in ("socket.py", "colorsys.py"):
            (folder / name).write_text(text)
    (folder / "script.py").touch()
    held = Held(folder, f"{PYTHON} --lr 0.1", *SHARED)
    assert held.hear("loaded")["failed"] == {}
    yield folder, held
    held.close()


def plain(text: str) -> str:
    """`text` without addresses, which differ between any two runs."""
    return re.sub(r"0x[0-9a-f]+", "0x", text)


def both(folder: Path, held: Held, command: str) -> tuple[Ended, Ended]:
    """What the command did held and by a shell, with what it wrote to `made`."""
    done = []
    for warm in (True, False):
        ended = held.run() if warm else by_a_shell(folder, command)
        made = folder / "made"
        written = made.read_text() if made.exists() else ""
        made.unlink(missing_ok=True)
        done.append(Ended(ended.code, plain(ended.out + written), plain(ended.err)))
    return done[0], done[1]


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_as_if_started_by_hand(lab: tuple[Path, Held], name: str) -> None:
    folder, held = lab
    (folder / "script.py").write_text(SCRIPTS[name] + "\n")
    beside = [f for f in ("socket.py", "colorsys.py") if f.partition(".")[0] in SCRIPTS[name]]
    for file in beside:
        (folder / file).write_text(BESIDE[file])
    try:
        warm, cold = both(folder, held, f"{PYTHON} --lr 0.1")
    finally:
        for file in beside:
            (folder / file).unlink()
    assert (warm.code, warm.err) == (cold.code, cold.err)
    assert warm.out.split(", ") == cold.out.split(", ")
    assert "shoal/runners" not in warm.err


COMMANDS = {
    "options": "{python} -u -W error -X utf8 script.py a 'b c'",
    "optimised": "{python} -OO -B script.py",
    "a module": "{python} -m package.go a",
    "a package": "{python} -m package",
    "a compiled file": "{python} compiled.pyc a",
    "a folder": "{python} package",
    "an archive": "{python} archive.pyz a",
    "a link": "{python} link.py",
    "a path with dots": "{python} ./package/../script.py",
    "a command": "{python} -c 'import script'",
    "another name": "python3 script.py",
}
TELL = """
import inspect, os, sys
main = sys.modules["__main__"]
print(sys.argv, sys.orig_argv, sys.path, sys.flags, sys.warnoptions, __name__, __file__)
print({k: str(v).split(" at ")[0] for k, v in vars(main).items() if k.startswith("__") and k != "__builtins__"})
print([(f.function, f.filename) for f in inspect.stack()], sorted(sys.modules), os.environ.get("_"))
assert not sys.flags.optimize, "never"
raise SystemExit(len(sys.argv))
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_python_is_called_with(tmp_path: Path, name: str) -> None:
    import py_compile  # noqa: PLC0415

    (tmp_path / "script.py").write_text(TELL)
    (tmp_path / "link.py").symlink_to(tmp_path / "script.py")
    (tmp_path / "package").mkdir()
    for file in ("__init__", "__main__", "go"):
        (tmp_path / "package" / f"{file}.py").write_text("" if file == "__init__" else TELL)
    py_compile.compile(str(tmp_path / "script.py"), str(tmp_path / "compiled.pyc"))
    with zipfile.ZipFile(tmp_path / "archive.pyz", "w") as archive:
        archive.writestr("__main__.py", TELL)
    command = COMMANDS[name].format(python=sys.executable)
    held = Held(tmp_path, command, "json", "runpy", "inspect")
    try:
        warm, cold = both(tmp_path, held, command)
    finally:
        held.close()
    assert (warm.code, warm.err) == (cold.code, cold.err)
    assert warm.out.split(", ") == cold.out.split(", ")
    assert warm.out
