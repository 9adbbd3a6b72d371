"""``gc``: find and remove what a crash or a power cut left of containers."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Final

from nscontainer import inside
from nscontainer.engine import diskserver, networking, state
from nscontainer.errors import NsContainerError
from nscontainer.linux import cgroup

YOUNG_S: Final = 10.0
"""A cgroup younger than this may be one that another state directory's container is born into."""


@inside.runs
def collect(top: str | None = None) -> list[str]:
    """Remove what no monitor owns any more.

    A kept container (detached or named) whose monitor is gone is marked as ended and stays until
    ``rm``; everything else of the dead goes: processes, cgroups, files, names.

    Returns
    -------
    list[str]
        One line for each thing that was removed or mended.
    """
    top = top or state.state_dir()
    if not os.path.isdir(f"{top}/containers"):
        return []
    done: list[str] = []
    with state.collecting(top):
        live = set()
        for where in (state.CONTAINERS, state.STANDBY):
            for container_id in state.ids(top, where):
                directory = f"{top}/{where}/{container_id}"
                if state.is_owned(directory):
                    live.add(container_id)
                else:
                    done += _bury(top, container_id, directory)
        done += _sweep_cgroups(live)
        done += _sweep_names(top)
        done += diskserver.sweep()
        with contextlib.suppress(NsContainerError, OSError):
            done += networking.collect(top)
    return done


def _bury(top: str, container_id: str, directory: str) -> list[str]:
    if not os.path.isdir(directory):
        return []  # it ended and was removed a moment ago
    facts = state.read(directory)
    done = _end_cgroups(container_id, facts)
    if facts is not None and not facts.get("remove", True):
        if facts.get("status") == "exited":
            return done
        facts |= {"status": "exited", "record": None, "lost": True}
        state.write(directory, facts)
        return [*done, f"container {container_id}: its monitor was gone; marked as exited"]
    state.remove(directory)
    if facts is not None:
        state.release_name(top, str(facts.get("name")), container_id)
    return [*done, f"container {container_id}: removed its files"]


def _end_cgroups(container_id: str, facts: dict[str, Any] | None) -> list[str]:
    """Kill what is left in a container's cgroups, and remove them, where it said that they are.

    An ordinary user's may be in another scope than this process (linux/delegation.py).
    """
    with contextlib.suppress(NsContainerError, OSError):
        paths = ((facts or {}).get("cgroup") or {}).get("paths")
        if paths is None:
            group = cgroup.reopen(cgroup.detect(), container_id)
        else:
            group = cgroup.reopen_at(paths, container_id)
        if not group.paths:
            return []
        group.kill()
        group.remove()
        return [f"cgroup {container_id}: killed and removed"]
    return []


def _sweep_cgroups(live: set[str]) -> list[str]:
    """Remove empty cgroups that no container of ours lives in."""
    done = []
    with contextlib.suppress(NsContainerError, OSError):
        layout = cgroup.detect()
        tops = {*layout.controllers.values(), *([layout.unified] if layout.unified else [])}
        found = set()
        for top in tops:
            with contextlib.suppress(OSError), os.scandir(f"{top}/nscontainer") as entries:
                for entry in entries:
                    old = time.time() - entry.stat().st_ctime > YOUNG_S
                    if entry.is_dir() and old and entry.name not in live:
                        found.add(entry.name)
        for name in sorted(found):
            with contextlib.suppress(NsContainerError, OSError):
                group = cgroup.reopen(layout, name)
                if not group.populated():
                    group.remove()
                    done.append(f"cgroup {name}: empty, removed")
    return done


def _sweep_names(top: str) -> list[str]:
    done = []
    for name in os.listdir(f"{top}/names"):
        with contextlib.suppress(OSError):
            holder = os.readlink(f"{top}/names/{name}")
            if not os.path.isdir(f"{top}/containers/{holder}"):
                os.unlink(f"{top}/names/{name}")
                done.append(f"name {name}: its container is gone")
    return done
