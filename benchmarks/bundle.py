"""OCI bundles for crun and runc, equal to our container of the same command."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks import roots
from benchmarks.peers import need
from benchmarks.sandbox import CGROUP_PARENT, Timer

IDS = 65536
ID_BASE = 0x6000_0000
"""The first id outside of root inside: as our engine's, from the range systemd leaves to containers."""
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
MEMORY_BYTES, QUOTA_US, PERIOD_US = 256 << 20, 50_000, 100_000
OPTIONS = {"memory": "256M", "cpu": "50%"}
"""Those limits as ours."""


class Bundle:
    """A directory with a config.json and an overlay root, run by crun or runc.

    It has fresh mount, pid, network, ipc, uts, cgroup and (unless told otherwise) user namespaces,
    its own cgroup in every hierarchy, no network but a down loopback, and the capabilities,
    masked and read-only paths of ``crun spec`` (fewer capabilities than ours, and no seccomp
    filter). The overlay is mounted once, outside of what is timed, unless ``fresh_overlay``; then
    its mount and unmount are what the engine above crun would have to do for each container.
    """

    def __init__(
        self,
        top: Path,
        timer: Timer,
        *,
        limits: bool = False,
        user_namespace: bool = True,
        fresh_overlay: bool = False,
    ) -> None:
        self.timer = timer
        self.top = top
        self.count = 0
        self.overlay = {
            "lowerdir": str(top / "lower"),
            "upperdir": str(top / "upper"),
            "workdir": str(top / "work"),
            "merged": str(top / "rootfs"),
        }
        for path in self.overlay.values():
            Path(path).mkdir(parents=True)
        owner = ID_BASE if user_namespace else 0
        roots.copy_tree(roots.true_files(), top / "lower", owner)
        for path in (self.overlay["upperdir"], self.overlay["workdir"]):
            os.chown(path, owner, owner)
        self._configure(limits=limits, user_namespace=user_namespace)
        self.fresh_overlay = fresh_overlay
        if not fresh_overlay:
            timer.mount(self.overlay)

    def _configure(self, *, limits: bool, user_namespace: bool) -> None:
        subprocess.run([need("crun"), "spec"], cwd=self.top, check=True)
        file = self.top / "config.json"
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        config["process"] |= {"args": [roots.TRUE], "terminal": False}
        # Raising a limit needs CAP_SYS_RESOURCE, which root in a container or a CI job may not have.
        config["process"].pop("rlimits", None)
        config["root"] = {"path": "rootfs", "readonly": False}
        linux = config["linux"]
        linux["cgroupsPath"] = f"/{CGROUP_PARENT}/{self.top.name}"
        namespaces = [*NAMESPACES, *(["user"] if user_namespace else [])]
        linux["namespaces"] = [{"type": name} for name in namespaces]
        if user_namespace:
            ids = [{"containerID": 0, "hostID": ID_BASE, "size": IDS}]
            linux |= {"uidMappings": ids, "gidMappings": ids}
        if limits:
            linux["resources"] |= {
                "memory": {"limit": MEMORY_BYTES, "swap": MEMORY_BYTES},
                "cpu": {"quota": QUOTA_US, "period": PERIOD_US},
            }
        file.write_text(json.dumps(config), encoding="utf-8")

    def run(self, runtime: str = "crun") -> float:
        """Run it once by crun or runc: nanoseconds."""
        self.count += 1
        words = [need(runtime), "--root", str(self.top / f"state-{runtime}")]
        if runtime == "crun":
            words += ["--cgroup-manager", "cgroupfs"]
        words += ["run", "--bundle", str(self.top), f"{self.top.name}-{self.count}"]
        return self.timer.time(words, overlay=self.overlay if self.fresh_overlay else None)
