"""What a seccomp profile is, and the default one: Docker's policy, as data grouped by purpose.

:data:`DEFAULT` follows moby's (``github.com/moby/profiles``, ``seccomp/default_linux.go``, of 2026)
and is stricter in one thing: ``socketcall``, by which 32-bit x86 programs make sockets, is refused.
Its arguments lie in memory, where no filter can check the address family, so it is a way around
:data:`REFUSED_FAMILIES`. moby refused it too (#52494), then left it to AppArmor and SELinux
policies (#52547), which aren't loaded here. It costs the 32-bit glibc its sockets.

Refused by not being here:

* ``io_uring_*``: does unseen what a filter forbids, and has been a steady source of escapes
  (moby #46762);
* ``keyctl``, ``add_key``, ``request_key``: keyrings belong to no namespace;
* ``userfaultfd``: stops the kernel in mid-copy, which wins races for an exploit;
* ``pivot_root``, ``swapon``, ``kexec_load``, ``move_pages``: the machine's business, or another
  process's;
* ``_sysctl``, ``nfsservctl``, ``uselib``, ``ustat``, ``sysfs``, ``vm86`` and the like: obsolete.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

# --- what a profile is -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arg:
    """A condition on an argument: equal to ``value``, in the bits of ``mask`` where there is one.

    All 64 bits are compared; a call that takes an int may be handed more, so write only conditions
    that *allow* (flatpak's CVE-2019-10063 was one that denied).
    """

    index: int
    value: int
    mask: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Calls that are treated alike: allowed, or answered with ``errno``.

    Conditions are joined by *and*; a second rule for the same name is an *or*.

    Parameters
    ----------
    purpose
        What the calls are for, or why the rule is.
    names
        System calls, by their kernel names. Unknown ones are passed over.
    args
        Conditions on the arguments.
    errno
        None to allow.
    cap, without_cap
        Only for a container with, or without, this capability.
    machines
        Only on these, as ``uname -m`` names them; empty is all.
    min_kernel
        Only from this Linux version on.
    """

    purpose: str
    names: tuple[str, ...]
    args: tuple[Arg, ...] = ()
    errno: int | None = None
    cap: str | None = None
    without_cap: str | None = None
    machines: tuple[str, ...] = ()
    min_kernel: tuple[int, int] = (0, 0)

    def applies(self, *, caps: frozenset[str], kernel: tuple[int, int], machine: str) -> bool:
        """Return whether the rule is in force for such a container on such a host."""
        return (
            (self.cap is None or self.cap in caps)
            and (self.without_cap is None or self.without_cap not in caps)
            and (not self.machines or machine in self.machines)
            and kernel >= self.min_kernel
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """Rules, and what else is answered.

    Calls numbered above ``newest`` weren't there when the profile was written: they are answered
    ENOSYS, so that a libc falls back on an older one as it would on an older kernel; EPERM breaks
    it (as runc's ``patchbpf`` does).
    """

    rules: tuple[Rule, ...]
    errno: int
    newest: int


NEWEST: Final = 466
"""removexattrat, of Linux 6.13: the last call that was judged here."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# --- what every container may do, by purpose ---------------------------------------------------

_ALWAYS: Final[dict[str, str]] = {
    "open, make and close files": """
        open openat openat2 creat close close_range dup dup2 dup3 fcntl fcntl64 flock
        name_to_handle_at memfd_create memfd_secret mknod mknodat umask
    """,
    "read and write": """
        read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2
        lseek _llseek readahead fadvise64 fadvise64_64 cachestat
        copy_file_range sendfile sendfile64 splice tee vmsplice
        sync syncfs fsync fdatasync sync_file_range
        truncate truncate64 ftruncate ftruncate64 fallocate ioctl
    """,
    "directories and links": """
        mkdir mkdirat rmdir chdir fchdir getcwd getdents getdents64
        link linkat symlink symlinkat readlink readlinkat
        rename renameat renameat2 unlink unlinkat
    """,
    "what a file is": """
        stat stat64 fstat fstat64 lstat lstat64 fstatat64 newfstatat statx
        statfs statfs64 fstatfs fstatfs64 statmount listmount
        access faccessat faccessat2 utime utimes futimesat utimensat utimensat_time64
        chmod fchmod fchmodat fchmodat2
        chown chown32 fchown fchown32 fchownat lchown lchown32
    """,
    "extended attributes": """
        getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat
        listxattr llistxattr flistxattr listxattrat
        removexattr lremovexattr fremovexattr removexattrat
    """,
    "be told of changes": """
        inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark
    """,
    "wait for many": """
        select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old
        epoll_pwait epoll_pwait2 eventfd eventfd2
        io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64
    """,
    "memory": """
        brk mmap mmap2 munmap mremap mprotect madvise mincore msync remap_file_pages
        mlock mlock2 mlockall munlock munlockall
        pkey_alloc pkey_free pkey_mprotect map_shadow_stack mseal membarrier process_mrelease
    """,
    "processes and threads": """
        fork vfork execve execveat exit exit_group wait4 waitid waitpid
        getpid gettid getppid getpgid setpgid getpgrp getsid setsid
        pidfd_open pidfd_send_signal set_tid_address set_robust_list get_robust_list
        futex futex_time64 futex_wait futex_wake futex_requeue futex_waitv rseq
        set_thread_area get_thread_area prctl restart_syscall uretprobe
    """,
    "scheduling": """
        sched_yield getcpu sched_getaffinity sched_setaffinity sched_getattr sched_setattr
        sched_getparam sched_setparam sched_getscheduler sched_setscheduler
        sched_get_priority_max sched_get_priority_min
        sched_rr_get_interval sched_rr_get_interval_time64
        getpriority setpriority ioprio_get ioprio_set
    """,
    "who one is": """
        getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32
        getresuid getresuid32 getresgid getresgid32 getgroups getgroups32
        setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32
        setresuid setresuid32 setresgid setresgid32 setgroups setgroups32
        setfsuid setfsuid32 setfsgid setfsgid32 capget capset
    """,
    "confine oneself further": """
        seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
    """,
    "signals": """
        rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigreturn
        rt_sigqueueinfo rt_tgsigqueueinfo rt_sigtimedwait rt_sigtimedwait_time64
        sigaltstack sigprocmask sigreturn signalfd signalfd4 kill tkill tgkill pause
    """,
    "time": """
        time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64
        clock_nanosleep clock_nanosleep_time64 nanosleep times
        adjtimex clock_adjtime clock_adjtime64
        alarm getitimer setitimer timer_create timer_delete timer_getoverrun
        timer_gettime timer_gettime64 timer_settime timer_settime64
        timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
    """,
    "pipes and System V and POSIX queues": """
        pipe pipe2 ipc shmget shmat shmdt shmctl semget semop semctl semtimedop semtimedop_time64
        msgget msgsnd msgrcv msgctl mq_open mq_unlink mq_notify mq_getsetattr
        mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64
    """,
    "sockets, once made": """
        socketpair bind listen accept accept4 connect shutdown getsockname getpeername
        getsockopt setsockopt send sendto sendmsg sendmmsg
        recv recvfrom recvmsg recvmmsg recvmmsg_time64
    """,
    "limits and what the system is": """
        getrlimit ugetrlimit setrlimit prlimit64 getrusage uname sysinfo getrandom
    """,
}

# --- what depends on a capability --------------------------------------------------------------

_WITH_CAP: Final[dict[str, str]] = {
    "CAP_SYS_ADMIN": """
        mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount fspick
        clone clone3 unshare setns sethostname setdomainname quotactl quotactl_fd
        fanotify_init lookup_dcookie lsm_get_self_attr lsm_set_self_attr lsm_list_modules
        bpf perf_event_open syslog
    """,
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_NICE": "get_mempolicy set_mempolicy set_mempolicy_home_node mbind",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": """
        ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd
    """,
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

# --- what depends on the arguments -------------------------------------------------------------

REFUSED_FAMILIES: Final[dict[int, str]] = {
    12: "AF_DECnet: gone from Linux 6.1",
    19: "AF_ECONET: gone from Linux 3.5",
    20: "AF_ATMSVC: gone from Linux 7.2",
    23: "AF_IRDA: gone from Linux 4.17",
    25: "AF_WANPIPE: never in a mainline kernel",
    34: "AF_ISDN: gone from Linux 7.1",
    37: "AF_CAIF: gone from Linux 7.1",
    38: "AF_ALG: the kernel's cryptography; wrote to the page cache in CVE-2026-31431",
    40: "AF_VSOCK: reaches the hypervisor and its guests past the network namespace",
}
"""Address families of socket(2) that a container may not use, and why."""
_NEWEST_FAMILY: Final = 45  # AF_MCTP

_PERSONALITIES: Final = (
    0x0,  # PER_LINUX
    0x8,  # PER_LINUX32
    0x20000,  # UNAME26
    0x20008,
    0xFFFFFFFF,  # asks only
)

NAMESPACE_FLAGS: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.

CLONE_NEWTIME is no flag of clone(2): its bit is part of the exit signal there.
"""

_BY_ARGUMENT: Final = (
    *(
        Rule(purpose="sockets of other families", names=("socket",), args=(Arg(0, family),))
        for family in range(1, _NEWEST_FAMILY + 1)
        if family not in REFUSED_FAMILIES
    ),
    *(
        Rule(purpose="execution domains", names=("personality",), args=(Arg(0, persona),))
        for persona in _PERSONALITIES
    ),
    Rule(
        purpose="fork and threads, but no namespace",
        names=("clone",),
        args=(Arg(0, value=0, mask=NAMESPACE_FLAGS),),
        without_cap="CAP_SYS_ADMIN",
    ),
    Rule(
        purpose="its flags lie in memory: let the libc fall back on clone",
        names=("clone3",),
        errno=errno.ENOSYS,
        without_cap="CAP_SYS_ADMIN",
    ),
)

# --- what depends on the machine and the kernel ------------------------------------------------

_BY_HOST: Final = (
    Rule(
        purpose="debuggers; before Linux 4.8 a tracer could change a call once the filter had run",
        names=_names("ptrace process_vm_readv process_vm_writev"),
        min_kernel=(4, 8),
    ),
    Rule(purpose="x86: segments", names=("arch_prctl", "modify_ldt"), machines=("x86_64",)),
    Rule(
        purpose="arm: its own",
        names=_names(
            "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"
        ),
        machines=("aarch64",),
    ),
    Rule(
        purpose="riscv: its own",
        names=("riscv_flush_icache", "riscv_hwprobe"),
        machines=("riscv64",),
    ),
)

# -----------------------------------------------------------------------------------------------

_SOCKETCALL: Final = Rule(
    purpose=(
        "sockets of every family: libseccomp lets what `socket` and its like may do through here "
        "too, on conditions that this rule, having none, outweighs"
    ),
    names=("socketcall",),
    # Not EPERM: a rule that says the default isn't one to libseccomp. musl tries `socket` first.
    errno=errno.ENOSYS,
)

DEFAULT: Final = Profile(
    rules=(
        _SOCKETCALL,
        *(Rule(purpose=purpose, names=_names(text)) for purpose, text in _ALWAYS.items()),
        *(
            Rule(purpose=f"for {cap}", names=_names(text), cap=cap)
            for cap, text in _WITH_CAP.items()
        ),
        *_BY_ARGUMENT,
        *_BY_HOST,
    ),
    errno=errno.EPERM,
    newest=NEWEST,
)
"""What ``--seccomp default`` is: everything else is answered EPERM."""
