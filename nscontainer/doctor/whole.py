"""The doctor's last trial: one whole container, as the engine makes it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from nscontainer import spec
from nscontainer.doctor.kernel import scratch
from nscontainer.doctor.seen import Seen
from nscontainer.engine import spawner_client
from nscontainer.engine.container import Container
from nscontainer.errors import NsContainerError

_NAME = "a container"
_WHY = "each part works, the whole doesn't: please report it, with nscontainer doctor --json"


def container() -> Iterator[Seen]:
    """Run ``true`` in a container, in a state directory of its own that goes again."""
    with scratch() as path:
        os.environ["NSCONTAINER_STATE_DIR"] = f"{path}/state"
        begin = time.monotonic()
        try:
            made = Container.create(spec.build(["true"]))
            made.start()
            record = made.drive()
        except (NsContainerError, OSError) as error:
            yield Seen(_NAME, "missing", str(error), _WHY, "report", needed=True)
            return
        finally:
            spawner_client.shutdown()
        took_ms = (time.monotonic() - begin) * 1e3
        if record["exit_code"] != 0:
            detail = f"`true` ended with {record['exit_code']}: {record['exec_error']}"
            yield Seen(_NAME, "missing", detail, _WHY, "report", needed=True)
        else:
            detail = f"one was made, ran `true` and was removed, in {took_ms:.0f} ms from cold"
            yield Seen(_NAME, "works", detail, needed=True)
