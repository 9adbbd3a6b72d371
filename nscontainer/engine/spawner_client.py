"""The owner's side of the spawner: started once, asked for containers."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading

from nscontainer.engine import state, wire
from nscontainer.errors import EngineError, HostError
from nscontainer.image import host

_START = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from nscontainer.engine.spawner import main; main({fd})"
)


class SpawnerClient:
    """One running spawner process, and the socket to it."""

    def __init__(self, *, cells: bool) -> None:
        self.owner_pid = os.getpid()
        self._asking = threading.Lock()
        self.top = state.state_dir()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        # -I: nothing of the user's environment or working directory gets into it. The site-packages
        # are for the zygote's IPython only; without them a spawner is up sooner.
        flags = ["-I"] if cells else ["-I", "-S"]
        code = _START.format(root=root, fd=theirs.fileno())
        environ = host.environment(os.environ)
        debug = os.environ.get("NSCONTAINER_DEBUG")
        if debug:
            environ["NSCONTAINER_DEBUG"] = debug
        # Where an ordinary user's cgroups, and their systemd, are (linux/delegation.py).
        for name in ("NSCONTAINER_CGROUP_PARENT", "XDG_RUNTIME_DIR"):
            if name in os.environ:
                environ[name] = os.environ[name]
        try:
            self.process = subprocess.Popen(
                [sys.executable, *flags, "-c", code],
                env=environ,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if debug else subprocess.DEVNULL,
                start_new_session=True,  # a signal to the notebook's process group isn't for it
                cwd="/",
            )
        except OSError as error:
            ours.close()
            message = f"the spawner can't be started: {error}"
            raise EngineError(message) from None
        finally:
            theirs.close()
        self.sock = ours
        config = {
            "cells": cells,
            "top": self.top,
            "owner_pid": self.owner_pid,
            "sys_path": [p for p in sys.path if p],
            "standby": os.environ.get("NSCONTAINER_STANDBY", "1") != "0",
        }
        wire.send(ours, config)

    def ask(self, message: wire.Message, fds: tuple[int, ...]) -> None:
        """Send a request; the monitor answers on the control socket among ``fds``."""
        with self._asking:  # runs in the background ask as well
            wire.send(self.sock, message, fds)

    def close(self) -> None:
        """Let the spawner end, and collect it."""
        with contextlib.suppress(OSError):
            self.sock.close()
        if os.getpid() == self.owner_pid:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)


_lock = threading.Lock()
_spawners: dict[bool, SpawnerClient] = {}


def get(*, cells: bool) -> SpawnerClient:
    """Give this process's spawner for commands or for cells, starting it at the first call.

    Raises
    ------
    HostError
        This is no Linux.
    """
    if sys.platform != "linux":
        message = f"containers need Linux, and this is {sys.platform}"
        raise HostError(message, hint="use a Linux machine, a VM or WSL2")
    with _lock:
        spawner = _spawners.get(cells)
        fresh = (
            spawner is not None
            and spawner.owner_pid == os.getpid()  # after a fork the parent's is not ours to use
            and spawner.process.poll() is None
            and spawner.top == state.state_dir()
        )
        if not fresh or spawner is None:
            if spawner is not None and spawner.owner_pid == os.getpid():
                spawner.close()
            spawner = _spawners[cells] = SpawnerClient(cells=cells)
        return spawner


def forget(spawner: SpawnerClient) -> None:
    """Drop a spawner that has died, so that the next call starts another."""
    with _lock:
        for cells, known in list(_spawners.items()):
            if known is spawner:
                del _spawners[cells]
    spawner.close()


def warm(*, cells: bool) -> None:
    """Start a spawner ahead of its first use; returns at once, and never raises."""
    with contextlib.suppress(Exception):
        get(cells=cells)


@atexit.register
def shutdown() -> None:
    """End this process's spawners."""
    for spawner in list(_spawners.values()):
        if spawner.owner_pid == os.getpid():
            spawner.close()
    _spawners.clear()
