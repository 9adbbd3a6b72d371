"""seccomp(2): compile a profile of system calls to a BPF program, and install one.

libseccomp (its shared object, through ctypes) turns a
:class:`~nscontainer.linux.seccomp_profile.Profile` into classic BPF. It is loaded at the first
compilation and not needed to install. What a libseccomp doesn't know of yet is decided by a few
instructions of our own in front of its program.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from nscontainer.linux import syscalls
from nscontainer.linux.seccomp_profile import Profile, Rule
from nscontainer.linux.syscalls import KernelError, kernel_error

# --- architectures -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Arch:
    """A machine: seccomp(2)'s number there, and the ABIs its kernel serves, native one first."""

    seccomp_nr: int
    tokens: tuple[int, ...]  # linux/audit.h AUDIT_ARCH_*; seccomp.h SCMP_ARCH_X32


_X86_64, _X86, _X32 = 0xC000003E, 0x40000003, 0x4000003E
_ARCHES: Final = {
    "x86_64": _Arch(317, (_X86_64, _X86, _X32)),
    "aarch64": _Arch(277, (0xC00000B7, 0x40000028)),
    "riscv64": _Arch(277, (0xC00000F3,)),
}

_COMMON: Final = {
    name: number
    for number, name in enumerate(
        (
            "pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree "
            "move_mount fsopen fsconfig fsmount fspick pidfd_open clone3 close_range openat2 "
            "pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr quotactl_fd "
            "landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret "
            "process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 "
            "map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount "
            "lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat "
            "listxattrat removexattrat"
        ).split(),
        start=424,
    )
}
"""Calls whose number is the same everywhere (asm-generic/unistd.h), for an older libseccomp."""

_OWN: Final = {_X86_64: {"uretprobe": 335}, 0xC00000F3: {"riscv_hwprobe": 258}}
_ARM_PRIVATE: Final = 0x0F0000  # arm's own calls begin here; x32's are above it too (bit 30)

# --- libseccomp --------------------------------------------------------------------------------

_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_FLTATR_ACT_BADARCH: Final = 2
_FLTATR_CTL_OPTIMIZE: Final = 8
_CMP_EQ, _CMP_MASKED_EQ = 4, 7
_UNKNOWN: Final = -1  # __NR_SCMP_ERROR; other negatives are calls of other architectures


def _errno_action(number: int) -> int:
    return 0x00050000 | number


class _ArgCmp(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


@functools.cache
def _libseccomp() -> ctypes.CDLL:
    """Load libseccomp and declare what is used of it (seccomp.h)."""
    lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    ctx, u32, integer = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int
    lib.seccomp_version.argtypes = ()
    lib.seccomp_version.restype = ctypes.POINTER(_Version)
    lib.seccomp_init.argtypes = (u32,)
    lib.seccomp_init.restype = ctx
    lib.seccomp_release.argtypes = (ctx,)
    lib.seccomp_release.restype = None
    lib.seccomp_arch_native.argtypes = ()
    lib.seccomp_arch_native.restype = u32
    lib.seccomp_arch_add.argtypes = (ctx, u32)
    lib.seccomp_arch_remove.argtypes = (ctx, u32)
    lib.seccomp_attr_set.argtypes = (ctx, integer, u32)
    lib.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    lib.seccomp_syscall_resolve_name_arch.argtypes = (u32, ctypes.c_char_p)
    lib.seccomp_rule_add_array.argtypes = (
        ctx,
        u32,
        integer,
        ctypes.c_uint,
        ctypes.POINTER(_ArgCmp),
    )
    lib.seccomp_export_bpf.argtypes = (ctx, integer)
    return lib


def _check(result: int, op: str, what: str | None = None) -> None:
    """Turn a libseccomp function's -errno into a KernelError."""
    if result < 0:
        raise kernel_error(-result, op, what)


@contextmanager
def _filter(tokens: tuple[int, ...], default: int) -> Iterator[int]:
    """Make libseccomp's filter for these ABIs, released at the end."""
    lib = _libseccomp()
    ctx: int | None = lib.seccomp_init(default)
    if ctx is None:
        raise kernel_error(errno.EINVAL, "seccomp_init")
    try:
        native = lib.seccomp_arch_native()
        for token in tokens:
            if token != native:
                _check(lib.seccomp_arch_add(ctx, token), "seccomp_arch_add", f"{token:#x}")
        if native not in tokens:
            _check(lib.seccomp_arch_remove(ctx, native), "seccomp_arch_remove")
        # An ABI that isn't listed: end the process, not (the default) just the thread.
        _check(lib.seccomp_attr_set(ctx, _FLTATR_ACT_BADARCH, _KILL_PROCESS), "seccomp_attr_set")
        # A binary tree; from libseccomp 2.5 on. Without it the program is correct but longer to
        # walk, so a refusal is not an error.
        lib.seccomp_attr_set(ctx, _FLTATR_CTL_OPTIMIZE, 2)
        yield ctx
    finally:
        lib.seccomp_release(ctx)


def _add(ctx: int, rule: Rule) -> None:
    """Add one rule's calls to a filter."""
    lib = _libseccomp()
    action = _ALLOW if rule.errno is None else _errno_action(rule.errno)
    args = (_ArgCmp * len(rule.args))(
        *(
            _ArgCmp(arg.index, _CMP_EQ, arg.value, 0)
            if arg.mask is None
            else _ArgCmp(arg.index, _CMP_MASKED_EQ, arg.mask, arg.value)
            for arg in rule.args
        )
    )
    for name in rule.names:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number != _UNKNOWN:
            result = lib.seccomp_rule_add_array(ctx, action, number, len(args), args)
            _check(result, "seccomp_rule_add_array", name)


def _export(ctx: int) -> bytes:
    """Return a filter as BPF; the function for a buffer came only with libseccomp 2.6."""
    with os.fdopen(os.memfd_create("seccomp"), "rb") as file:
        _check(_libseccomp().seccomp_export_bpf(ctx, file.fileno()), "seccomp_export_bpf")
        file.seek(0)
        return file.read()


# --- our own instructions ----------------------------------------------------------------------

_LD_NR: Final = (0x20, 0, 0, 0)  # A = seccomp_data.nr
_LD_ARCH: Final = (0x20, 0, 0, 4)  # A = seccomp_data.arch
_JEQ, _JGT, _JGE, _RET = 0x15, 0x25, 0x35, 0x06
INSN_BYTES: Final = 8
"""The size of a ``struct sock_filter``."""
MAX_INSNS: Final = 4096
"""How many the kernel takes: ``BPF_MAXINSNS``."""


def _prologue(rules: tuple[Rule, ...], newest: int, tokens: tuple[int, ...]) -> bytes:
    """Decide what libseccomp has no name for, and what is newer than the profile.

    Only loads, jumps and returns that the kernel can follow ahead of time (kernel/seccomp.c
    seccomp_is_const_allow, Linux 5.11), so that an allowed call costs nothing.
    """
    lib = _libseccomp()
    program: list[tuple[int, int, int, int]] = []
    for token in tokens:
        if token == _X32:  # shares the x86_64 token; left to libseccomp
            continue
        answers: dict[int, int] = {}
        numbers = {**_COMMON, **_OWN.get(token, {})}
        for rule in rules:
            action = _ALLOW if rule.errno is None else _errno_action(rule.errno)
            for name in set(rule.names) & numbers.keys() if not rule.args else ():
                if lib.seccomp_syscall_resolve_name_arch(token, name.encode()) < 0:
                    answers[numbers[name]] = action
        body = [(_JGT, 0, 1, newest), (_RET, 0, 0, _errno_action(errno.ENOSYS))]
        for number, action in sorted(answers.items()):
            body += [(_JEQ, 0, 1, number), (_RET, 0, 0, action)]
        program += [
            _LD_ARCH,
            (_JEQ, 0, len(body) + 2, token),
            _LD_NR,
            (_JGE, len(body), 0, _ARM_PRIVATE),
            *body,
        ]
    return b"".join(struct.pack("=HBBI", *insn) for insn in program)


# --- compile -----------------------------------------------------------------------------------


def compile_profile(
    profile: Profile,
    *,
    caps: frozenset[str],
    kernel: tuple[int, int],
    machine: str | None = None,
) -> bytes:
    """Compile a profile to a BPF program for :func:`install`.

    Parameters
    ----------
    profile
        What is allowed.
    caps
        The container's capabilities, as ``CAP_SYS_ADMIN``: rules depend on them.
    kernel
        The Linux version that will run it, as (6, 18).
    machine
        As ``uname -m`` has it; None is this one.

    Returns
    -------
    bytes
        An array of ``struct sock_filter``.

    Raises
    ------
    KernelError
        libseccomp refused; the path is the call's name. ENOSYS: no table for this machine.
    OSError
        There is no libseccomp here: see :func:`available`.
    """
    machine = machine or os.uname().machine
    rules, tokens = _applying(profile, caps, kernel, machine), _tokens(machine)
    with _filter(tokens, _errno_action(profile.errno)) as ctx:
        for rule in rules:
            _add(ctx, rule)
        return _prologue(rules, profile.newest, tokens) + _export(ctx)


_REVISION: Final = 1  # to raise when the code above makes another program of the same rules


def _tokens(machine: str) -> tuple[int, ...]:
    if machine not in _ARCHES:
        raise kernel_error(errno.ENOSYS, "seccomp_arch_add", machine)
    return _ARCHES[machine].tokens


def _applying(
    profile: Profile, caps: frozenset[str], kernel: tuple[int, int], machine: str
) -> tuple[Rule, ...]:
    return tuple(
        rule
        for rule in profile.rules
        # One that says what is answered anyway is refused by libseccomp (EACCES).
        if rule.errno != profile.errno and rule.applies(caps=caps, kernel=kernel, machine=machine)
    )


def fingerprint(
    profile: Profile,
    *,
    caps: frozenset[str],
    kernel: tuple[int, int],
    machine: str | None = None,
) -> str:
    """Hash all that :func:`compile_profile`'s program depends on, for a cache's key.

    That is the rules in force, the machine, libseccomp's version and what that libseccomp doesn't
    know (a distribution may add calls to it without a new version).
    """
    machine = machine or os.uname().machine
    rules = _applying(profile, caps, kernel, machine)
    version = _libseccomp().seccomp_version().contents
    what = repr(
        (
            _REVISION,
            (version.major, version.minor, version.micro),
            machine,
            profile.errno,
            [(rule.names, rule.args, rule.errno) for rule in rules],
            _prologue(rules, profile.newest, _tokens(machine)),
        )
    )
    return hashlib.sha256(what.encode()).hexdigest()


# --- install -----------------------------------------------------------------------------------

_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_SPEC_ALLOW: Final = 4


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install(program: bytes) -> None:
    """Put the calling thread, and all it makes from here on, under a program: seccomp(2).

    It can't be taken off. Needs no_new_privs (:func:`nscontainer.linux.prctl.set_no_new_privs`) or
    CAP_SYS_ADMIN in the user namespace.

    Before Linux 5.16 a filter also slows down memory loads (a Spectre v4 mitigation: Python loops
    took twice as long, runc #2430); it is asked not to, as runc and crun do.

    Raises
    ------
    KernelError
        EACCES: neither privilege is there; EINVAL: not a program, or too long (4096 instructions).
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = _SockFprog(len(program) // INSN_BYTES, ctypes.addressof(buffer))
    _seccomp(_SECCOMP_FILTER_FLAG_SPEC_ALLOW, ctypes.byref(fprog))


def _seccomp(flags: int, fprog: object) -> None:
    arch = _ARCHES.get(os.uname().machine)
    if arch is None:
        raise kernel_error(errno.ENOSYS, "seccomp", detail=f"no table for {os.uname().machine}")
    syscalls.syscall(arch.seccomp_nr, "seccomp", _SECCOMP_SET_MODE_FILTER, flags, fprog)


def available() -> str | None:
    """Return None where profiles can be compiled and installed, else what is in the way."""
    try:
        _libseccomp()
    except OSError:
        return "libseccomp.so.2 is not installed (Debian, Ubuntu: libseccomp2; Fedora: libseccomp)"
    try:
        # The kernel copies the program before it asks for privileges (kernel/seccomp.c
        # seccomp_set_mode_filter): EFAULT means that it has filters.
        _seccomp(0, None)
    except KernelError as error:
        if error.errno == errno.EFAULT:
            return None
        return f"this kernel (or an outer sandbox) refuses seccomp filters: {error}"
    return None
