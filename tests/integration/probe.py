"""Executed inside a container: look at everything a process there can see, and tell it as JSON.

It is passed as text (``python3 -c``), after inside.PRELUDE.
"""

# ruff: noqa: E731, F821, SIM105, SIM115
# mypy: ignore-errors

NAMESPACES = ("mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time")

# x86_64, and everything else (asm-generic/unistd.h)
CALLS = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "setns": (308, 268),
    "unshare": (272, 97), "bpf": (321, 280), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "open_by_handle_at": (304, 265), "perf_event_open": (298, 241), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "userfaultfd": (323, 282), "syslog": (103, 116),
    "acct": (163, 89), "quotactl": (179, 60), "io_uring_setup": (425, 425),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "clone3": (435, 435),
    "mount_setattr": (442, 442), "clock_settime": (227, 112), "settimeofday": (164, 170),
}  # fmt: skip
CLONE = (56, 220)
HERE = 0 if os.uname().machine == "x86_64" else 1


def contents(path):
    """What a file holds, or why it can't be read."""
    try:
        with open(path, "rb") as file:
            return file.read(4096).decode("latin-1")
    except OSError as error:
        return "!" + errno.errorcode[error.errno]


def nodes():
    """The names in /dev: a link's target, a device's type and number, a directory's entries."""
    found = {}
    for name in os.listdir("/dev"):
        facts = os.lstat(f"/dev/{name}")
        if stat.S_ISLNK(facts.st_mode):
            found[name] = os.readlink(f"/dev/{name}")
        elif stat.S_ISDIR(facts.st_mode):
            found[name] = sorted(os.listdir(f"/dev/{name}"))
        else:
            kind = "c" if stat.S_ISCHR(facts.st_mode) else oct(facts.st_mode)
            found[name] = [kind, os.major(facts.st_rdev), os.minor(facts.st_rdev)]
    return found


def devices():
    """What the devices do."""
    read = lambda name: open(f"/dev/{name}", "rb", 0).read(16)
    return {
        "null": [read("null").hex(), open("/dev/null", "wb", 0).write(b"x")],
        "zero": read("zero").hex(),
        "full": [read("full").hex(), answer(open("/dev/full", "wb", 0).write, b"x")],
        "random": len(set(read("random"))),
        "urandom": len(set(read("urandom"))),
        "tty": answer(os.open, "/dev/tty", os.O_RDWR),
        "stdout": os.stat("/dev/stdout").st_ino == os.fstat(1).st_ino,
        "pty": os.ttyname(os.openpty()[1]),
    }


def made_nodes():
    """Where a device node can be made, and whether it then opens."""
    found = {}
    for top in ("/tmp", "/dev", "/dev/shm", "/usr", "/var/tmp"):
        path = f"{top}/nsc-node"
        made = answer(os.mknod, path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        found[top] = made or answer(os.open, path, os.O_RDWR) or "opens"
        if made is None:
            os.unlink(path)
    return found


def writes():
    """What writing to the kernel's own files is answered."""
    found = {}
    for path in (
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/swappiness",
        "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity", "/sys/power/state", "/sys/kernel/uevent_helper",
    ):  # fmt: skip
        if os.path.exists(path):
            found[path] = answer(os.open, path, os.O_WRONLY)
    return found


def cgroup_files():
    """What making and writing below /sys/fs/cgroup is answered, directory by directory."""
    found = {}
    for top, _, names in os.walk("/sys/fs/cgroup"):
        found[top] = answer(os.mkdir, f"{top}/x")
        for name in ("release_agent", "notify_on_release", "cgroup.procs", "tasks", "memory.max",
                     "memory.limit_in_bytes", "cpu.cfs_quota_us", "cpu.max"):  # fmt: skip
            if name in names:
                found[f"{top}/{name}"] = answer(os.open, f"{top}/{name}", os.O_WRONLY)
    return found


def network():
    """Interfaces with their flags, routes, and whether 127.0.0.1 carries a word."""
    flags = {}
    for _, name in socket.if_nameindex():
        flags[name] = int(contents(f"/sys/class/net/{name}/flags"), 16)
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    server.accept()[0].sendall(b"word")
    outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return {
        "flags": flags,
        "said": client.recv(4).decode(),
        "routes": contents("/proc/net/route").count("\n") - 1,
        "outside": answer(outside.connect, ("192.0.2.1", 53)),
        "abstract": contents("/proc/net/unix").count("@"),
    }


def fds():
    """Open file descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # the listing's own
    return found


def look():
    """Everything, in an order in which nothing spoils what comes after it."""
    return {
        "fds": fds(),
        "namespaces": {n: os.stat(f"/proc/self/ns/{n}").st_ino for n in NAMESPACES
                       if os.path.exists(f"/proc/self/ns/{n}")},
        "timens_offsets": contents("/proc/self/timens_offsets"),
        "status": dict(line.split(":\t", 1) for line in
                       contents("/proc/self/status").splitlines() if ":\t" in line),
        "mounts": open("/proc/self/mountinfo").read().splitlines(),
        "same_root": os.path.samestat(os.stat("/"), os.stat("/.."))
                     and os.path.samestat(os.stat("/"), os.stat("/proc/1/root/")),
        "cwd": os.getcwd(),
        "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "pid": os.getpid(),
        "uid_map": contents("/proc/self/uid_map").split(),
        "gid_map": contents("/proc/self/gid_map").split(),
        "environ": contents("/proc/1/environ").split("\0"),
        "nodes": nodes(),
        "devices": devices(),
        "made_nodes": made_nodes(),
        "root": sorted(os.listdir("/")),
        "run": sorted(os.listdir("/run")),
        "masked": {path: sorted(os.listdir(path)) if os.path.isdir(path) else contents(path)
                   for path in MASKED if os.path.lexists(path)},
        "writes": writes(),
        "cgroup": contents("/proc/self/cgroup").splitlines(),
        "cgroup_files": cgroup_files(),
        "network": network(),
        "hostname": [os.uname().nodename, contents("/etc/hostname").strip()],
        "hosts": contents("/etc/hosts"),
        "shm": [os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
                os.listdir("/dev/shm")],
        "calls": {name: raw(numbers[HERE], 0, 0, 0, 0, 0) for name, numbers in CALLS.items()},
        "namespace_calls": {
            "unshare": raw(CALLS["unshare"][HERE], 0x10000000),
            "clone": raw(CLONE[HERE], 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0),
        },
        "ptrace_1": raw((101, 117)[HERE], 16, 1, 0, 0) if os.getpid() != 1 else None,
    }  # fmt: skip


tell(look())
