"""A directory with every case that a layer can have, as overlayfs has it on the disk."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
LONG = "n" * 200
DEEP = "/".join(["d" * 60] * 6)
NOT_UTF_8 = b"\xff\xfe-\xe4".decode("utf-8", "surrogateescape")


def every_case(top: Path) -> None:
    """Make it; for root only (devices, trusted attributes)."""
    for name in ("usr/bin", "etc", "opq", "empty", "links", DEEP, "ümläut"):
        (top / name).mkdir(parents=True, exist_ok=True)
    (top / "usr/bin/tool").write_bytes(b"#!/bin/sh\n" * 100)
    (top / "usr/bin/tool").chmod(0o4755)
    (top / "usr/bin/sgid").write_bytes(b"")
    (top / "usr/bin/sgid").chmod(0o2711)
    (top / "empty").chmod(0o1777)
    (top / "etc/secret").write_text("x")
    (top / "etc/secret").chmod(0)
    os.chown(top / "etc/secret", 65534, 1)
    (top / "etc/large-ids").write_text("x")
    os.chown(top / "etc/large-ids", 2_100_000, 2**31)
    (top / "links/a").write_text("shared")
    os.link(top / "links/a", top / "empty/hard")
    os.link(top / "links/a", top / "links/z")
    os.symlink("../../nowhere", top / "links/dangling")
    os.symlink("/etc/passwd", top / "links/absolute")
    os.symlink("x" * 300, top / "links/long")
    os.link(top / "links/dangling", top / "links/hard-to-link", follow_symlinks=False)
    os.chown(top / "links/long", 7, 7, follow_symlinks=False)
    (top / LONG).write_text("long name")
    (top / DEEP / LONG).write_text("longer")
    (top / NOT_UTF_8).write_text("no UTF-8")
    (top / "ümläut" / "naïve €").write_text("UTF-8")
    (top / "new\nline").write_text("odd")
    os.mkfifo(top / "fifo", 0o640)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(top / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 300))
    for gone in ("gone", "etc/gone", f"links/{'w' * 120}"):
        os.mknod(top / gone, stat.S_IFCHR, 0)
    os.link(top / "gone", top / "gone-too")  # overlayfs links its whiteouts to one another
    (top / "opq/inside").write_text("new")
    os.setxattr(top / "opq", "trusted.overlay.opaque", b"y")
    os.setxattr(top / "usr", "trusted.overlay.origin", b"\0\xfb")
    os.setxattr(top / "usr/bin/tool", "user.note", b"a\0b=c\n")
    os.setxattr(top / "usr/bin/sgid", "security.capability", CAPABILITY)
    os.setxattr(top / "etc", "user.directory", b"yes")
    os.setxattr(top / "links/dangling", "trusted.link", b"1", follow_symlinks=False)
    with (top / "holes").open("wb") as file:
        file.write(b"start")
        file.seek(3 << 20)
        file.write(b"middle" * 20_000)
        file.truncate(8 << 20)
    with socket.socket(socket.AF_UNIX) as listener:  # left out, as tar and Docker do
        here = os.open(top, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    for number, path in enumerate(sorted([*top.rglob("*")], reverse=True)):
        when = (number - 5) * 100_000_000_123_456_7
        if path.name not in ("hard", "z", "hard-to-link", "gone-too"):
            os.utime(path, ns=(when, when), follow_symlinks=False)
