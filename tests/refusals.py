"""Have Linux refuse one system call of a container's set-up, as a sandbox around us or a full machine would.

An owner of containers runs under a seccomp filter that asks *us* about each call that a set-up is made of
(seccomp_unotify(2)). By ``NSCONTAINER_HALT_AT=*`` the engine says which stage it is in, so that a call can be
named by its stage and number there, and be answered with any errno; all others go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from nscontainer.linux import seccomp, syscalls

ROOT = Path(__file__).resolve().parent.parent
CALLS: Final = (
    "mkdir mkdirat openat openat2 open_tree move_mount fsopen fsconfig fsmount mount_setattr mount "
    "pivot_root clone3 unshare setns sethostname socket socketpair bind listen ioctl setresuid "
    "setresgid setgroups setsid prctl capset seccomp memfd_create mknod mknodat symlink symlinkat "
    "chown fchown fchownat chmod fchmod fchmodat chdir fchdir close_range prlimit64 rename link "
    "linkat write pwrite64 sendto sendmsg dup2 dup3 pipe2 ftruncate flock timerfd_create "
    "timerfd_settime pidfd_open fork vfork clone setxattr fsetxattr lsetxattr"
).split()
"""What a set-up is made of. What only looks, waits or cleans up isn't refused."""

_RECV, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND, linux/seccomp.h
_CONTINUE: Final = 1
_NEW_LISTENER: Final = 1 << 3
_USER_NOTIF: Final = 0x7FC00000
_ALLOW: Final = 0x7FFF0000
_PIDFD_GETFD: Final = 438

OWNER = """
import json, sys
from nscontainer import spec
from nscontainer.engine.container import Container
from nscontainer.errors import NsContainerError
from tests import refusals
refusals.install()
for line in sys.stdin:
    asked = json.loads(line)
    try:
        made = Container.create(spec.build(asked["command"], **asked["options"]), start=True)
        record = made.drive()
        answer = {"exit_code": record["exit_code"], "exec_error": record["exec_error"]}
    except NsContainerError as error:
        answer = {"kind": type(error).__name__, "message": error.message, "hint": error.hint,
                  "row": getattr(error, "row", None), "stage": getattr(error, "stage", None),
                  "op": getattr(error, "op", None), "errno": getattr(error, "errno", None)}
    print(json.dumps(answer), flush=True)
"""


def numbers() -> dict[int, str]:
    """Name each of :data:`CALLS` that this machine has, by its number."""
    resolve = seccomp._libseccomp().seccomp_syscall_resolve_name
    found = {int(resolve(name.encode())): name for name in CALLS}
    found |= {n: name for name, n in seccomp._COMMON.items() if name in CALLS}
    return {number: name for number, name in found.items() if number >= 0}


def install() -> None:
    """Put this process, and all that comes of it, under a filter that asks; somebody must answer."""
    wanted = sorted(numbers())
    program = [(0x20, 0, 0, 0)]  # A = the call's number
    program += [(0x15, len(wanted) - i, 0, number) for i, number in enumerate(wanted)]
    program += [(0x06, 0, 0, _ALLOW), (0x06, 0, 0, _USER_NOTIF)]
    data = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(data, len(data))
    fprog = seccomp._SockFprog(len(program), ctypes.addressof(buffer))
    number = seccomp._ARCHES[os.uname().machine].seccomp_nr
    syscalls.syscall(number, "seccomp", 1, _NEW_LISTENER, ctypes.byref(fprog))


@dataclass(frozen=True, order=True)
class Call:
    """The ``nth`` (from 0) such call of a stage."""

    stage: str
    name: str
    nth: int = 0


@dataclass
class Refused:
    """An owner of containers whose system calls can be refused, one at a time."""

    top: Path
    seen: list[Call] = field(default_factory=list)
    """What the last set-up has called."""
    fired: bool = False
    """Whether the call that was to be refused has come."""
    ids: set[str] = field(default_factory=set)
    """The containers that there were."""
    _wanted: Call | None = None
    _errno: int = 0
    _stages: dict[int, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._names = numbers()
        self._process = subprocess.Popen(
            [sys.executable, "-c", OWNER], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={
                **os.environ, "PYTHONPATH": str(ROOT), "NSCONTAINER_STATE_DIR": str(self.top),
                "NSCONTAINER_HALT_AT": "*", "NSCONTAINER_STANDBY": "0",
            },
        )  # fmt: skip
        self._listener = self._take_listener()
        self._stop_r, self._stop_w = os.pipe()
        self._thread = threading.Thread(target=self._answer_all, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            while self._inhabited():  # its spawner and monitors, which still ask
                time.sleep(0.01)
            os.write(self._stop_w, b"x")
            self._thread.join(20)
            for fd in (self._listener, self._stop_r, self._stop_w):
                os.close(fd)

    def _inhabited(self) -> bool:
        poller = select.poll()
        poller.register(self._listener, 0)
        return not any(event & select.POLLHUP for _, event in poller.poll(0))

    def ask(
        self,
        command: list[str],
        refuse: Call | None = None,
        code: int = errno.EPERM,
        **options: Any,
    ) -> dict[str, Any]:
        """Run a command in a container, with one call refused; give what came of it."""
        self.seen, self.fired, self._wanted, self._errno = [], False, refuse, code
        self._stages.clear()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, "options": options}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    # --- answering ---------------------------------------------------------------------------

    def _take_listener(self) -> int:
        pidfd = os.pidfd_open(self._process.pid)
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                for name in os.listdir(f"/proc/{self._process.pid}/fd"):
                    with contextlib.suppress(OSError):
                        target = os.readlink(f"/proc/{self._process.pid}/fd/{name}")
                        if target == "anon_inode:seccomp notify":
                            return syscalls.syscall(
                                _PIDFD_GETFD, "pidfd_getfd", pidfd, int(name), 0
                            )
                time.sleep(0.01)
        finally:
            os.close(pidfd)
        message = "the owner made no listener"
        raise AssertionError(message)

    def _answer_all(self) -> None:
        while self._stop_r not in select.select([self._listener, self._stop_r], [], [])[0]:
            note = bytearray(80)
            try:
                fcntl.ioctl(self._listener, _RECV, note)
            except OSError:  # ENOENT: it was killed meanwhile
                continue
            ident, pid, _, number = struct.unpack_from("=QIIi", note)
            arguments = struct.unpack_from("=6Q", note, 32)
            code = self._errno if self._is_wanted(pid, self._names[number], arguments) else 0
            answer = struct.pack("=QqiI", ident, 0, -code, 0 if code else _CONTINUE)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._listener, _SEND, answer)

    def _is_wanted(self, pid: int, name: str, arguments: tuple[int, ...]) -> bool:
        if name == "write" and self._says_stage(pid, arguments):
            return False
        stage = self._stages.get(pid)
        if stage is None:
            return False
        call = Call(stage, name, sum((it.stage, it.name) == (stage, name) for it in self.seen))
        self.seen.append(call)
        if call != self._wanted:
            return False
        self.fired = True
        return True

    def _says_stage(self, pid: int, arguments: tuple[int, ...]) -> bool:
        fd, address, size = arguments[:3]
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}") != f"{self.top}/halted":
                return False
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                text = os.pread(memory.fileno(), size, address).decode()
        except OSError:
            return False
        with contextlib.suppress(OSError):
            self.ids |= set(os.listdir(self.top / "containers"))
        self._stages.pop(pid, None)
        if text != ".":
            self._stages[pid] = text
        return True
