"""Boot the test VM, run one command in it on a copy of this checkout, and exit as the command did.

See README.md. Nothing is written to the host but the image cache: the job disk and qemu's throw-away
overlay are unlinked files, and qemu dies with this process (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NoReturn

from tests.vm import guest, host, image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

# As coreutils' timeout and docker run have it.
EXIT_TIMEOUT: Final = 124
EXIT_VM_FAILED: Final = 125
EXIT_USAGE: Final = 2

CPUS: Final = 2
KERNEL_ARGS: Final = (
    "root=/dev/vda",
    "rw",
    "console=ttyS0",
    "quiet",
    "panic=-1",
    "mitigations=off",  # nothing here is worth protecting, and they cost an emulated processor most
    "systemd.show_status=0",
)
# A machine that hasn't started the job by now never will.
BOOT_LIMIT_S: Final = {"kvm": 60.0, "tcg": 300.0}
CONSOLE_KEPT: Final = 65536
CONSOLE_SHOWN_LINES: Final = 20


class Stopped(BaseException):
    """A signal asks us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class NotBooted(host.VmError):
    """The machine didn't come up, so that the command has not run at all."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    command: list[str]
    as_user: bool
    timeout_s: float
    memory_mib: int
    accel: str
    console: bool
    build: bool


def parse(argv: Sequence[str]) -> Options:
    """Read the command line: our options, ``--``, the command."""
    at = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="tests/vm/run",
        usage="%(prog)s [OPTION...] -- COMMAND...",
        description="Run COMMAND in a Debian 12 VM with cgroup v2, in a copy of this checkout at /src.",
        epilog=f"Exit code: COMMAND's; {EXIT_TIMEOUT} if it took too long, {EXIT_VM_FAILED} if the VM "
        "failed. $NSCONTAINER_VM_CACHE is where the built image is kept "
        f"(default: {image.DEFAULT_CACHE}).",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--as-user", action="store_true", help=f"run it as {guest.USER}, in a login session")
    add(
        "--timeout",
        type=float,
        default=3000,
        metavar="SECONDS",
        help="boot included (default: 3000)",
    )
    add("--memory", type=int, default=3072, metavar="MIB", help="the VM's memory (default: 3072)")
    add("--accel", choices=["auto", "kvm", "tcg"], default="auto", help="hardware or emulation")
    add("--console", action="store_true", help="show the VM's console on standard error")
    add("--build", action="store_true", help="only see to it that the image is built")
    found = parser.parse_args(argv[:at])
    command = list(argv[at + 1 :])
    if bool(command) == found.build:
        parser.error("give a command after --, or --build")
    return Options(
        command=command,
        as_user=found.as_user,
        timeout_s=found.timeout,
        memory_mib=found.memory,
        accel=found.accel,
        console=found.console,
        build=found.build,
    )


def checkout_files(root: Path) -> list[str]:
    """List the checkout's files as git sees them: tracked ones as they are now, and new ones."""
    # CI may run as another user than the one who cloned, which git refuses without safe.directory.
    git = ["git", "-c", f"safe.directory={root}", "-C", str(root)]
    listing = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        error = listing.stderr.decode(errors="replace").strip()
        raise host.VmError(f"git ls-files failed in {root}: {error}")
    names = {os.fsdecode(name) for name in listing.stdout.split(b"\0") if name}
    # A deleted file is tracked until the deletion is committed; a submodule is a directory.
    return sorted(
        n for n in names if os.path.lexists(root / n) and not is_plain_directory(root / n)
    )


def is_plain_directory(path: Path) -> bool:
    """Whether `path` is a directory itself, not by a symbolic link."""
    return path.is_dir() and not path.is_symlink()


def write_job(disk: IO[bytes], options: Options) -> None:
    """Write the job disk: a tar with the checkout and the command in it."""
    uid = guest.UID if options.as_user else 0

    def owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = uid
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(fileobj=disk, mode="w", format=tarfile.PAX_FORMAT) as tar:
        made: set[str] = set()
        for name in checkout_files(image.ROOT):
            for parent in [".", *(str(p) for p in reversed(Path(name).parents[:-1]))]:
                if parent not in made:
                    made.add(parent)
                    entry = tarfile.TarInfo(os.path.normpath(f"{guest.SRC}/{parent}"))
                    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
                    tar.addfile(owned(entry))
            tar.add(image.ROOT / name, arcname=f"{guest.SRC}/{name}", recursive=False, filter=owned)
        job: guest.Job = {"argv": options.command, "as_user": options.as_user}
        text = json.dumps(job).encode()
        entry = tarfile.TarInfo(guest.JOB_PATH)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    disk.flush()


def accelerators(asked: str) -> list[str]:
    """Return the accelerators to try, best first.

    That /dev/kvm can be opened isn't enough: under a paravirtualised KVM (PVM), which has no vmx or
    svm, qemu starts and a stock guest kernel hangs before its first line or fails on an MSR.
    """
    if asked != "auto":
        return [asked]
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    real = re.search(r"^flags\s*:.*\b(vmx|svm)\b", cpu, re.MULTILINE)
    return ["kvm", "tcg"] if real and os.access("/dev/kvm", os.R_OK | os.W_OK) else ["tcg"]


def qemu_argv(options: Options, found: image.Image, accel: str, fds: dict[str, int]) -> list[str]:
    """Return qemu's command line; `fds` are its descriptors of the job disk, console and port."""
    drive = "if=none,format=raw"
    return [
        host.QEMU[0],
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-accel", accel, "-cpu", "host" if accel == "kvm" else "max"),
        *("-smp", str(CPUS), "-m", str(options.memory_mib)),
        *("-kernel", str(found.kernel), "-initrd", str(found.initrd)),
        *("-append", " ".join(KERNEL_ARGS)),
        # The overlay is thrown away, so nothing of it need ever reach a disk.
        *("-drive", f"{drive},id=root,snapshot=on,cache=unsafe,file={escape(found.disk)}"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-drive", f"{drive},id=job,readonly=on,file=/proc/self/fd/{fds['job']}"),
        *("-device", f"virtio-blk-pci,drive=job,serial={guest.JOB_SERIAL}"),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"socket,id=console,fd={fds['console']}", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=port,fd={fds['port']}"),
        *("-device", f"virtserialport,chardev=port,name={guest.PORT_NAME}"),
    ]


def escape(path: Path) -> str:
    """Write a path as a value in a qemu option list."""
    return str(path).replace(",", ",,")


@contextmanager
def qemu(
    options: Options, found: image.Image, accel: str, job: IO[bytes]
) -> Iterator[tuple[socket.socket, socket.socket, IO[bytes]]]:
    """Run qemu for the length of the block; yield our ends of the port and console, and its log."""
    port, port_far = socket.socketpair()
    console, console_far = socket.socketpair()
    with tempfile.TemporaryFile() as log, port, console:
        with port_far, console_far:
            fds = {"job": job.fileno(), "console": console_far.fileno(), "port": port_far.fileno()}
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *qemu_argv(options, found, accel, fds)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(fds.values()),
                start_new_session=True,  # a Ctrl-C is for us to handle
            )
        try:
            yield port, console, log
        finally:
            process.kill()
            process.wait()


@dataclass
class Session:
    """One boot, seen from outside: its console's last lines and how far the job has come."""

    options: Options
    deadline: float
    boot_deadline: float
    console: bytearray = field(default_factory=bytearray)
    buffer: bytearray = field(default_factory=bytearray)
    ready: bool = False
    code: int | None = None

    def follow(self, port: socket.socket, console: socket.socket) -> None:
        """Relay what the machine sends until the job has ended, the machine has, or time is up."""
        with selectors.DefaultSelector() as selector:
            selector.register(port, selectors.EVENT_READ, self.on_port)
            selector.register(console, selectors.EVENT_READ, self.on_console)
            while self.code is None and selector.get_map():
                limit = self.deadline if self.ready else min(self.deadline, self.boot_deadline)
                events = selector.select(max(0.0, limit - time.monotonic()))
                if not events and time.monotonic() >= limit:
                    return
                for key, _ in events:
                    try:
                        data = os.read(key.fd, 65536)
                    except ConnectionResetError:
                        data = b""
                    if data:
                        key.data(data)
                    else:
                        selector.unregister(key.fileobj)

    def on_console(self, data: bytes) -> None:
        """Keep the end of the console, and show it if asked."""
        self.console += data
        del self.console[:-CONSOLE_KEPT]
        if self.options.console:
            emit(sys.stderr.buffer, data)

    def on_port(self, data: bytes) -> None:
        """Act on the guest's frames."""
        self.buffer += data
        for kind, payload in guest.split_frames(self.buffer):
            if kind == guest.READY:
                self.ready = True
            elif kind == guest.STDOUT:
                emit(sys.stdout.buffer, payload)
            elif kind == guest.STDERR:
                emit(sys.stderr.buffer, payload)
            elif kind == guest.EXIT:
                self.code = int(payload)
            elif kind == guest.FAILED:
                raise host.VmError(f"in the VM: {payload.decode(errors='replace')}")

    def tail(self, log: IO[bytes]) -> str:
        """Return the last lines of the console and of qemu's own messages, for an error."""
        log.seek(0)
        text = self.console + b"\n" + log.read()
        lines = [line.rstrip() for line in text.decode(errors="replace").splitlines()]
        shown = [line for line in lines if line][-CONSOLE_SHOWN_LINES:]
        return "\n  ".join(["; its last lines:", *shown]) if shown else " without a word"


def emit(stream: IO[bytes], data: bytes) -> None:
    """Pass output on at once."""
    stream.write(data)
    stream.flush()


def boot(options: Options, found: image.Image, accel: str, job: IO[bytes], deadline: float) -> int:
    """Boot the machine and run its job; return the exit code."""
    session = Session(options, deadline, time.monotonic() + BOOT_LIMIT_S[accel])
    with qemu(options, found, accel, job) as (port, console, log):
        session.follow(port, console)
        if session.code is not None:
            return session.code
        if time.monotonic() >= deadline:
            host.say(f"timed out after {options.timeout_s:g} s")
            return EXIT_TIMEOUT
        tail = session.tail(log)
    if session.ready:
        raise host.VmError(f"the VM ended before its command did{tail}")
    raise NotBooted(f"the VM didn't boot with {accel}{tail}")


def run(options: Options) -> int:
    """Do what the command line asks for; return the exit code."""
    with image.hold() as found:
        if options.build:
            return 0
        host.install([host.QEMU])
        with tempfile.TemporaryFile() as job:
            write_job(job, options)
            deadline = time.monotonic() + options.timeout_s
            first, *others = accelerators(options.accel)
            for accel in others:
                try:
                    return boot(options, found, first, job, deadline)
                except NotBooted as error:
                    host.say(f"{error}\ntests/vm/run: trying {accel}")
                    first = accel
            return boot(options, found, first, job, deadline)


def stop(number: int, _frame: FrameType | None) -> NoReturn:
    """End by an exception, so that every `finally` runs, and only once."""
    for other in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


def main() -> int:
    """Run from the command line."""
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, stop)
    try:
        return run(parse(sys.argv[1:]))
    except host.VmError as error:
        host.say(str(error))
        return EXIT_VM_FAILED
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Stopped as signalled:
        return 128 + signalled.number


if __name__ == "__main__":
    sys.exit(main())
