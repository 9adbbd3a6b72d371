"""Run the host's one command inside the VM; send its output and exit code over a virtio port.

`image` puts this file into the disk image, `machine` imports its protocol; it needs nothing but the
standard library. nscontainer-vm.service starts it as root. The job disk is a plain tar of ``src/`` and
``run/nscontainer-vm/job.json``.

The protocol is one way: frames of a kind (one byte), a length (u32) and a payload. A pipe stands
between the command and the port because a virtio port can be open only once, so that a command
writing to /dev/stderr would get EBUSY (Linux, drivers/char/virtio_console.c, port_fops_open).
"""

from __future__ import annotations

import json
import os
import selectors
import struct
import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT_NAME: Final = "nscontainer"
JOB_SERIAL: Final = "job"
JOB_PATH: Final = "run/nscontainer-vm/job.json"
SRC: Final = "src"
USER: Final = "ann"
UID: Final = 1000

FRAME: Final = struct.Struct("<cI")
READY, STDOUT, STDERR, EXIT, FAILED = b"R", b"O", b"E", b"X", b"F"

DEVICE_WAIT_S: Final = 60.0
# A process the command left behind may hold its output open: don't wait for it for ever.
DRAIN_S: Final = 2.0


class Job(TypedDict):
    """What the host wants run."""

    argv: list[str]
    as_user: bool


def write_frame(port: IO[bytes], kind: bytes, payload: bytes = b"") -> None:
    """Send one frame now."""
    port.write(FRAME.pack(kind, len(payload)) + payload)
    port.flush()


def split_frames(buffer: bytearray) -> Iterator[tuple[bytes, bytes]]:
    """Take the complete frames off the front of `buffer`, as (kind, payload)."""
    while len(buffer) >= FRAME.size:
        kind, length = FRAME.unpack_from(buffer)
        end = FRAME.size + length
        if len(buffer) < end:
            return
        payload = bytes(buffer[FRAME.size : end])
        del buffer[:end]
        yield kind, payload


def wait_for(path: Path) -> Path:
    """Wait until udev has made the device `path`."""
    deadline = time.monotonic() + DEVICE_WAIT_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {path} after {DEVICE_WAIT_S:.0f} s")
        time.sleep(0.05)
    return path


def command_line(job: Job) -> list[str]:
    """Return the argv that runs the job's command in /src with the project on its path."""
    env = [
        "env",
        "LANG=C.UTF-8",
        "PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"PYTHONPATH=/{SRC}:/{SRC}/magics",
        "SHELL=/bin/bash",
    ]
    if not job["as_user"]:
        return [*env, "HOME=/root", "USER=root", "LOGNAME=root", *job["argv"]]
    # su goes through PAM's common-session: pam_systemd opens a real session with a user manager.
    script = f'cd /{SRC} && exec "$@"'
    su = ["su", "--login", "--shell=/bin/sh", f"--command={script}", "--", USER, "sh"]
    return [*su, *env, *job["argv"]]


def run(job: Job, port: IO[bytes]) -> int:
    """Run the command, relay its output as it comes, and return its exit code (128+n for signal n)."""
    child = subprocess.Popen(
        command_line(job),
        cwd=f"/{SRC}",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with child, selectors.DefaultSelector() as selector:
        for stream, kind in (child.stdout, STDOUT), (child.stderr, STDERR):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, kind)
        selector.register(os.pidfd_open(child.pid), selectors.EVENT_READ)
        drain_until: float | None = None
        while len(selector.get_map()) > (0 if drain_until else 1):
            left = None if drain_until is None else drain_until - time.monotonic()
            if left is not None and left <= 0:
                break
            for key, _ in selector.select(left):
                if key.data is None:
                    drain_until = time.monotonic() + DRAIN_S
                    selector.unregister(key.fd)
                elif data := os.read(key.fd, 65536):
                    write_frame(port, key.data, data)
                else:
                    selector.unregister(key.fileobj)
        code = child.wait()
    return code if code >= 0 else 128 - code


def main() -> None:
    """Unpack the job disk, run the job, report, and switch the machine off."""
    with wait_for(Path(f"/dev/virtio-ports/{PORT_NAME}")).open("wb") as port:
        try:
            disk = wait_for(Path(f"/dev/disk/by-id/virtio-{JOB_SERIAL}"))
            subprocess.run(["tar", "--extract", f"--file={disk}", "--directory=/"], check=True)
            job: Job = json.loads(Path("/", JOB_PATH).read_text(encoding="utf-8"))
            write_frame(port, READY)
            write_frame(port, EXIT, str(run(job, port)).encode())
        except Exception as error:
            write_frame(port, FAILED, f"{type(error).__name__}: {error}".encode())
            raise
        finally:
            subprocess.run(["systemctl", "poweroff", "--force"], check=False)


if __name__ == "__main__":
    main()
