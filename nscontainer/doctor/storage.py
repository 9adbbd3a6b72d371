"""The doctor's trial of a bounded layer: the smallest one is made, and dropped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from nscontainer import units
from nscontainer.doctor import kernel
from nscontainer.doctor.seen import Seen
from nscontainer.engine import storage
from nscontainer.errors import HostError

_SIZE: Final = 8 << 20
_WHY: Final = "--storage can't bound what a container writes"


def bounded() -> Iterator[Seen]:
    """Make a filesystem in a file, on a loop device, nowhere attached."""
    if not kernel.is_root():
        yield Seen("disk size", "missing", "a loop device needs root", _WHY, "root")
        return
    try:
        with kernel.scratch() as path:
            made = storage.make(path, _SIZE, cache=f"{path}/cache")
            os.close(made.mount_fd)
            made.drop()
    except HostError as error:
        if "mkfs" in error.message:
            yield Seen("disk size", "missing", error.message, _WHY, "e2fsprogs")
        else:
            yield Seen("disk size", "missing", error.message, _WHY, "loop")
    except OSError as error:
        yield Seen("disk size", "missing", str(error), _WHY, "report")
    else:
        detail = f"a layer of {units.format_size(_SIZE)} on a loop device"
        if made.direct:
            yield Seen("disk size", "works", detail)
        else:
            why = "no direct I/O to its file: what containers write is cached twice"
            yield Seen("disk size", "limited", detail, why, "state-dir")
