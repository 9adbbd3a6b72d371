"""Run the quickstart notebook in real containers and show what came out of it.

Cells say by a tag of their metadata what they are for: ``table`` is the summary printed at the
end, ``plot`` the picture that is kept beside the executed notebook.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "01-quickstart.ipynb"
OUT = ROOT / "build" / "demo"
CELL_TIMEOUT_S = 300


def main() -> int:
    """Run the demo; 0 where everything in it worked."""
    require_containers()
    OUT.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    try:
        execute(notebook)
    except CellExecutionError as error:
        return failed(f"a cell of {shown(NOTEBOOK)} failed: {error.ename}: {error.evalue}")
    except (DeadKernelError, RuntimeError, TimeoutError) as error:
        return failed(f"{shown(NOTEBOOK)} did not finish: {str(error).splitlines()[0]}")
    finally:
        # Also when a cell failed: its traceback is in there.
        executed = OUT / NOTEBOOK.name
        nbformat.write(notebook, executed)

    table = last_output(notebook, tag="table", mime="text/plain")
    image = last_output(notebook, tag="plot", mime="image/png")
    if table is None or image is None:
        lacking = "table" if table is None else "plot"
        return failed(f"{shown(NOTEBOOK)} has no output in a cell tagged {lacking!r}")
    plot = OUT / "quickstart.png"
    plot.write_bytes(base64.b64decode(image))
    print(f"\n{table}\n")
    print(f"notebook  {shown(executed)}")
    print(f"plot      {shown(plot)}")
    return 0


def require_containers() -> None:
    """Stop with the doctor's own words where this host can't run containers."""
    doctor = subprocess.run(
        [str(Path(sys.executable).with_name("nscontainer")), "doctor"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if doctor.returncode != 0:
        said = (doctor.stderr.strip() or doctor.stdout.strip()).splitlines()
        stop(said[-1] if said else f"nscontainer doctor ended with {doctor.returncode}")


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run every cell as JupyterLab would, its text shown here as it comes."""
    # A kernel of this .venv, not one of the same name in the user's home.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    client = LiveClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        # Else ipykernel warns that the machine's other users could listen.
        config=Config({"KernelManager": {"transport_encryption": "auto"}}),
    )
    client.execute()


class LiveClient(NotebookClient):
    """A notebook client that prints a cell's code as it starts and its text as it comes."""

    def process_message(
        self, msg: dict[str, Any], cell: nbformat.NotebookNode, cell_index: int
    ) -> nbformat.NotebookNode | None:
        """Show the message, then keep it as nbclient does."""
        content = msg["content"]
        match msg["msg_type"]:
            case "execute_input":
                print("\n" + "\n".join(f"│ {line}" for line in content["code"].splitlines()))
            case "stream":
                print(content["text"], end="", flush=True)
            case "display_data" | "execute_result":
                if "image/png" not in content["data"]:
                    print(content["data"].get("text/plain", ""), flush=True)
        return super().process_message(msg, cell, cell_index)


def last_output(notebook: nbformat.NotebookNode, *, tag: str, mime: str) -> str | None:
    """Give the last output of that type in the cells with the tag."""

    def outputs() -> Iterator[str]:
        for cell in notebook.cells:
            if tag in cell.metadata.get("tags", []):
                for output in cell.get("outputs", []):
                    if mime in output.get("data", {}):
                        yield output.data[mime]

    return list(outputs())[-1] if any(outputs()) else None


def shown(path: Path) -> str:
    """Give the path as a person in the checkout would type it."""
    return str(path.relative_to(ROOT))


def failed(message: str) -> int:
    """Report one line; the exit code that goes with it."""
    print(f"demo: {message}", file=sys.stderr)
    return 1


def stop(message: str) -> NoReturn:
    """Report one line and end."""
    sys.exit(failed(message))


if __name__ == "__main__":
    sys.exit(main())
