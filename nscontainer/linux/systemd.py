"""Asks a user's own systemd for a scope: a cgroup delegated to that user, with this process in it.

One call over D-Bus (org.freedesktop.systemd1(5), StartTransientUnit), spoken here as far as it is needed:
dbus.freedesktop.org/doc/dbus-specification.html. systemd-run(1) would do the same, 20 ms later and with
an environment that a spawner must not have.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from typing import Final

PATIENCE_S: Final = 30.0
_POLL_S: Final = 0.002
_CALL, _RETURN, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_HEAD: Final = struct.Struct("<4BIII")
_MOST: Final = 1 << 20


class SystemdError(Exception):
    """systemd isn't there, or says no: one line."""


def is_running() -> bool:
    """Tell whether systemd runs this machine (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def runtime_dir(uid: int) -> str:
    """Give a user's runtime directory, where their systemd listens."""
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"


def start_scope(name: str, pid: int, description: str) -> None:
    """Have a process moved into a new scope whose cgroup is delegated, and wait until it is there.

    The scope ends, and its cgroups with it, when the last process of it has.

    Parameters
    ----------
    name
        ``….scope``.

    Raises
    ------
    SystemdError
        It is not to be had.
    """
    before = _cgroup_of(pid)
    properties = _properties(pid, description)
    body = _Body()
    body.string(name)
    body.string("fail")
    body.array(properties)
    body.array([])
    try:
        with _connect() as sock:
            _call(sock, "StartTransientUnit", "ssa(sv)a(sa(sv))", bytes(body.data))
    except OSError as error:
        message = f"this user's systemd doesn't answer: {error.strerror or error}"
        raise SystemdError(message) from None
    deadline = time.monotonic() + PATIENCE_S
    while _cgroup_of(pid) == before:
        if time.monotonic() > deadline:
            message = f"this user's systemd did not start {name} within {PATIENCE_S:g} s"
            raise SystemdError(message)
        time.sleep(_POLL_S)


def _cgroup_of(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        return file.read()
    return ""


def _connect() -> socket.socket:
    """Connect to the user's bus, or, without one, straight to their systemd."""
    uid = os.geteuid()
    top = runtime_dir(uid)
    problem: OSError | None = None
    for path, is_bus in ((f"{top}/bus", True), (f"{top}/systemd/private", False)):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(path)
            _authenticate(sock, uid)
            if is_bus:
                _call(sock, "Hello", "", b"", to="org.freedesktop.DBus", serial=1)
        except OSError as error:
            sock.close()
            problem = problem or error
            continue
        except SystemdError:
            sock.close()
            raise
        return sock
    assert problem is not None
    raise problem


def _authenticate(sock: socket.socket, uid: int) -> None:
    """Say who we are: the socket's credentials prove it (the mechanism EXTERNAL)."""
    sock.sendall(b"\0AUTH EXTERNAL " + str(uid).encode().hex().encode() + b"\r\n")
    answer = b""
    while not answer.endswith(b"\r\n") and len(answer) < _MOST:
        answer += _some(sock, 1)
    if not answer.startswith(b"OK"):
        message = f"this user's bus refuses them: {answer.decode(errors='replace').strip()}"
        raise SystemdError(message)
    sock.sendall(b"BEGIN\r\n")


# --- D-Bus messages --------------------------------------------------------------------------


_Value = str | bool | list[int]


class _Body:
    """Values put one after the other, each aligned as its type wants."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        self.data += bytes(-len(self.data) % size)

    def number(self, value: int) -> None:
        self.align(4)
        self.data += struct.pack("<I", value)

    def string(self, text: str) -> None:
        data = text.encode()
        self.number(len(data))
        self.data += data + b"\0"

    def signature(self, text: str) -> None:
        self.data += bytes([len(text)]) + text.encode() + b"\0"

    def variant(self, kind: str, value: _Value) -> None:
        self.signature(kind)
        if isinstance(value, str):
            self.string(value)
        elif isinstance(value, bool):
            self.number(int(value))
        else:
            self.number(4 * len(value))
            for each in value:
                self.number(each)

    def array(self, properties: list[tuple[str, str, _Value]]) -> None:
        """Put an array of structures: ``a(sv)``, or an empty one of any other kind."""
        self.number(0)
        at = len(self.data)
        self.align(8)
        begin = len(self.data)
        for name, kind, value in properties:
            self.align(8)
            self.string(name)
            self.variant(kind, value)
        self.data[at - 4 : at] = struct.pack("<I", len(self.data) - begin)


def _properties(pid: int, description: str) -> list[tuple[str, str, _Value]]:
    return [
        ("Description", "s", description),
        ("PIDs", "au", [pid]),
        ("Delegate", "b", True),
        ("CollectMode", "s", "inactive-or-failed"),
    ]


def _message(member: str, signature: str, body: bytes, to: str, serial: int) -> bytes:
    bus = to == "org.freedesktop.DBus"
    fields = {
        _PATH: ("o", "/org/freedesktop/DBus" if bus else "/org/freedesktop/systemd1"),
        _INTERFACE: ("s", to if bus else f"{to}.Manager"),
        _MEMBER: ("s", member),
        _DESTINATION: ("s", to),
    }
    head = _Body()
    for code, (kind, text) in fields.items():
        head.align(8)
        head.data.append(code)
        head.variant(kind, text)
    if signature:
        head.align(8)
        head.data.append(_SIGNATURE)
        head.signature("g")
        head.signature(signature)
    length = len(head.data)
    head.align(8)
    start = _HEAD.pack(ord("l"), _CALL, 0, 1, len(body), serial, length)
    return start + bytes(head.data) + body


def _call(
    sock: socket.socket,
    member: str,
    signature: str,
    body: bytes,
    *,
    to: str = "org.freedesktop.systemd1",
    serial: int = 2,
) -> None:
    """Call a method and wait for its answer, past signals and whatever else comes.

    Raises
    ------
    SystemdError
        The answer is an error: its text.
    """
    sock.sendall(_message(member, signature, body, to, serial))
    while True:
        kind, reply_to, text = _receive(sock)
        if reply_to == serial and kind in (_RETURN, _ERROR):
            if kind == _ERROR:
                message = f"this user's systemd says: {text}"
                raise SystemdError(message)
            return


def _receive(sock: socket.socket) -> tuple[int, int, str]:
    """Read a message: its type, what it answers, and its first string (an error's text)."""
    start = _some(sock, _HEAD.size)
    order = "<" if start[:1] == b"l" else ">"
    _, kind, _, _, size, _, fields = struct.unpack(f"{order}4BIII", start)
    if max(size, fields) > _MOST:
        message = "a message too long"
        raise SystemdError(message)
    head = _some(sock, fields + -fields % 8)[:fields]
    body = _some(sock, size)
    reply, name = _fields(head, order)
    if kind == _ERROR and size >= 4:
        (length,) = struct.unpack_from(f"{order}I", body)
        return kind, reply, body[4 : 4 + length].decode(errors="replace") or name
    return kind, reply, name


def _fields(head: bytes, order: str) -> tuple[int, str]:
    """Find which call a header is the answer to, and the name of an error."""
    reply, name, at = 0, "", 0
    while at + 4 <= len(head):
        code, length = head[at], head[at + 1]
        kind = head[at + 2 : at + 2 + length]
        at += 3 + length
        if kind == b"g":
            at += 2 + head[at]
        else:
            at += -at % 4
            (number,) = struct.unpack_from(f"{order}I", head, at)
            at += 4
            if code == _REPLY:
                reply = number
            if kind in (b"s", b"o"):
                if code == _ERROR_NAME:
                    name = head[at : at + number].decode(errors="replace")
                at += number + 1
        at += -at % 8
    return reply, name


def _some(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionResetError(104, "it closed the connection")
        data += more
    return data
