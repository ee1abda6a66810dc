"""The notebook of the examples, from top to bottom, in a kernel of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"
# in a process of its own, as the sockets of nbclient are closed by nobody
EXECUTE = """
import sys
import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
manager = KernelManager(kernel_name="python3")
manager.kernel_spec.argv[0] = sys.executable
NotebookClient(notebook, km=manager, timeout=120).execute()
nbformat.write(notebook, sys.argv[2])
"""


def texts(cell: dict[str, Any]) -> str:
    """What a cell has printed, and shown."""
    outputs = cell["outputs"]
    return "".join("".join(o.get("text", "")) or str(o.get("data", "")) for o in outputs)


def test_the_notebook_works_from_top_to_bottom(tmp_path: Path) -> None:
    done = tmp_path / "done.ipynb"
    env = {"SHOAL_HOME": str(tmp_path / "home"), "IPYTHONDIR": str(tmp_path / "ipython")}
    ended = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(done)],
        cwd=tmp_path,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    code = [cell for cell in json.loads(done.read_text())["cells"] if cell["cell_type"] == "code"]
    shown = texts(code[2])
    assert "120 trials in" in shown, "what came of it, in the place of the table"
    assert shown.count("<pre") == 1, "one table that changes, not one after the other"
    accuracy = texts(code[3]).split("accuracy ")[1].split(",")[0]
    assert float(accuracy) > 0.9
    assert f"as it was saved: {accuracy}" in texts(code[4])
    assert "->" in texts(code[5])
