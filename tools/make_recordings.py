"""Run the notebooks 05 to 07 here, as root, and keep what their cells gave in notebooks/recorded/.

Binder shows that where no container can run. To be done anew whenever one of their cells changes.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
NAMES = ("05-cpu-quota", "06-memory", "07-reproduce")


def main(executed: Path | None) -> None:
    """Record; with a folder, also keep the executed notebooks there."""
    folder = NOTEBOOKS / "recorded"
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["NSCONTAINER_RECORD"] = str(folder)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    for name in NAMES:
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        resources = {"metadata": {"path": str(NOTEBOOKS)}}
        NotebookClient(notebook, timeout=200, kernel_name="python3", resources=resources).execute()
        if executed is not None:
            nbformat.write(notebook, executed / f"{name}.ipynb")
    files = list(folder.iterdir())
    print(f"{len(files)} recordings, {sum(f.stat().st_size for f in files) / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
