"""The seccomp filter: what it answers, to whom, and that it really holds in a process."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nscontainer.linux import caps, clone, prctl, seccomp, seccomp_cache, syscalls
from nscontainer.linux.seccomp_profile import DEFAULT, NEWEST, REFUSED_FAMILIES, Profile, Rule

DOCKER = frozenset(caps.DOCKER_DEFAULT)
KERNEL = (6, 18)
PEER = Path("/usr/share/containers/seccomp.json")
REQUIRED = os.environ.get("NSCONTAINER_REQUIRE", "").split()

ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
X86_64, X86, AARCH64, ARM, RISCV64 = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028, 0xC00000F3
X32_BIT = 0x40000000
AF_ALG, AF_VSOCK = 38, 40
CLONE_THREAD_FLAGS = 0x3D0F00  # what glibc's pthread_create asks for


def need_seccomp() -> None:
    """Skip where this machine has no seccomp or no libseccomp; fail where it is to have anything."""
    if (reason := seccomp.available()) is not None:
        if REQUIRED:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def program() -> bytes:
    """Give the default profile for Docker's capabilities on this machine."""
    need_seccomp()
    return seccomp.compile_profile(DEFAULT, caps=DOCKER, kernel=KERNEL)


@pytest.fixture(scope="module")
def program_x86_64() -> bytes:
    """Give the default profile for an x86_64 machine, whichever this is."""
    need_seccomp()
    return seccomp.compile_profile(DEFAULT, caps=DOCKER, kernel=KERNEL, machine="x86_64")


# --- what the program answers, by a BPF machine of our own --------------------------------------


def answer(program: bytes, arch: int, number: int, *args: int) -> int:
    """Run a BPF program on a system call, as the kernel would, and return its action."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(*args, 0, 0, 0, 0, 0, 0)[:6])
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    while True:
        op, jump_true, jump_false, k = code[at]
        at += 1
        if op == 0x20:  # ld [k]
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif op == 0x54:  # and #k
            accumulator &= k
        elif op == 0x05:  # ja
            at += k
        elif op == 0x06:  # ret
            return int(k)
        else:
            taken = {
                0x15: accumulator == k,
                0x25: accumulator > k,
                0x35: accumulator >= k,
                0x45: bool(accumulator & k),
            }[op]
            at += jump_true if taken else jump_false


def refused(number: int) -> int:
    """Return the action that answers an errno."""
    return 0x00050000 | number


NEWER = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "uretprobe": 335,
}
"""Calls that some libseccomp in use has no name for, with x86_64's numbers."""


def resolve(name: str) -> int:
    """Return a call's number by libseccomp, negative where it has none on this machine."""
    return int(ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name(name.encode()))


def test_exactly_the_listed_calls_are_allowed(program: bytes) -> None:
    """Of all numbers there are, the ones let through are those whose name is in the profile."""
    if os.uname().machine != "x86_64":
        pytest.skip("has x86_64's numbers")
    rules = [r for r in DEFAULT.rules if r.applies(caps=DOCKER, kernel=KERNEL, machine="x86_64")]
    names = {name for r in rules if r.errno is None and not r.args for name in r.names}
    listed = {NEWER.get(name, resolve(name)) for name in names}
    allowed = {n for n in range(600) if answer(program, X86_64, n) == ALLOW}
    by_argument = {resolve("clone"), resolve("personality")}  # their first argument is 0 here
    assert allowed == {n for n in listed if n >= 0} | by_argument


def test_no_name_is_misspelt() -> None:
    """Every name in the profile is a system call of some architecture."""
    need_seccomp()
    late = {*NEWER, "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules", "riscv_hwprobe"}
    names = {name for rule in DEFAULT.rules for name in rule.names} - late
    assert {name for name in names if resolve(name) == -1} == set()


@pytest.mark.parametrize(
    ("arch", "number"), [(X86_64, n) for n in NEWER.values()] + [(X86, 451), (X86, 452), (X86, 462)]
)
def test_calls_newer_than_libseccomp_are_allowed(
    program_x86_64: bytes, arch: int, number: int
) -> None:
    """A call that an old libseccomp can't name is let through all the same."""
    assert answer(program_x86_64, arch, number) == ALLOW


@pytest.mark.parametrize("arch", [X86_64, X86])
@pytest.mark.parametrize("number", [NEWEST + 1, 500, 511, 1000])
def test_calls_newer_than_the_profile_are_enosys(
    program_x86_64: bytes, arch: int, number: int
) -> None:
    """What wasn't there when the profile was written looks absent, so that a libc falls back."""
    assert answer(program_x86_64, arch, number) == refused(errno.ENOSYS)


def test_unlisted_calls_are_eperm(program_x86_64: bytes) -> None:
    """What is left out on purpose is forbidden, not absent."""
    for number in (165, 166, 246, 250, 272, 304, 308, 321, 323, 425, 426, 427, 459):
        assert answer(program_x86_64, X86_64, number) == refused(errno.EPERM)
    assert answer(program_x86_64, X86_64, -1) == refused(errno.EPERM)


def test_another_abi_ends_the_process(program_x86_64: bytes) -> None:
    """A call by an ABI that isn't in the filter does not get through under another's numbers."""
    assert answer(program_x86_64, AARCH64, 39) == KILL_PROCESS


@pytest.mark.parametrize("family", range(60))
def test_address_families(program_x86_64: bytes, family: int) -> None:
    """Sockets of the refused families are refused, in every ABI, and no other."""
    known = 1 <= family <= 45
    expected = ALLOW if known and family not in REFUSED_FAMILIES else refused(errno.EPERM)
    assert answer(program_x86_64, X86_64, 41, family) == expected
    assert answer(program_x86_64, X86_64, X32_BIT | 41, family) == expected
    assert answer(program_x86_64, X86, 359, family) == expected
    # The kernel takes an int: high bits must not turn a refused family into another.
    assert answer(program_x86_64, X86_64, 41, family | 1 << 32) == refused(errno.EPERM)


@pytest.mark.parametrize("call", range(24))
def test_socketcall_is_no_way_around(program_x86_64: bytes, call: int) -> None:
    """libseccomp adds socketcall for each socket rule; the profile's refusal outweighs that."""
    assert answer(program_x86_64, X86, 102, call) == refused(errno.ENOSYS)


NEW_NAMESPACES = [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]


@pytest.mark.parametrize("flag", NEW_NAMESPACES)
@pytest.mark.parametrize(("arch", "number"), [(X86_64, 56), (X86_64, X32_BIT | 56), (X86, 120)])
def test_clone_makes_no_namespace(program_x86_64: bytes, arch: int, number: int, flag: int) -> None:
    """No ABI's clone makes a namespace, alone or along with a thread's flags."""
    assert answer(program_x86_64, arch, number, signal.SIGCHLD) == ALLOW
    assert answer(program_x86_64, arch, number, CLONE_THREAD_FLAGS) == ALLOW
    assert answer(program_x86_64, arch, number, flag) == refused(errno.EPERM)
    assert answer(program_x86_64, arch, number, flag | CLONE_THREAD_FLAGS) == refused(errno.EPERM)


def test_sys_admin_may_make_namespaces() -> None:
    """With CAP_SYS_ADMIN, clone, clone3, unshare and mount are let through."""
    need_seccomp()
    held = DOCKER | {"CAP_SYS_ADMIN"}
    program = seccomp.compile_profile(DEFAULT, caps=held, kernel=KERNEL, machine="x86_64")
    for number in (56, 435, 272, 165, 459):
        assert answer(program, X86_64, number, 0x10000000) == ALLOW


@pytest.mark.parametrize(
    ("cap", "number"),
    [
        ("CAP_SYS_CHROOT", 161),
        ("CAP_SYS_TIME", 227),
        ("CAP_SYS_NICE", 237),
        ("CAP_SYSLOG", 103),
        ("CAP_BPF", 321),
        ("CAP_PERFMON", 298),
        ("CAP_SYS_MODULE", 313),
        ("CAP_SYS_BOOT", 169),
        ("CAP_DAC_READ_SEARCH", 304),
        ("CAP_SYS_PTRACE", 438),
        ("CAP_SYS_RAWIO", 172),
        ("CAP_SYS_PACCT", 163),
        ("CAP_SYS_TTY_CONFIG", 153),
    ],
)
def test_a_capability_opens_its_calls(cap: str, number: int) -> None:
    """A call that belongs to a capability is let through with it and refused without."""
    need_seccomp()
    for held, expected in ((frozenset({cap}), ALLOW), (frozenset[str](), refused(errno.EPERM))):
        program = seccomp.compile_profile(DEFAULT, caps=held, kernel=KERNEL, machine="x86_64")
        assert answer(program, X86_64, number) == expected


@pytest.mark.parametrize(
    ("kernel", "expected"), [((4, 7), refused(errno.EPERM)), ((4, 8), ALLOW), ((6, 1), ALLOW)]
)
def test_ptrace_needs_linux_4_8(kernel: tuple[int, int], expected: int) -> None:
    """Before Linux 4.8 a tracer could get around the filter."""
    need_seccomp()
    program = seccomp.compile_profile(DEFAULT, caps=DOCKER, kernel=kernel, machine="x86_64")
    assert answer(program, X86_64, 101) == expected


def test_other_machines() -> None:
    """The profile compiles for arm and riscv, with their numbers."""
    need_seccomp()
    arm = seccomp.compile_profile(DEFAULT, caps=DOCKER, kernel=KERNEL, machine="aarch64")
    riscv = seccomp.compile_profile(DEFAULT, caps=DOCKER, kernel=KERNEL, machine="riscv64")
    for program, arch in ((arm, AARCH64), (riscv, RISCV64)):
        assert answer(program, arch, 56) == ALLOW  # openat
        assert answer(program, arch, 40) == refused(errno.EPERM)  # mount
        assert answer(program, arch, 435) == refused(errno.ENOSYS)  # clone3
        assert answer(program, arch, 462) == ALLOW  # mseal
        assert answer(program, arch, 198, AF_VSOCK) == refused(errno.EPERM)  # socket
        assert answer(program, arch, 198, socket.AF_INET) == ALLOW
    assert answer(arm, ARM, 322) == ALLOW  # openat
    assert answer(arm, ARM, 21) == refused(errno.EPERM)  # mount
    assert answer(arm, ARM, 0xF0002) == ALLOW  # cacheflush, one of arm's own
    assert answer(riscv, RISCV64, 258) == ALLOW  # riscv_hwprobe
    with pytest.raises(syscalls.KernelError, match="pdp11"):
        seccomp.compile_profile(DEFAULT, caps=DOCKER, kernel=KERNEL, machine="pdp11")


def test_the_program_is_short_enough(program_x86_64: bytes) -> None:
    """With every capability too the kernel takes it: at most 4096 instructions."""
    everything = frozenset(caps.NAMES)
    longest = seccomp.compile_profile(DEFAULT, caps=everything, kernel=KERNEL, machine="x86_64")
    for program in (program_x86_64, longest):
        assert len(program) % seccomp.INSN_BYTES == 0
        assert len(program) // seccomp.INSN_BYTES <= seccomp.MAX_INSNS


# --- against a peer -----------------------------------------------------------------------------

_2022 = "newer than the peer, which is of 2022"
OURS_ONLY = {
    **dict.fromkeys(NEWER, _2022),
    "futex_waitv": _2022,
    "io_pgetevents": "asynchronous I/O like io_getevents; allowed by moby since 2019",
    "io_pgetevents_time64": "the same on 32 bits",
    "vmsplice": "allowed by moby since 2020: nothing that splice doesn't do",
}
"""What is allowed here without a capability and not by the peer, and why."""

_ADMIN = "only with CAP_SYS_ADMIN, as moby: podman nests containers by default, we don't"
_OLD = "i386's old way, unused by any libc of this century; not in moby's list either"
PEER_ONLY = {
    **dict.fromkeys(
        "clone3 fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree setns "
        "umount umount2 unshare".split(),
        _ADMIN,
    ),
    **dict.fromkeys("readdir sigaction signal sigpending sigsuspend syscall timerfd".split(), _OLD),
    **dict.fromkeys(("get_mempolicy", "mbind", "set_mempolicy"), "only with CAP_SYS_NICE, as moby"),
    "keyctl": "keyrings belong to no namespace",
    "pidfd_getfd": "only with CAP_SYS_PTRACE, as moby",
    "pivot_root": "not in moby's list; useless without CAP_SYS_ADMIN",
    "reboot": "only with CAP_SYS_BOOT, as moby",
    "socketcall": "a way around the refused address families",
    "syslog": "only with CAP_SYSLOG or CAP_SYS_ADMIN, as moby",
}
"""What the peer allows without a capability and we don't, and why."""

PEER_ONLY_WITH_CAP = {"query_module": "gone from Linux 2.6"}


def ours(held: frozenset[str]) -> set[str]:
    """List the calls that our profile allows, under whatever condition on their arguments."""
    rules = (r for r in DEFAULT.rules if r.applies(caps=held, kernel=KERNEL, machine="x86_64"))
    return {name for rule in rules if rule.errno is None for name in rule.names}


def peers(held: frozenset[str]) -> set[str]:
    """List the calls that the peer's profile allows."""
    allowed: set[str] = set()
    for rule in json.loads(PEER.read_text())["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if (
            rule["action"] == "SCMP_ACT_ALLOW"
            and "amd64" in includes.get("arches", ["amd64"])
            and held.issuperset(includes.get("caps", ()))
            and held.isdisjoint(excludes.get("caps", ()))
        ):
            allowed.update(rule["names"])
    return allowed


@pytest.fixture
def _peer() -> None:
    if not PEER.exists():
        missing = f"{PEER} is missing: apt-get install golang-github-containers-common"
        if "peers" in REQUIRED:
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


@pytest.mark.usefixtures("_peer")
def test_peer_without_capabilities() -> None:
    """Podman's default profile allows the same calls, but for differences that have a reason."""
    nothing = frozenset[str]()
    assert ours(nothing) - peers(nothing) == OURS_ONLY.keys()
    assert peers(nothing) - ours(nothing) == PEER_ONLY.keys()


@pytest.mark.usefixtures("_peer")
@pytest.mark.parametrize("cap", caps.NAMES)
def test_peer_with_a_capability(cap: str) -> None:
    """What a capability opens in podman's profile it opens in ours, or it is open anyway."""
    held = frozenset({cap})
    opened = peers(held) - peers(frozenset())
    assert opened - ours(held) - PEER_ONLY_WITH_CAP.keys() == set()


# --- in real processes --------------------------------------------------------------------------


def in_child(action: Callable[[], Any], program: bytes | None) -> Any:
    """Fork, install a program (or none), and return what ``action`` gave there.

    A child that is killed gives ``"signal N"``, one that fails the exception's text.
    """
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            if program is not None:
                prctl.set_no_new_privs()
                seccomp.install(program)
            result = action()
        except BaseException as error:  # noqa: BLE001 - goes to the parent
            result = f"{type(error).__name__}: {error}"
        os.write(into, json.dumps(result).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as file:
        text = file.read()
    status = os.waitpid(pid, 0)[1]
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else json.loads(text)


def errno_of(number: int, *args: int) -> int:
    """Make a raw system call; return its errno, 0 where it succeeded."""
    result = syscalls.libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, args))
    return ctypes.get_errno() if result < 0 else 0


REFUSALS = {
    "mount": ((165, 0, 0, 0, 0, 0), errno.EPERM),
    "umount2": ((166, 0, 0), errno.EPERM),
    "unshare a user namespace": ((272, clone.CLONE_NEWUSER), errno.EPERM),
    "clone3": ((435, 0, 0), errno.ENOSYS),
    "clone a user namespace": ((56, clone.CLONE_NEWUSER | signal.SIGCHLD, 0), errno.EPERM),
    "keyctl": ((250, 0, -3, 0), errno.EPERM),
    "bpf": ((321, 99, 0, 0), errno.EPERM),
    "io_uring_setup": ((425, 1, 0), errno.EPERM),
    "setns": ((308, -1, 0), errno.EPERM),
    "open_by_handle_at": ((304, -1, 0, 0), errno.EPERM),
    "a vsock": ((41, AF_VSOCK, socket.SOCK_STREAM, 0), errno.EPERM),
    "a crypto socket": ((41, AF_ALG, socket.SOCK_SEQPACKET, 0), errno.EPERM),
    "x32 mount": ((X32_BIT | 165, 0, 0, 0, 0, 0), errno.EPERM),
    "x32 unshare": ((X32_BIT | 272, clone.CLONE_NEWUSER), errno.EPERM),
    "a call of the future": ((NEWEST + 1, -1), errno.ENOSYS),
}
SAME_ANYWAY = {"a call of the future", "keyctl", "io_uring_setup", "bpf", "clone a user namespace"}
"""What this kernel may answer so by itself, depending on its build and set-up, and a fork."""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="has x86_64's numbers")
@pytest.mark.parametrize("what", REFUSALS)
def test_refusals_hold_in_a_process(program: bytes, what: str) -> None:
    """A filtered process gets the expected errno, and an unfiltered one another answer."""
    call, expected = REFUSALS[what]
    assert in_child(lambda: errno_of(*call), program) == expected
    if what not in SAME_ANYWAY and os.geteuid() == 0:
        assert in_child(lambda: errno_of(*call), None) != expected


def test_x32_getpid_reaches_the_kernel(program: bytes) -> None:
    """An x32 call that is allowed is judged by the kernel (which mostly has no x32), not by us."""
    if os.uname().machine != "x86_64":
        pytest.skip("has x86_64's numbers")
    number = X32_BIT | 39
    assert in_child(lambda: errno_of(number), program) == in_child(lambda: errno_of(number), None)


def int_0x80(number: int, *args: int) -> int:
    """Make a system call by the 32-bit ABI from a 64-bit process; return the kernel's result."""
    code = bytes.fromhex("53 89f8 89f3 87ca 31f6 31ff cd80 4898 5b c3")
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    function = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_uint32] * 4)(address)
    return int(function(number, *(*args, 0, 0, 0)[:3]))


@pytest.fixture
def _i386() -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the i386 ABI is x86's")
    if in_child(lambda: int_0x80(20) == os.getpid(), None) is not True:
        pytest.skip("this kernel has no CONFIG_IA32_EMULATION")


@pytest.mark.usefixtures("_i386")
@pytest.mark.parametrize(
    ("number", "args", "expected"),
    [
        (21, (), errno.EPERM),  # mount
        (310, (clone.CLONE_NEWUSER,), errno.EPERM),  # unshare
        (120, (clone.CLONE_NEWUSER,), errno.EPERM),  # clone
        (359, (AF_VSOCK, socket.SOCK_STREAM), errno.EPERM),  # socket
        (102, (1, 0), errno.ENOSYS),  # socketcall(SYS_SOCKET)
        (288, (), errno.EPERM),  # keyctl
        (357, (), errno.EPERM),  # bpf
        (425, (), errno.EPERM),  # io_uring_setup
        (435, (), errno.ENOSYS),  # clone3
    ],
)
def test_int_0x80_is_no_way_around(
    program: bytes, number: int, args: tuple[int, ...], expected: int
) -> None:
    """The 32-bit ABI, open to every 64-bit program, is filtered by its own numbers."""
    assert in_child(lambda: int_0x80(number, *args), program) == -expected


@pytest.mark.usefixtures("_i386")
def test_int_0x80_works(program: bytes) -> None:
    """A harmless call by the 32-bit ABI still works."""
    assert in_child(lambda: int_0x80(20) == os.getpid(), program) is True


def use_files() -> str:
    """Write a file, map it and read it back, all without a name."""
    fd = os.memfd_create("x")
    os.write(fd, b"hello")
    with mmap.mmap(fd, 5) as view:
        return view[:5].decode()


def use_fork() -> int:
    """Fork, and wait for the child."""
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def use_threads() -> int:
    """Run four threads: glibc tries clone3, gets ENOSYS and uses clone."""
    numbers: list[int] = []
    threads = [threading.Thread(target=numbers.append, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(numbers)


def use_sockets() -> str:
    """Talk to oneself over TCP, with epoll."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
        server.accept()[0] as other,
        select.epoll() as poll,
    ):
        poll.register(other, select.EPOLLIN)
        one.sendall(b"hi")
        return other.recv(2).decode() if poll.poll(5) else "nothing came"


def use_subprocess() -> str:
    """Execute another program (posix_spawn or vfork) and read its output."""
    return subprocess.run(["/bin/echo", "hi"], stdout=subprocess.PIPE, check=True).stdout.decode()


def use_python() -> str:
    """Start another Python with threads and processes of its own."""
    code = (
        "import concurrent.futures as f, math\n"
        "with f.ProcessPoolExecutor(2) as p, f.ThreadPoolExecutor(2) as t:\n"
        "    print(sum(p.map(abs, [-1, 2])) + sum(t.map(abs, [-3, 4])))\n"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode().strip()


def use_signals() -> bool:
    """Take a timer's signal."""
    got: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, _frame: got.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    end = time.monotonic() + 5
    while not got and time.monotonic() < end:
        time.sleep(0.01)
    return bool(got)


def use_set_up() -> list[int]:
    """Do what a container's set-up may still do after the filter: drop capabilities, set a name."""
    keep = caps.capget().permitted & caps.numbers({"CAP_CHOWN"})
    caps.apply(keep, caps.bounding())
    prctl.set_name("filtered")
    return sorted(caps.capget().effective - keep)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (use_files, "hello"),
        (use_fork, 7),
        (use_threads, 6),
        (use_sockets, "hi"),
        (use_subprocess, "hi\n"),
        (use_python, "10"),
        (use_signals, True),
        (use_set_up, []),
    ],
)
def test_ordinary_programs_work(
    program: bytes, action: Callable[[], object], expected: object
) -> None:
    """Files, processes, threads, sockets and signals work under the filter."""
    assert in_child(action, program) == expected


def test_the_kernel_says_it_is_filtered(program: bytes) -> None:
    """/proc says filter mode after an install, once per install."""

    def read_status() -> list[str]:
        lines = Path("/proc/self/status").read_text().splitlines()
        return [line.split()[1] for line in lines if line.startswith("Seccomp")]

    before = in_child(read_status, None)
    after = in_child(read_status, program)
    assert after[0] == "2"
    assert [int(n) for n in after[1:]] == [int(n) + 1 for n in before[1:]]


def test_install_needs_a_privilege(program: bytes) -> None:
    """Without no_new_privs or CAP_SYS_ADMIN the kernel refuses, and the error names the call."""
    if prctl.get_no_new_privs():
        pytest.skip("this process has no_new_privs already")

    def install_without() -> None:
        caps.capset(caps.CapSets(frozenset(), frozenset(), frozenset()))
        seccomp.install(program)

    text = in_child(install_without, None)
    assert f"seccomp: [Errno {errno.EACCES}]" in text


def test_install_refuses_nonsense() -> None:
    """What isn't a program is EINVAL, and the process goes on unfiltered."""
    need_seccomp()
    allow = struct.pack("=HBBI", 6, 0, 0, ALLOW)
    for junk in (b"", b"\0" * 4, b"\xff" * 16, allow * (seccomp.MAX_INSNS + 1)):
        text = in_child(lambda: None, junk)
        assert f"seccomp: [Errno {errno.EINVAL}]" in text


def test_available_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No libseccomp: one line that names the package."""

    def load() -> None:
        message = "libseccomp.so.2: cannot open shared object file"
        raise OSError(message)

    monkeypatch.setattr(seccomp, "_libseccomp", load)
    assert "libseccomp2" in (seccomp.available() or "")


def test_available_reports_a_sandbox(program: bytes) -> None:
    """Where an outer filter refuses seccomp(2), that is said, and nothing is raised."""
    deny = Rule(purpose="a sandbox", names=("seccomp",), errno=errno.ENOSYS)
    strict = Profile(rules=(deny, *DEFAULT.rules), errno=errno.EPERM, newest=NEWEST)
    sandbox = seccomp.compile_profile(strict, caps=DOCKER, kernel=KERNEL)
    assert "refuses seccomp filters" in in_child(seccomp.available, sandbox)
    assert in_child(seccomp.available, program) is None


# --- the cache ----------------------------------------------------------------------------------


def cached(directory: Path, held: frozenset[str] = DOCKER) -> bytes:
    """Compile the default profile by way of a cache."""
    return seccomp_cache.compile_cached(DEFAULT, caps=held, kernel=KERNEL, directory=directory)


@pytest.fixture
def no_compiler(program: bytes, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give a function after whose call nothing is compiled but a mark."""
    assert program

    def turn_off() -> None:
        monkeypatch.setattr(seccomp, "compile_profile", lambda *_a, **_k: b"compiled")

    return turn_off


def test_cache_keeps_programs(
    tmp_path: Path, program: bytes, no_compiler: Callable[[], None]
) -> None:
    """The second time the program comes from the file; directory and file are the owner's."""
    directory = tmp_path / "a" / "seccomp"
    assert cached(directory) == program
    (file,) = directory.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    no_compiler()
    assert cached(directory) == program


def test_cache_tells_programs_apart(tmp_path: Path, program: bytes) -> None:
    """Capabilities that matter to the profile make another program, others don't."""
    assert cached(tmp_path) == program == cached(tmp_path, DOCKER | {"CAP_LEASE"})
    assert cached(tmp_path, DOCKER | {"CAP_SYS_ADMIN"}) != program
    assert len(list(tmp_path.iterdir())) == 2


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _to_symlink(file: Path) -> None:
    file.rename(file.with_suffix(".elsewhere"))
    file.symlink_to(file.with_suffix(".elsewhere"))


def _to_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    "harm",
    [
        _flip,
        _to_symlink,
        _to_fifo,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-8]),
        lambda file: file.chmod(0o620),
        lambda file: file.chmod(0o602),
    ],
)
def test_cache_trusts_no_damaged_file(
    tmp_path: Path, no_compiler: Callable[[], None], harm: Callable[[Path], object]
) -> None:
    """A file that was changed, cut, replaced or is open to others is compiled anew, and mended."""
    program = cached(tmp_path)
    (file,) = tmp_path.iterdir()
    harm(file)
    no_compiler()
    assert cached(tmp_path) == b"compiled"
    assert b"compiled" in file.read_bytes() != program


def test_cache_trusts_no_file_of_another_program(
    tmp_path: Path, no_compiler: Callable[[], None]
) -> None:
    """A valid file under another program's name (a laxer one) isn't taken for it."""
    cached(tmp_path, frozenset(caps.NAMES))
    (lax,) = tmp_path.iterdir()
    cached(tmp_path)
    (strict,) = set(tmp_path.iterdir()) - {lax}
    lax.replace(strict)
    no_compiler()
    assert cached(tmp_path) == b"compiled"


@pytest.mark.root
def test_cache_trusts_no_other_user(tmp_path: Path, no_compiler: Callable[[], None]) -> None:
    """A file, or a directory, of another user isn't used."""
    cached(tmp_path)
    (file,) = tmp_path.iterdir()
    os.chown(file, 65534, -1)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, -1)
    no_compiler()
    assert cached(tmp_path) == b"compiled"
    assert cached(theirs) == b"compiled"
    assert list(theirs.iterdir()) == []


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_cache_uses_no_open_directory(tmp_path: Path, program: bytes, mode: int) -> None:
    """Nothing is written to or read from a directory that others may write."""
    tmp_path.chmod(mode)
    assert cached(tmp_path) == program
    assert list(tmp_path.iterdir()) == []


def test_cache_does_without(tmp_path: Path, program: bytes) -> None:
    """Where the directory can't be made the program is compiled all the same."""
    (tmp_path / "file").touch()
    assert cached(tmp_path / "file") == program
    assert cached(tmp_path / "file" / "below") == program
    (tmp_path / "link").symlink_to(tmp_path)
    assert cached(tmp_path / "link") == program
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}
