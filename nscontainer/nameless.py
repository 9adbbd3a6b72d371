"""A file without a name, for two processes to share by its descriptor."""

from __future__ import annotations

import os


def new(what: str) -> int:
    """Make one, in memory where this is Linux; the descriptor is the caller's to close."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(what, os.MFD_CLOEXEC)
    import fcntl  # not on the way of every run, and Windows has none
    import tempfile

    with tempfile.TemporaryFile(prefix=f"nscontainer-{what}-") as file:
        return fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
