"""What containers could leave on the machine: looked at before, and compared after.

``python3 tests/leaks.py note FILE`` and ``… check FILE`` do it around several programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SETTLE_S = 2.0
MARK = "NSCONTAINER_LEAK_MARK"
"""Set in the environment around several programs: what still has it afterwards is theirs."""

Found = dict[str, list[str]]


def look() -> Found:
    """Everything that is there now and could be a container's, but for processes."""
    return {
        "cgroup": sorted(cgroups()),
        "mount": sorted(mounts()),
        "file": sorted(files()),
        "interface": sorted(interfaces()),
        "route": sorted(routes()),
        "nft table": sorted(nft_tables()),
        "network namespace": sorted(namespaces()),
        "loop device": sorted(loops()),
        "setting": [f"ip_forward {Path('/proc/sys/net/ipv4/ip_forward').read_text().strip()}"],
    }


def since(before: Found, look: Callable[[], Found] = look) -> list[str]:
    """What has come since, one line each, after giving the last ones time to go."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        now = look()
        left = [f"{kind} {it}" for kind in now for it in now[kind] if it not in before[kind]]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def look_with_processes() -> Found:
    """The same with processes: for when all of ours should have ended."""
    return look() | {"process": sorted(processes())}


def cgroups() -> Iterator[str]:
    """Directories of ours in any hierarchy; an empty parent counts too."""
    for directory, _, _ in os.walk("/sys/fs/cgroup"):
        if "nscontainer" in directory:
            yield directory


def interfaces() -> Iterator[str]:
    """Network interfaces, but for two that the module ifb brings along when it is loaded."""
    return (name for name in os.listdir("/sys/class/net") if name not in ("ifb0", "ifb1"))


def mounts() -> Iterator[str]:
    """Mount points of this mount namespace."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        yield line.split()[4]


def loops() -> Iterator[str]:
    """Loop devices that have a file, with the file; any of a state directory may be ours."""
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = entry.read_text(encoding="utf-8").strip()
        except OSError:  # it has just been taken back
            continue
        parts = ("/containers/", "/standby/", "nscontainer-doctor")
        # "/": of a filesystem that a disk's server serves (nscontainer/linux/fusefile.py).
        if file == "/" or any(part in file for part in parts):
            yield f"{entry.parts[3]} {file}"


def routes() -> Iterator[str]:
    """IPv4 routes of the main table: interface, destination and mask, as Linux shows them."""
    for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        yield f"{words[0]} {words[1]}/{words[7]}"


def nft_tables() -> Iterator[str]:
    """Tables of ours, where there is nft to list them."""
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=False
        )
        yield from (line for line in done.stdout.splitlines() if "nscontainer" in line)


def namespaces() -> Iterator[str]:
    """Network namespaces held by a file: ip-netns(8)'s, and any mount of one."""
    with contextlib.suppress(OSError):
        yield from os.listdir("/run/netns")
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        if " - nsfs " in line:
            yield line.split()[4]


def files() -> Iterator[str]:
    """Files of containers, by the engine's layout (nscontainer/engine/state.py)."""
    uid = os.geteuid()
    state = "/var/lib" if uid == 0 else os.path.expanduser("~/.local/share")
    state = os.environ.get("NSCONTAINER_STATE_DIR", f"{state}/nscontainer")
    runtime = "/run/nscontainer" if uid == 0 else f"/run/user/{uid}/nscontainer"
    folders_of_ours = [f"{state}/{name}" for name in ("containers", "standby", "names", "mnt")]
    for top in (*folders_of_ours, runtime):
        for directory, folders, names in os.walk(top):
            # A container's directory is named, not all that is in it.
            if top != runtime:
                yield from (f"{directory}/{name}" for name in folders)
                folders.clear()
            yield from (f"{directory}/{name}" for name in names)


def processes() -> Iterator[str]:
    """Processes that carry the mark, but for those that are still to look: us and our parents."""
    mark = os.environ.get(MARK)
    if mark is None:
        return
    wanted = f"{MARK}={mark}".encode()
    ours = set(ancestors())
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name not in ours:
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    yield f"{entry.name} {command.decode(errors='replace').strip()[:200]}"
            except OSError:  # it has gone, or isn't ours to read
                continue


def ancestors() -> Iterator[str]:
    """The pids from this process up."""
    pid = "self"
    while pid not in ("", "0"):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in status if ":" in line)
        yield fields["Pid"].strip()
        pid = fields["PPid"].strip()


def main() -> int:
    """Note what is there in a file, or check against it."""
    action, file = sys.argv[1], Path(sys.argv[2])
    if action == "note":
        file.write_text(json.dumps(look_with_processes()), encoding="utf-8")
        return 0
    before = json.loads(file.read_text(encoding="utf-8"))
    left = since(before, look_with_processes)
    for line in left:
        print(f"left behind: {line}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
