"""What a script imports, read from its text: nothing of it is run. Standard library only."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path


def imports_of(script: Path, folder: Path | None = None) -> list[str]:
    """The modules that `script` imports when it is started, in order, each once.

    Modules that lie in `folder` (default: the script's own) are looked into and not named: they are
    the user's own code, may be edited between two trials, and are left to each trial. Only imports
    at module level count, in `if` and `try` too, but not in functions or under `TYPE_CHECKING`. A
    file that cannot be read or parsed imports nothing: the trial itself will say what is wrong.
    """
    found: dict[str, None] = {}
    _collect(script, folder or script.parent, found, set())
    return list(found)


def _collect(file: Path, folder: Path, found: dict[str, None], seen: set[Path]) -> None:
    if file in seen:
        return
    seen.add(file)
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for name in _modules(tree.body):
        local = _local(name, folder)
        if local is not None:
            _collect(local, folder, found, seen)
        elif name != "__future__":
            found[name] = None


def _modules(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name
            case ast.If(test=test) if "TYPE_CHECKING" in ast.dump(test):
                yield from _modules(node.orelse)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                pass
            case _:
                for part in ("body", "handlers", "orelse", "finalbody"):
                    yield from _modules(getattr(node, part, []))


def _local(name: str, folder: Path) -> Path | None:
    """The file in `folder` that `import name` would take, if there is one."""
    top = name.partition(".")[0]
    if top in sys.builtin_module_names:
        return None
    parts = name.split(".")
    for base in (folder.joinpath(*parts), folder / top):
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file
    return folder / top if (folder / top).is_dir() else None
