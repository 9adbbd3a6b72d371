"""The doctor's own process: tries everything and prints a JSON line for each thing it saw.

A process of its own, because a notebook's is multi-threaded and large: it must not be cloned, and
what a trial changes must not be changed in it. Run as ``python3 -I -S -c``, see ``doctor.examine``.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Final

from nscontainer.doctor import host, kernel, network, storage, whole
from nscontainer.doctor.seen import Seen
from nscontainer.linux import prctl

Trial = Callable[[], Iterator[Seen]]

TRIALS: Final[tuple[Trial, ...]] = (
    kernel.linux,
    kernel.privileges,
    kernel.clone3,
    kernel.user_namespace,
    kernel.namespaces,
    kernel.own_proc,
    kernel.layers,
    kernel.system_call_filter,
    host.cgroups,
    host.cpus,
    host.disk,
    storage.bounded,
    network.networks,
    network.user_mode,
    whole.container,
)
_WITHOUT_CLONE3: Final = (host.cgroups, host.cpus, host.disk)
"""What can still be tried where no child can be cloned."""
_INSIDE: Final = (kernel.namespaces, kernel.own_proc, kernel.layers, network.user_mode)
"""What whoever isn't root tries inside of a user namespace."""


def main() -> int:
    """Try everything; a trial that fails in a way nobody foresaw doesn't end the others."""
    prctl.set_pdeathsig(signal.SIGTERM)
    signal.signal(signal.SIGTERM, _end)  # so that the trials' own clean-up runs
    lacking: set[str] = set()
    for trial in TRIALS:
        if kernel.CLONE3 in lacking and trial not in _WITHOUT_CLONE3:
            continue
        if trial in _INSIDE and "user namespace" in lacking and not kernel.is_root():
            continue
        if trial is whole.container and lacking:
            continue
        for seen in _guarded(trial):
            print(json.dumps(dataclasses.asdict(seen)), flush=True)
            if seen.needed and seen.status == "missing":
                lacking.add(seen.name)
    return 0


def _guarded(trial: Trial) -> Iterator[Seen]:
    try:
        yield from trial()
    except Exception as error:  # noqa: BLE001 - a diagnosis must not end in a traceback
        name = trial.__name__.replace("_", " ")
        yield Seen(name, "limited", f"the trial itself failed: {type(error).__name__}: {error}")


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)
