"""A Docker daemon of our own: its data, socket and cgroups apart from any other's, gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

from benchmarks import roots, sandbox
from benchmarks.peers import PATH, PeerError, need
from benchmarks.residue import MARK

READY_S = 60.0
# In its own mount namespace, as process 1 of its own pid namespace: with /run and /etc covered it
# can't meet a daemon or a containerd that is already here, and its traces there go with it.
_COVERED = """
mount -t tmpfs tmpfs /run &&
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/etc-work" /etc &&
top=$1 && shift && exec "$@" >"$top/log" 2>&1
"""


class Docker:
    """A running dockerd with two images: ``true`` and ``python``.

    Parameters
    ----------
    images
        Without them for False: for who brings images of their own.
    bridge
        In a network namespace of its own, with its bridge there; without either otherwise.

    Raises
    ------
    PeerError
        It isn't installed, or doesn't start (with its own last words).
    """

    def __init__(self, top: Path, *, images: bool = True, bridge: bool = False) -> None:
        self.top = top
        self.client = [need("docker"), "--host", f"unix://{top}/docker.sock"]
        if str(top).startswith(("/run/", "/etc/")):
            message = f"dockerd's directory can't be {top}: it covers /run and /etc"
            raise PeerError(message)
        for name in ("etc", "etc-work", "data", "exec", "home"):
            (top / name).mkdir(parents=True)
        words = [
            *sandbox.prefix(pids=True),
            *((need("unshare"), "--net") if bridge else ()),
            *("sh", "-c", _COVERED, "sh", str(top), need("dockerd")),
            *("--host", f"unix://{top}/docker.sock", "--pidfile", str(top / "docker.pid")),
            *("--data-root", str(top / "data"), "--exec-root", str(top / "exec")),
            # No bridge out here, no NAT: the machine's interfaces and firewall are not touched.
            *(() if bridge else ("--bridge", "none", "--ip-forward=false")),
            *("--iptables=false", "--ip6tables=false"),
            *("--exec-opt", "native.cgroupdriver=cgroupfs"),
            *("--cgroup-parent", f"/{sandbox.CGROUP_PARENT}"),
        ]
        # HOME, for neither the user's client configuration nor its credentials belong in here.
        self.environment = {"PATH": PATH, "HOME": str(top / "home"), "LANG": "C.UTF-8"}
        self.environment |= {key: value for key, value in os.environ.items() if key == MARK}
        self._process = subprocess.Popen(
            words, env=self.environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            self._wait_until_ready()
            if images:
                self._import("true", roots.tar(roots.true_files()))
                self._import("python", roots.tar(roots.python_files()))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def command(self, image: str, *words: str, network: str = "none") -> list[str]:
        """Give the ``docker run`` of a command, for :meth:`benchmarks.sandbox.Timer.time`."""
        return [*self.client, "run", "--rm", "--network", network, image, *words]

    def close(self) -> None:
        """End the daemon and with it its containerd, its shims and its mounts."""
        if self._process.poll() is None:
            daemon = self._daemon_pid()
            if daemon is not None:
                os.kill(daemon, signal.SIGTERM)
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()  # unshare's --kill-child takes the whole namespace along
                self._process.wait()

    def _daemon_pid(self) -> int | None:
        """Give the daemon's pid out here: the one child of unshare."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return int(children[0]) if children else None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while self._client("version").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                message = f"dockerd doesn't start: {self._last_words()}"
                raise PeerError(message)
            time.sleep(0.1)

    def _last_words(self) -> str:
        try:
            said = (self.top / "log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            said = ""
        return said.strip().rpartition("\n")[2][:300] or "it said nothing"

    def _import(self, image: str, archive: bytes) -> None:
        done = self._client("import", "-", image, data=archive)
        if done.returncode != 0:
            message = f"docker import {image}: {done.stderr.decode(errors='replace').strip()}"
            raise PeerError(message)

    def _client(self, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.client, *words],
            env=self.environment,
            input=data,
            capture_output=True,
            check=False,
        )
