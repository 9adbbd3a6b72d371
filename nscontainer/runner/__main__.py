"""A cold start: ``python3 -I DIR FD`` runs a cell under whichever python3 the image has."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from typing import Any


def _load() -> Any:
    """Import this directory as a package under a name that no user's module has."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    spec = importlib.util.spec_from_file_location(
        "_nscontainer_runner", os.path.join(here, "__init__.py"), submodule_search_locations=[here]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    os._exit(_load().main(socket.socket(fileno=int(sys.argv[1]))))
