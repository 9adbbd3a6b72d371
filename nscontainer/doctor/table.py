"""The doctor's rows: what each of them is about, for who asks for one, and for docs/troubleshooting.md."""

from __future__ import annotations

from typing import Final

NEEDED: Final = "no container can run without it"

ROWS: Final = {
    "Linux": "older than 5.12: the engine's mounts aren't there. Older than 5.19: what came later is "
    "missing, the row names it",
    "privileges": "who we are. An ordinary user's containers are made in a user namespace of their own; "
    "a root that is confined itself (in a container) goes the same way",
    "clone3 and pidfd": "a seccomp filter around us forbids the call",
    "namespace mnt": "that namespace can't be made: a sysctl, or a Linux built without",
    "namespace uts": "as `namespace mnt`",
    "namespace ipc": "as `namespace mnt`",
    "namespace pid": "as `namespace mnt`",
    "namespace net": "as `namespace mnt`",
    "namespace cgroup": "as `namespace mnt`",
    "namespace time": "as `namespace mnt`",
    "user namespace": "it can't be made, or its id map can't be written: a sysctl, AppArmor (Ubuntu: the "
    "namespace is made and the map refused), a seccomp filter around us",
    "subordinate ids": "an ordinary user has but one id in a container: no newuidmap, or no line in "
    "/etc/subuid and /etc/subgid. Files of others are seen as nobody's, and no other user can be had inside",
    "own /proc and /sys": "something is mounted over the host's own, as in an unprivileged container: "
    "Linux then refuses new ones",
    "overlay": "the module is missing, or the state directory's filesystem can't be the upper layer (it "
    "is an overlay itself)",
    "idmapped layers": "files are seen as nobody's. Linux 5.19, and a filesystem that can be idmapped. "
    "An ordinary user doesn't need them",
    "state directory": "it can't be written. Set `NSCONTAINER_STATE_DIR` to a directory of yours on ext4, "
    "xfs or btrfs",
    "seccomp": "libseccomp isn't installed, or the filter can't be loaded",
    "cgroup": "no hierarchy is mounted, or no directory can be made in it: for an ordinary user, none is "
    "delegated. Without one there are no limits, and figures come from /proc",
    "controller cpu": "the limits and figures of that one are missing. A limit that needs it is an error",
    "controller cpuset": "as `controller cpu`",
    "controller memory": "as `controller cpu`",
    "controller pids": "as `controller cpu`",
    "controller io": "as `controller cpu`",
    "CPU quota": "it was set, and something else was read back",
    "memory limit": "as `CPU quota`",
    "pids limit": "as `CPU quota`",
    "swap limit": "no swap accounting: boot with `swapaccount=1`",
    "quota above": "a cgroup above ours has a CPU quota: every container is throttled by it as well",
    "sampling": "some basic figure is NA in every result",
    "pressure (PSI)": "the `psi.*` figures are NA: boot with `psi=1`, or mount a cgroup2",
    "cgroup.kill": "Linux older than 5.14, or no cgroup2 mount: processes are killed one by one",
    "freezer": "no pause",
    "CPUs": "how many may be used",
    "steal": "the hypervisor gives the CPU to others at times. Repeat, compare CPU times",
    "CPU governor": "the clock follows the load: the same work takes a varying CPU time",
    "free disk": "no room for containers' writes",
    "networks": "no bridge, no nftables, or not root: only `--network none`, `user`, `host` and "
    "`container:NAME`",
    "network speed": "Linux has no tbf (`--net-rate`) or no netem (`--net-delay`, `--net-loss`)",
    "network user": "slirp4netns isn't installed, or can't start: no `--network slirp4netns`",
    "disk size": "no loop device, no mkfs.ext4, or not root: no `--storage`, and on cgroup v1 buffered "
    "writes escape `--disk-write`",
    "a container": "the engine could not make and run a whole one; the row says at which step",
    "a limited container": "one with `--cpu`, `--memory` and `--pids-limit` could not be made, or the "
    "quota did not throttle it",
    "Python": "which one this is",
    "IPython": "not installed: no `%%container`, and cells' output is plain",
    "pandas": "not installed: no `r.usage`",
    "matplotlib": "not installed: no `r.plot()`",
    "pyarrow": "not installed: no `--usage FILE.parquet`",
}
"""A row's name, and what it means when it isn't ✓; in the order in which they are tried."""
