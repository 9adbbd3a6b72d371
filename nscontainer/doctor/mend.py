"""How to mend what is missing, on each kind of host."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

PLACES: Final = (
    "binder", "kubernetes", "nscontainer", "docker", "wsl2", "ubuntu", "debian", "fedora", "arch", "macos",
    "windows", "linux",
)  # fmt: skip

_RUN_AS_ROOT: Final = (
    'run it as root: sudo -E env PATH="$PATH" nscontainer …, or for notebooks '
    'sudo -E env PATH="$PATH" jupyter lab --allow-root'
)
_PRIVILEGED: Final = (
    "docker run --privileged --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup "
    "-v nscontainer:/var/lib/nscontainer …"
)
_UNCONFINED: Final = (
    "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined "
    "--security-opt apparmor=unconfined -v nscontainer:/var/lib/nscontainer … (without limits; all of "
    "it takes --privileged)"
)
_POD: Final = (
    "have the pod run with securityContext: {privileged: true} and a volume at /var/lib/nscontainer"
)
_BINDER: Final = (
    "Binder's pods are unprivileged for good: open the notebook on a Linux machine of your own"
)
_CONFINED: Final = {
    "binder": _BINDER,
    "kubernetes": _POD,
    "nscontainer": "start it on the host, or give the container of nscontainer that this is: "
    "--security-opt seccomp=unconfined --security-opt systempaths=unconfined --cap-add ALL, and a volume "
    "at $NSCONTAINER_STATE_DIR",
    "docker": _PRIVILEGED,
}
CONFINED: Final = frozenset(_CONFINED)
"""The places whose operator alone can mend what they forbid."""
_ROOT: Final = {**_CONFINED, "linux": _RUN_AS_ROOT}
_LET_IN: Final = {**_CONFINED, "docker": _UNCONFINED}
"""For what an ordinary user may have, and a container's own confinement forbids."""
_OTHER_STATE_DIR: Final = "set NSCONTAINER_STATE_DIR to a directory of yours on ext4, xfs or btrfs"
_SYSTEMD: Final = "put [boot] systemd=true into /etc/wsl.conf, then in Windows: wsl --shutdown"


def _package(apt: str, dnf: str, pacman: str) -> dict[str, str]:
    return {
        "debian": f"sudo apt install {apt}",
        "ubuntu": f"sudo apt install {apt}",
        "fedora": f"sudo dnf install {dnf}",
        "arch": f"sudo pacman -S {pacman}",
        "linux": f"install {apt}",
    }


def _boot(argument: str) -> dict[str, str]:
    grub = f'add {argument} to GRUB_CMDLINE_LINUX in /etc/default/grub, "sudo update-grub", reboot'
    return {
        "debian": grub,
        "ubuntu": grub,
        "fedora": f"sudo grubby --update-kernel=ALL --args={argument}, then reboot",
        "wsl2": f"put [wsl2] kernelCommandLine={argument} into .wslconfig, then wsl --shutdown",
        "linux": f"add {argument} to the boot loader's kernel options, then reboot",
    }


def _sysctl(setting: str) -> dict[str, str]:
    return {"linux": f"sudo sysctl -w {setting} (to keep it: a file in /etc/sysctl.d)"}


MENDS: Final[Mapping[str, Mapping[str, str]]] = {
    "platform": {
        "macos": "use a Linux VM: brew install lima && limactl start && limactl shell default",
        "windows": "use WSL2: wsl --install, then install nscontainer in it",
        "linux": "use Linux, on a machine or in a VM",
    },
    "linux-old": {
        "debian": "sudo apt install -t bookworm-backports linux-image-amd64, or a newer Debian",
        "ubuntu": "sudo apt install linux-generic-hwe-$(lsb_release -rs), then reboot",
        "fedora": "sudo dnf upgrade kernel, then reboot",
        "arch": "sudo pacman -Syu linux, then reboot",
        "wsl2": "in Windows: wsl --update",
        "docker": "a container has its host's Linux: update the host",
        "kubernetes": "a pod has its node's Linux: ask for a newer node",
        "binder": _BINDER,
        "linux": "boot a newer Linux",
    },
    "root": _ROOT,
    "caps": {**_CONFINED, "linux": "run it as the host's own root, outside of any container"},
    "sys-resource": {
        "docker": "docker run --cap-add SYS_RESOURCE, or --ulimit with what is needed",
        "linux": "raise the limit before: ulimit -Hn 1048576 in a shell that may",
    },
    "clone": {**_LET_IN, "linux": "boot Linux >= 5.3; inside a container, run it privileged"},
    "namespace": {"linux": "boot your distribution's own Linux: it is built with all of them"},
    "userns-max": _sysctl("user.max_user_namespaces=15000"),
    "userns-clone": _sysctl("kernel.unprivileged_userns_clone=1"),
    "userns-apparmor": _sysctl("kernel.apparmor_restrict_unprivileged_userns=0"),
    "subids": {
        "fedora": "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
        "arch": "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
        "linux": "sudo apt install uidmap && sudo usermod --add-subuids 100000-165535 "
        "--add-subgids 100000-165535 $USER",
    },
    "delegation": {
        **_CONFINED,
        "wsl2": _SYSTEMD,
        "linux": "log in to a session of systemd's (by ssh, not su), or have an administrator run: "
        "sudo nscontainer setup $USER",
    },
    "tun": {**_CONFINED, "linux": "sudo chmod 666 /dev/net/tun (as udev has it on most systems)"},
    "slirp4netns": _package("slirp4netns", "slirp4netns", "slirp4netns"),
    "userns-confined": {
        **_LET_IN,
        "linux": "run it outside of what confines it (a seccomp filter, a program's AppArmor profile)",
    },
    "proc": {**_LET_IN, "linux": "run it where /proc and /sys have nothing mounted over them"},
    "overlay-module": {**_CONFINED, "linux": "sudo modprobe overlay"},
    "overlay-upper": {
        "docker": "give it a volume: docker run -v nscontainer:/var/lib/nscontainer …",
        "kubernetes": "mount a volume at /var/lib/nscontainer",
        "binder": _BINDER,
        "linux": _OTHER_STATE_DIR,
    },
    "state-dir": {"linux": _OTHER_STATE_DIR},
    "libseccomp": _package("libseccomp2", "libseccomp", "libseccomp"),
    "e2fsprogs": _package("e2fsprogs", "e2fsprogs", "e2fsprogs"),
    "loop": {**_CONFINED, "linux": "sudo modprobe loop"},
    "bridge": {**_CONFINED, "linux": "sudo modprobe -a bridge veth"},
    "networks": {
        **_CONFINED,
        "linux": "use --network slirp4netns, or run it as root",
    },
    "nftables": _package("nftables", "nftables", "nftables"),
    "tbf": {**_CONFINED, "linux": "sudo modprobe sch_tbf, or a Linux with CONFIG_NET_SCH_TBF"},
    "netem": {
        **_CONFINED,
        "linux": "sudo modprobe sch_netem, or a Linux with CONFIG_NET_SCH_NETEM",
    },
    "cgroup-write": _ROOT,
    "unified": {
        **_CONFINED,
        "linux": "sudo mkdir -p /sys/fs/cgroup/unified && "
        "sudo mount -t cgroup2 none /sys/fs/cgroup/unified",
    },
    "quota-above": {
        "docker": "start the outer container without --cpus",
        "kubernetes": "raise the pod's CPU limit",
        "linux": "lift it: cpu.max (v1: cpu.cfs_quota_us) of the cgroup above",
    },
    "figures": {"linux": "boot Linux >= 5.19 (memory.peak), with the controllers above"},
    "psi": _boot("psi=1"),
    "psi-cgroup2": {
        **_CONFINED,
        "linux": "sudo mkdir -p /sys/fs/cgroup/unified && "
        "sudo mount -t cgroup2 none /sys/fs/cgroup/unified",
    },
    "swap": _boot("swapaccount=1"),
    "steal": {"linux": "measure on a machine with CPUs of its own, or repeat and compare"},
    "governor": {
        "linux": "sudo cpupower frequency-set -g performance (and back to what it was afterwards)"
    },
    "report": {"linux": "NSCONTAINER_DEBUG=1 nscontainer run true says more"},
    "disk": {"linux": "nscontainer gc, or set NSCONTAINER_STATE_DIR to a larger disk"},
}
"""Cause, then place; the place ``linux`` is for all that have no word of their own."""


def mend(cause: str, place: tuple[str, ...]) -> str:
    """Say how to mend a cause, where we are.

    Parameters
    ----------
    cause
        A key of :data:`MENDS`; also ``controller:NAME``, ``namespace-NAME`` and ``python:NAME``.
    place
        As :func:`places` gave them, most telling first.
    """
    kind, _, name = cause.partition(":")
    if kind == "controller":
        return _controller(name, place)
    if kind == "python":
        return f"{sys.executable or 'python3'} -m pip install {name}"
    if kind.startswith("namespace-"):
        return _pick({**_ROOT, **_max_namespaces(kind.removeprefix("namespace-"))}, place)
    return _pick(MENDS.get(kind, {}), place)


def _pick(texts: Mapping[str, str], place: tuple[str, ...]) -> str:
    return next((texts[name] for name in (*place, "linux") if name in texts), "")


def _max_namespaces(name: str) -> dict[str, str]:
    """Where the sysctl forbids this type, that is the mend."""
    try:
        with open(f"/proc/sys/user/max_{name}_namespaces", encoding="ascii") as file:
            return (
                _sysctl(f"user.max_{name}_namespaces=10000") if file.read().strip() == "0" else {}
            )
    except OSError:
        return {}


def _controller(name: str, place: tuple[str, ...]) -> str:
    inside = _pick({**_CONFINED, "linux": ""}, place)
    if inside:
        return inside
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        if name == "memory":
            return _pick(_boot("cgroup_enable=memory"), place)
        return f"echo +{name} | sudo tee /sys/fs/cgroup/cgroup.subtree_control"
    where = f"/sys/fs/cgroup/{name}"
    return f"sudo mkdir -p {where} && sudo mount -t cgroup -o {name} cgroup {where}"


def places(
    environ: Mapping[str, str] = os.environ, *, platform: str = sys.platform, root: str = "/"
) -> tuple[str, ...]:
    """Tell what kind of host this is: names of :data:`PLACES`, the most telling first.

    Parameters
    ----------
    environ, platform
        As this process's own.
    root
        Where /etc and /proc are looked up, for tests.
    """
    if platform == "darwin":
        return ("macos",)
    if platform in ("win32", "cygwin"):
        return ("windows",)
    found = []
    if any(name.startswith("BINDER_") for name in environ):
        found.append("binder")
    if "KUBERNETES_SERVICE_HOST" in environ:
        found.append("kubernetes")
    if os.path.exists(f"{root}/.nscontainerenv"):
        found.append("nscontainer")
    elif _in_docker(root):
        found.append("docker")
    if "microsoft" in _read(f"{root}/proc/sys/kernel/osrelease").lower():
        found.append("wsl2")
    release = dict(
        line.split("=", 1) for line in _read(f"{root}/etc/os-release").splitlines() if "=" in line
    )
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").strip('"').split()]
    found += [name.strip('"') for name in names if name.strip('"') in PLACES]
    return (*dict.fromkeys(found), "linux")


def _in_docker(root: str) -> bool:
    """Tell Docker and Podman by what they mount; the marker file alone survives in VM images."""
    if os.path.exists(f"{root}/run/.containerenv"):
        return True
    mounts = _read(f"{root}/proc/self/mountinfo")
    return os.path.exists(f"{root}/.dockerenv") and " /etc/hosts " in mounts


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
