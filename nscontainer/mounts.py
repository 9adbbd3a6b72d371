"""What ``--volume``, ``--mount`` and ``--tmpfs`` ask for, in Docker's words."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from typing import Final, Literal

from nscontainer import units
from nscontainer.errors import SpecError


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount (``source`` is a path of the host) or a tmpfs in the container.

    ``mode``, ``uid`` and ``gid`` are a tmpfs' own; None is 1777 and root.
    """

    type: Literal["bind", "tmpfs"]
    target: str
    source: str | None = None
    read_only: bool = False
    size_bytes: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    exec: bool = True


def parse_volume(text: str) -> Mount:
    """Read Docker's ``--volume SOURCE:TARGET[:ro|rw]``.

    Raises
    ------
    SpecError
        It is no such thing, or a path is not absolute.
    """
    source, _, rest = str(text).partition(":")
    target, _, mode = rest.partition(":")
    if source and target and not source.startswith(("/", ".", "~")):
        message = f"volume {text!r}: there are no named volumes here"
        raise SpecError(message, hint=f"name a directory: ./{source}:{target}, or /… or ~/…")
    if not source.startswith("/") or not target.startswith("/") or mode not in ("", "ro", "rw"):
        message = f"volume {text!r} can't be read"
        raise SpecError(message, hint="write /host/path:/container/path, with :ro for read-only")
    return Mount("bind", mount_point(target), source, read_only=mode == "ro")


def parse_tmpfs(text: str) -> Mount:
    """Read Docker's ``--tmpfs TARGET[:size=64M,mode=1777,uid=0,gid=0,ro,noexec]``.

    Raises
    ------
    SpecError
        The path is not absolute, or an option is unknown.
    """
    target, _, options = str(text).partition(":")
    keys: dict[str, str] = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key in ("nosuid", "nodev", "rw"):
            continue  # the first two are always so
        if key in ("exec", "noexec", "ro") or (key in ("size", "mode", "uid", "gid") and value):
            keys[key] = value
        else:
            message = f"tmpfs option {option!r} is not known"
            raise SpecError(message, hint="size=64M, mode=1777, uid=, gid=, ro, noexec")
    return _tmpfs(target, keys, text)


def _tmpfs(target: str, keys: dict[str, str], text: str) -> Mount:
    mode = keys.get("mode")
    if mode is not None and (not mode or mode.strip("01234567") or int(mode, 8) > 0o7777):
        message = f"tmpfs {text!r}: mode {mode!r} is none"
        raise SpecError(message, hint="octal, as 1777 or 0700")
    for name in ("uid", "gid"):
        if name in keys and not (keys[name].isdecimal() and int(keys[name]) < 1 << 16):
            message = f"tmpfs {text!r}: {name} {keys[name]!r} is none"
            raise SpecError(message, hint="a number from 0 to 65535")
    return Mount(
        "tmpfs",
        mount_point(target),
        read_only="ro" in keys,
        size_bytes=units.parse_size(keys["size"]) if "size" in keys else None,
        mode=None if mode is None else int(mode, 8),
        uid=int(keys["uid"]) if "uid" in keys else None,
        gid=int(keys["gid"]) if "gid" in keys else None,
        exec="noexec" not in keys,
    )


_MOUNT_KEYS: Final = {
    "type": "type", "source": "source", "src": "source", "target": "target", "dst": "target",
    "destination": "target", "readonly": "ro", "ro": "ro", "tmpfs-size": "size",
    "tmpfs-mode": "mode",
}  # fmt: skip
_OF_TMPFS: Final = ("size", "mode")


def parse_mount(text: str) -> Mount:
    """Read Docker's ``--mount type=bind|tmpfs,source=…,target=…[,readonly][,tmpfs-size=…]``.

    Raises
    ------
    SpecError
        A key is unknown or missing, or the source is not absolute or not there.
    """
    keys: dict[str, str] = {}
    for part in str(text).split(","):
        name, equals, value = part.partition("=")
        key = _MOUNT_KEYS.get(name.strip().lower())
        if key is None:
            close = difflib.get_close_matches(name, _MOUNT_KEYS, 1)
            message = f"mount {text!r}: {name!r} is not known"
            hint = f"did you mean {close[0]}?" if close else "type=bind,source=/path,target=/path"
            raise SpecError(message, hint=hint)
        if key == "ro":
            if value.lower() not in ("", "true", "1", "false", "0"):
                message = f"mount {text!r}: readonly is true or false"
                raise SpecError(message)
            if value.lower() in ("false", "0"):
                continue
        elif not equals or not value:
            message = f"mount {text!r}: {name} has no value"
            raise SpecError(message, hint=f"write {name}=…")
        keys[key] = value
    return _mount(keys, text)


def _mount(keys: dict[str, str], text: str) -> Mount:
    kind = keys.get("type", "volume")
    if kind not in ("bind", "tmpfs"):
        message = f"mount {text!r}: type {kind} is not supported"
        raise SpecError(message, hint="type=bind with source=/a/directory, or type=tmpfs")
    if "target" not in keys:
        message = f"mount {text!r} has no target"
        raise SpecError(message, hint="add target=/path/in/the/container")
    if kind == "tmpfs":
        if "source" in keys:
            message = f"mount {text!r}: a tmpfs has no source"
            raise SpecError(message, hint="leave it out, or type=bind")
        return _tmpfs(keys["target"], keys, text)
    if wrong := next((key for key in _OF_TMPFS if key in keys), None):
        message = f"mount {text!r}: tmpfs-{wrong} is for type=tmpfs"
        raise SpecError(message)
    source = keys.get("source")
    if source is None:
        message = f"mount {text!r} has no source"
        raise SpecError(message, hint="add source=/path/on/this/machine")
    return Mount("bind", mount_point(keys["target"]), host_path(source, f"mount {text!r}"),
                 read_only="ro" in keys)  # fmt: skip


def host_path(source: str, what: str) -> str:
    """Make a path of this machine absolute: a magic has no shell that would.

    Raises
    ------
    SpecError
        Nothing is there. Docker's ``-v`` would make a directory, as root.
    """
    if source.startswith("~"):
        source = os.path.expanduser(source)
    source = os.path.abspath(source)
    if not os.path.exists(source):
        message = f"{what}: there is no {source}"
        raise SpecError(message, hint="make it first")
    return source


_ENGINES_OWN: Final = ("proc", "sys", "dev")


def mount_point(path: str) -> str:
    """Check where in the container something is to be mounted.

    Raises
    ------
    SpecError
        It can't be there.
    """
    parts = [p for p in path.split("/") if p not in ("", ".")]
    if not path.startswith("/") or not parts or ".." in parts:
        message = f"{path!r} can't be a mount point in the container"
        raise SpecError(message, hint='an absolute path without "..", not / itself')
    if parts[0] in _ENGINES_OWN and parts != ["dev", "shm"]:
        message = (
            f"{path!r} can't be a mount point: the engine makes and masks what is below /{parts[0]}"
        )
        raise SpecError(message, hint="any place outside /proc, /sys and /dev; /dev/shm is free")
    return "/" + "/".join(parts)
