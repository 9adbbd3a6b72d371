"""Times commands from a small process of its own; run by path, standard library only.

It stands in a private mount namespace, so that what a peer needs there never shows on the machine,
and it is small and has one thread, so that starting a command costs the peer nothing of the
benchmark's. Requests are lines of JSON on standard input, each answered by a line.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any

MNT_DETACH = 2  # sys/mount.h
libc = ctypes.CDLL(None, use_errno=True)


def mount_overlay(layers: dict[str, str]) -> None:
    """Mount an overlay: mount(2) itself, to cost a peer as little as can be."""
    options = ",".join(f"{name}={layers[name]}" for name in ("lowerdir", "upperdir", "workdir"))
    result = libc.mount(b"overlay", layers["merged"].encode(), b"overlay", 0, options.encode())
    check(result, layers["merged"])


def unmount(path: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(libc.umount2(path.encode(), flags), path)


def check(result: int, path: str) -> None:
    """Turn a libc call's failure into its error."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def run(request: dict[str, Any], errors: int) -> dict[str, Any]:
    """Run one command to its end: nanoseconds and exit code; the overlay's (un)mount included."""
    argv, layers = request["argv"], request.get("overlay")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.ftruncate(errors, 0)
    os.lseek(errors, 0, os.SEEK_SET)
    actions = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, null, 1),
        (os.POSIX_SPAWN_DUP2, errors, 2),
    ]
    begin = time.perf_counter_ns()
    if layers is not None:
        mount_overlay(layers)
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    if layers is not None:
        unmount(layers["merged"])
    spent = time.perf_counter_ns() - begin
    os.close(null)
    said = os.pread(errors, 4096, 0).decode(errors="replace")
    return {"ns": spent, "code": os.waitstatus_to_exitcode(status), "stderr": said}


def main() -> None:
    """Answer requests until standard input ends."""
    errors = os.memfd_create("stderr", os.MFD_CLOEXEC)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] == "run":
                answer = run(request, errors)
            elif request["op"] == "mount":
                mount_overlay(request["overlay"])
                answer = {}
            else:
                unmount(request["path"], MNT_DETACH)
                answer = {}
        except OSError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
