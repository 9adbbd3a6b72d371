"""A cold start: ``python3 -I DIR FD`` runs a cell under whichever python3 the image has.

In words that every Python 3 reads: an old one is to say that it is too old.
"""

import sys

if sys.version_info < (3, 8):  # noqa: UP036  # an image's own
    sys.stderr.write(
        "nscontainer: a cell needs Python 3.8 or newer, and the image's python3 is %d.%d "  # noqa: UP031
        "(--sh runs shell lines in it)\n" % sys.version_info[:2]
    )
    sys.exit(126)

import importlib.util
import os
import socket


def _load():  # type: ignore[no-untyped-def]  # noqa: ANN202  # Any would be an import that shows
    """Import this directory as a package under a name that no user's module has."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    if not sys.flags.isolated:
        sys.path.insert(0, "")  # as any Python that is not given a file
    spec = importlib.util.spec_from_file_location(
        "_nscontainer_runner", os.path.join(here, "__init__.py"), submodule_search_locations=[here]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    sys.meta_path.append(_Nscontainer)
    return module


class _Nscontainer:
    """Offers ``nscontainer.report`` where the image has no nscontainer; loads it when it is wanted."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205, ARG004
        """Find a module ``nscontainer``, asked after all others."""
        if fullname != "nscontainer":
            return None
        return importlib.import_module("_nscontainer_runner.reporting").offered(fullname)


if __name__ == "__main__":
    try:
        _runner = _load()  # type: ignore[no-untyped-call]
    except ImportError as error:
        sys.stderr.write(
            "nscontainer: the image's python3 lacks a part of its standard library: %s "  # noqa: UP031
            "(install it whole: Debian's python3-minimal is not enough)\n" % error
        )
        sys.exit(126)
    os._exit(_runner.main(socket.socket(fileno=int(sys.argv[1]))))
