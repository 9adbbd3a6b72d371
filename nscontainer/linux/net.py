"""Network interfaces, as far as an isolated container needs them: loopback up (netdevice(7))."""

from __future__ import annotations

import fcntl
import socket
import struct

from nscontainer.linux.syscalls import kernel_error

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def loopback_up() -> None:
    """Bring ``lo`` of this network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            answer = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
            flags = struct.unpack_from("16sh", answer)[1] | IFF_UP
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags))
        except OSError as error:
            raise kernel_error(error.errno or 0, "ioctl SIOCSIFFLAGS", "lo") from None
