"""Where a warm start begins: Python imports this file, found on PYTHONPATH, before any script.

Here the user's command is held, and serves: each trial is a fork that returns from this import, and
goes on as if nothing had been. This is the last thing that Python does of its own before it looks
at the command line, so all that it makes of that (a script, -m, -c, a folder, a .pyz) is its own.

Our modules are loaded under another name, from the standard library alone, and are gone again from
`sys.modules` before anything of the user's is imported.
"""

import os
import sys

LINK = "SHOAL_WARM_LINK"  # in the environment: the descriptor of the socket to the controller


def hold(link: int) -> None:
    """Serve until the controller is gone; return in a trial."""
    before = set(sys.modules)
    path = sys.path[:]
    library = os.path.dirname(os.__file__)
    room = os.path.dirname(os.path.dirname(HERE))
    installed = (os.path.join(library, "site-packages"), os.path.join(library, "dist-packages"))
    standard = [p for p in path if p.startswith(library) and not p.startswith(installed)]
    sys.path[:] = [room, *standard]
    try:
        from warm import server  # type: ignore[import-not-found]  # noqa: PLC0415
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in before:
                sys.modules[parent].__dict__.pop(child, None)
        sys.path_importer_cache.pop(room, None)
    server.main(link)


def link_of(environ: "os._Environ[str]") -> "int | None":
    """The socket to the controller, if there is one; what brought us here is removed."""
    if environ.get("PYTHONPATH", "").split(os.pathsep)[0] == HERE:
        rest = environ["PYTHONPATH"].partition(os.pathsep)[2]
        if rest:
            environ["PYTHONPATH"] = rest
        else:
            del environ["PYTHONPATH"]
    try:
        link = int(environ.pop(LINK))
        os.fstat(link)
    except (KeyError, ValueError, OSError):  # a child of something that Python ran before us
        return None
    return link


HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != HERE]
sys.path_importer_cache.pop(HERE, None)
found = link_of(os.environ)
if found is not None:
    try:
        hold(found)
    except BaseException:  # noqa: BLE001 (or Python would go on into the script)
        sys.excepthook(*sys.exc_info())
        os._exit(70)
del sys.modules["sitecustomize"]
import sitecustomize  # type: ignore[import-not-found]  # noqa: E402, F401 (the user's own, if there is one)
