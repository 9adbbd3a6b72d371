"""The one call to a user's systemd, against a bus that answers as the specification's messages say."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from nscontainer.linux import systemd

HELLO = b"l\2\1\1\x0a\0\0\0\1\0\0\0\x0f\0\0\0\5\1u\0\1\0\0\0\x08\1g\0\1s\0\0\5\0\0\0:1.42\0"
"""What dbus-daemon answers to the first call: serial 1, ``:1.42``."""


def refusal(text: str, serial: int) -> bytes:
    """An error in big-endian, as a bus on another machine could send it."""
    name = b"org.freedesktop.systemd1.No\0"
    fields = b"\4\1s\0" + struct.pack(">I", len(name) - 1) + name
    fields += bytes(-len(fields) % 8) + b"\5\1u\0" + struct.pack(">I", serial)
    fields += bytes(-len(fields) % 8) + b"\x08\1g\0\1s\0"
    body = struct.pack(">I", len(text)) + text.encode() + b"\0"
    head = struct.pack(">4BIII", ord("B"), 3, 0, 1, len(body), 9, len(fields))
    return head + fields + bytes(-len(fields) % 8) + body


def answer(serial: int) -> bytes:
    return b"l\2\1\1\0\0\0\0\7\0\0\0\x08\0\0\0\5\1u\0" + struct.pack("<I", serial)


SIGNAL = b"l\4\1\1\0\0\0\0\3\0\0\0\x08\0\0\0\3\1s\0\0\0\0\0"


class Bus:
    """Takes one client, and answers its calls in turn with what it was given."""

    def __init__(self, path: Path, greeting: bytes, answers: list[bytes]) -> None:
        self.heard: list[bytes] = []
        self._greeting, self._answers = greeting, answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as client:
            self.heard.append(client.recv(4096))
            client.sendall(self._greeting)
            for number, each in enumerate(self._answers):
                # BEGIN is answered by nothing: the first call may come together with it.
                begin = len(b"BEGIN\r\n"), socket.MSG_WAITALL
                self.heard.append(client.recv(*begin) if number == 0 else client.recv(4096))
                client.sendall(each)
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                self.heard.append(client.recv(4096))


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    moved = iter(range(1000))
    monkeypatch.setattr(systemd, "_cgroup_of", lambda _pid: f"0::/{next(moved)}")
    (tmp_path / "systemd").mkdir()
    return tmp_path


def test_a_scope_is_asked_for_past_signals(runtime: Path) -> None:
    """The call has our pid and Delegate; only the answer to it ends the wait."""
    bus = Bus(runtime / "bus", b"OK 1234\r\n", [b"", HELLO, SIGNAL + answer(99) + answer(2)])
    systemd.start_scope("x.scope", 4321, "test")
    bus.thread.join(10)
    heard = b"".join(bus.heard)
    assert str(os.geteuid()).encode().hex().encode() in bus.heard[0]
    for part in (b"StartTransientUnit\0", b"x.scope\0", b"Delegate\0\1b\0", b"PIDs\0\2au\0"):
        assert part in heard
    assert struct.pack("<II", 4, 4321) in heard


def test_without_a_bus_systemd_itself_is_asked(runtime: Path) -> None:
    bus = Bus(runtime / "systemd/private", b"OK 1234\r\n", [b"", answer(2)])
    systemd.start_scope("x.scope", 4321, "test")
    assert b"Hello" not in b"".join(bus.heard)


def test_its_refusal_is_told(runtime: Path) -> None:
    Bus(runtime / "bus", b"OK 1234\r\n", [b"", HELLO, refusal("no such thing", 2)])
    with pytest.raises(systemd.SystemdError, match="systemd says: no such thing"):
        systemd.start_scope("x.scope", 4321, "test")


def test_a_bus_that_knows_us_not(runtime: Path) -> None:
    Bus(runtime / "bus", b"REJECTED EXTERNAL\r\n", [])
    with pytest.raises(systemd.SystemdError, match="REJECTED EXTERNAL"):
        systemd.start_scope("x.scope", 4321, "test")


def test_nobody_there(runtime: Path) -> None:
    with pytest.raises(systemd.SystemdError, match="doesn't answer: No such file"):
        systemd.start_scope("x.scope", 4321, "test")


def test_one_that_ends_in_the_middle(runtime: Path) -> None:
    Bus(runtime / "bus", b"OK 1234\r\n", [b"", HELLO, HELLO[:20]])
    with pytest.raises(systemd.SystemdError, match="closed the connection"):
        systemd.start_scope("x.scope", 4321, "test")
