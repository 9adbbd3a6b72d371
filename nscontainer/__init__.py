"""nscontainer: run a notebook cell inside a real Linux container and plot what the kernel accounted.

``%load_ext nscontainer`` brings ``%%container`` and ``%container``; :func:`run`, :func:`run_cell` and
:class:`Container` are the same from Python; :func:`together` starts several at one instant; :func:`load` opens a saved result. Importing this is
cheap and works on every platform: what needs Linux, pandas or matplotlib is loaded when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Container": "nscontainer.engine.container",
    "ContainerSpec": "nscontainer.spec",
    "NsContainerError": "nscontainer.errors",
    "RunResult": "nscontainer.measure.result",
    "Session": "nscontainer.sessions",
    "Sweep": "nscontainer.experiment.sweep",
    "Together": "nscontainer.several",
    "cell": "nscontainer.several",
    "command": "nscontainer.several",
    "load": "nscontainer.history",
    "report": "nscontainer.runner.reporting",
    "rerun": "nscontainer.reruns",
    "run": "nscontainer.api",
    "run_cell": "nscontainer.api",
    "runs": "nscontainer.history",
    "session": "nscontainer.sessions",
    "sweep": "nscontainer.sweeps",
    "together": "nscontainer.several",
}

__all__ = [
    "Container",
    "ContainerSpec",
    "NsContainerError",
    "RunResult",
    "Session",
    "Sweep",
    "Together",
    "__version__",
    "cell",
    "command",
    "load",
    "load_ipython_extension",
    "report",
    "rerun",
    "run",
    "run_cell",
    "runs",
    "session",
    "sweep",
    "together",
    "unload_ipython_extension",
]

if TYPE_CHECKING:
    from nscontainer.api import run, run_cell
    from nscontainer.engine.container import Container
    from nscontainer.errors import NsContainerError
    from nscontainer.experiment.sweep import Sweep
    from nscontainer.history import load, runs
    from nscontainer.measure.result import RunResult
    from nscontainer.reruns import rerun
    from nscontainer.runner.reporting import report
    from nscontainer.sessions import Session, session
    from nscontainer.several import Together, cell, command, together
    from nscontainer.spec import ContainerSpec
    from nscontainer.sweeps import sweep


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives, at its first use (PEP 562)."""
    if name not in _HOME:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Show the public names to completion, loaded or not."""
    return sorted(__all__)


def load_ipython_extension(shell: Any) -> None:
    """Bring the magics into an IPython shell: ``%load_ext nscontainer``."""
    import_module("nscontainer_magics").load_ipython_extension(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take the magics out again: ``%unload_ext nscontainer``."""
    import_module("nscontainer_magics").unload_ipython_extension(shell)
