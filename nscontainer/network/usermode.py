"""A network in user mode: slirp4netns, a program of its own, speaks TCP/IP for a container.

It needs no bridge, no rules and no privilege on the host: what ordinary users have, and root where
there is no nftables. Connections go out as if the program made them; nobody gets in. It is slower
than a bridge, and has no limits of speed.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from typing import Final

from nscontainer.errors import HostError
from nscontainer.linux import net, userns
from nscontainer.linux.rtnetlink import LinkStats, RtNetlink
from nscontainer.netspec import USER_MODE
from nscontainer.network.names import Place

PLACE: Final = Place("10.0.2.100", "10.0.2.2")
"""Where slirp4netns puts the container, and itself as the way out (slirp4netns(1))."""
ETH0: Final = "eth0"
_MTU: Final = "65520"
_PATIENCE_S: Final = 10.0


def check_host() -> str:
    """Give the program's path.

    Raises
    ------
    HostError
        It isn't here.
    """
    path = shutil.which(USER_MODE)
    if path is None:
        message = f"network {USER_MODE} needs the program of that name, and it isn't here"
        raise HostError(message, hint=f"apt-get install {USER_MODE}, or --network bridge")
    return path


def _mend(text: str) -> str:
    if "/dev/net/tun" in text and "denied" in text:
        return "sudo chmod 666 /dev/net/tun, as udev has it elsewhere"
    if not userns.privileged():  # a bridge takes root
        return "--network none does without it"
    return "--network bridge does without it"


class UserMode:
    """The program, as the monitor of its container has it.

    Parameters
    ----------
    pid
        The container's first process.
    mapped
        Whether that has a user namespace of its own.

    Raises
    ------
    HostError
        It could not do its part; with what it said.
    """

    def __init__(self, pid: int, *, mapped: bool) -> None:
        self.netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.pid = 0
        self._exit_w = -1
        """It ends when this is closed, and so with the monitor, however that ends."""
        self._route: RtNetlink | None = None
        try:
            self._start(check_host(), pid, mapped=mapped)
            self._route = RtNetlink(*net.sockets_within(self.netns_fd, lambda: [RtNetlink.new()]))
            link = self._route.link(ETH0)
            assert link is not None
            self._index = link.index
        except BaseException:
            self.close()
            raise

    def _start(self, program: str, pid: int, *, mapped: bool) -> None:
        exit_r, self._exit_w = os.pipe()
        ready_r, ready_w = os.pipe()
        said = os.memfd_create(USER_MODE, os.MFD_CLOEXEC)
        userns = [f"--userns-path=/proc/{pid}/ns/user"] if mapped else []
        command = [
            *(program, "--configure", f"--mtu={_MTU}", "--disable-host-loopback"),
            *("--enable-sandbox", f"--exit-fd={exit_r}", f"--ready-fd={ready_w}", *userns),
            *("--netns-type=path", f"/proc/{pid}/ns/net", ETH0),
        ]
        theirs = [exit_r, ready_w]
        try:
            for fd in theirs:
                os.set_inheritable(fd, True)  # noqa: FBT003 - os's own signature
            actions = [
                (os.POSIX_SPAWN_DUP2, said, 1),
                (os.POSIX_SPAWN_DUP2, said, 2),
            ]
            environment = {"PATH": os.environ.get("PATH", os.defpath)}
            self.pid = os.posix_spawn(program, command, environment, file_actions=actions)
            os.close(theirs.pop())  # so that its end is the end of the pipe
            ready = select.select([ready_r], [], [], _PATIENCE_S)[0]
            if not ready or not os.read(ready_r, 1):
                text = os.pread(said, 4096, 0).decode(errors="replace").strip()
                message = f"{program} could not make the network: {text or 'it said nothing'}"
                raise HostError(message, hint=_mend(text))
        finally:
            for fd in (*theirs, ready_r, said):
                os.close(fd)

    def stats(self) -> LinkStats:
        """Read the counters of ``eth0``, as the container sees them."""
        assert self._route is not None
        return self._route.stats(self._index)

    def close(self) -> None:
        """End it; once is enough. ``eth0`` goes with it."""
        if self._exit_w >= 0:
            os.close(self._exit_w)
            self._exit_w = -1
        if self.pid:
            pid, self.pid = self.pid, 0
            deadline = time.monotonic() + 1.0
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                while os.waitpid(pid, os.WNOHANG)[0] == 0:
                    if time.monotonic() > deadline:
                        os.kill(pid, signal.SIGKILL)
                    time.sleep(0.001)
        if self._route is not None:
            self._route.close()
            self._route = None
        if self.netns_fd >= 0:
            os.close(self.netns_fd)
            self.netns_fd = -1
