"""The doctor's last trials: whole containers, as the engine makes them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, Final

from nscontainer import spec
from nscontainer.doctor.finding import LIMITED
from nscontainer.doctor.kernel import scratch
from nscontainer.doctor.seen import Seen
from nscontainer.engine import spawner_client
from nscontainer.engine.container import Container
from nscontainer.errors import HostError, NsContainerError, one_line
from nscontainer.schema import INDEX

_NAME = "a container"
_WHY = "each part works, the whole doesn't: please report it, with nscontainer doctor --json"
_NO_LIMITS = "--cpu, --memory and --pids-limit are errors here"
_SPIN_S: Final = 0.3
_USAGE: Final = INDEX["cpuacct.usage"]
_THROTTLED: Final = INDEX["cpu.nr_throttled"]


def container() -> Iterator[Seen]:
    """Run ``true`` in a container, then a spinner in one with limits; in a state directory of their own."""
    with scratch() as path:
        os.environ["NSCONTAINER_STATE_DIR"] = f"{path}/state"
        try:
            whole = _true()
            yield whole
            if whole.status == "works":
                yield _spinner()
        finally:
            spawner_client.shutdown()


def _true() -> Seen:
    begin = time.monotonic()
    try:
        record = _run(["true"])
    except HostError as error:  # which says itself what is missing, and how to mend it
        return Seen(_NAME, "missing", error.message, "", "", needed=True, mend=error.hint or "")
    except (NsContainerError, OSError) as error:
        return Seen(_NAME, "missing", one_line(error), _WHY, "report", needed=True)
    took_ms = (time.monotonic() - begin) * 1e3
    if record["exit_code"] != 0:
        detail = f"`true` ended with {record['exit_code']}: {record['exec_error']}"
        return Seen(_NAME, "missing", detail, _WHY, "report", needed=True)
    detail = f"one was made, ran `true` and was removed, in {took_ms:.0f} ms from cold"
    return Seen(_NAME, "works", detail, needed=True)


def _spinner() -> Seen:
    """Have a quota throttle an endless loop: that it was written and read back is not yet proof."""
    spin = ["sh", "-c", "while :; do :; done"]
    try:
        record = _run(
            spin, cpu="20%", cpu_period=10_000, memory="64M", pids_limit=20, timeout=_SPIN_S
        )
    except (NsContainerError, OSError) as error:
        message = getattr(error, "message", str(error))
        hint = getattr(error, "hint", None) or ""
        return Seen(LIMITED, "missing", message, _NO_LIMITS, "delegation", mend=hint)
    used_ns = record["final"][_USAGE] - record["baseline"][_USAGE]
    throttled = record["final"][_THROTTLED] - record["baseline"][_THROTTLED]
    share = used_ns / max(1, record["wall_ns"])
    if throttled < 1:
        detail = f"a spinner at 20% of a CPU used {share:.0%}, and was never throttled"
        return Seen(
            LIMITED, "limited", detail, "the quota was taken, and not seen to hold", "report"
        )
    return Seen(LIMITED, "works", f"a spinner at 20% of a CPU was throttled, and used {share:.0%}")


def _run(command: list[str], **options: Any) -> Any:
    made = Container.create(spec.build(command, **options), start=True)
    return made.drive()
