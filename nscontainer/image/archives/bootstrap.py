"""Debian and Ubuntu from their own archives: mmdebstrap's or debootstrap's work as an image of one layer.

As root the tool runs in a mount and a PID namespace of its own, which end with it: whatever it has
mounted or started is gone with it, also when it is killed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

from nscontainer import inside
from nscontainer.errors import HostError, ImageError, SpecError
from nscontainer.image import names, tree
from nscontainer.image.archives import debian, rootfs
from nscontainer.image.progress import Event, Progress
from nscontainer.image.records import Image, Layer
from nscontainer.image.registry import platform as platforms
from nscontainer.image.store import Store

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[A-Za-z0-9.+~:-]+)?", re.ASCII)
_LAST_WORDS: Final = 6
# Over /tmp: the store's own directories are closed to apt's user _apt, who downloads.
_COVERED: Final = 'mount --bind "$0" /tmp && exec "$@"'
# What the host's is, or what differs from one run to the next.
_LEFT_OUT: Final = (
    "etc/hostname", "etc/resolv.conf", "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap", "var/cache/ldconfig/aux-cache", "var/log/alternatives.log",
    "var/log/apt", "var/log/bootstrap.log", "var/log/dpkg.log",
)  # fmt: skip


def bootstrap(
    text: str,
    name: str | None = None,
    *,
    store: Store,
    include: Sequence[str] = (),
    variant: str = "minbase",
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Image:
    """Make an image of a Debian or Ubuntu suite.

    Parameters
    ----------
    text
        ``debian:bookworm``, ``ubuntu:noble`` …
    name
        The image's name; the suite's when not given.
    include
        More packages.
    variant
        mmdebstrap's word for how much of it: ``minbase``, ``essential``, ``apt``, ``required``,
        ``buildd``, ``important`` or ``standard``.
    mirror
        The archive to take it from, and nothing else.

    Raises
    ------
    SpecError
        A suite, variant or package that can't be.
    HostError
        Neither tool is installed, the archive can't be reached, or its keys aren't here.
    ImageError
        The tool failed, with its own last words.
    """
    suite = debian.suite(text, mirror)
    reference = names.parse(name or text)
    if variant not in debian.VARIANTS:
        raise SpecError(f"variant {variant!r:.60} is unknown", hint=", ".join(debian.VARIANTS))
    packages = [include] if isinstance(include, str) else [*include]
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            raise SpecError(f"{package!r:.100} is no package's name", hint="as curl or python3")
    tool = _tool(variant)
    epoch = debian.published(suite)
    with store.holding(), _scratch(store) as scratch:
        run = _mmdebstrap if tool == "mmdebstrap" else _debootstrap
        layer, shell = run(_Job(suite, packages, variant, scratch, epoch, progress), store)
        when = dt.datetime.fromtimestamp(epoch, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        words = [f"nscontainer bootstrap {text} --variant {variant}"]
        words += [f"--include {','.join(packages)}"] if packages else []
        config = {
            "created": when,
            "architecture": platforms.host().architecture,
            "os": "linux",
            "config": {"Env": [f"PATH={PATH}"], "Cmd": [shell]},
            "history": [{"created": when, "created_by": " ".join(words), "comment": tool}],
        }
        return store.make_image(config, [layer], name=str(reference))


def _tool(variant: str) -> str:
    if shutil.which("mmdebstrap"):
        return "mmdebstrap"
    hint = "as root: apt-get install mmdebstrap"
    if not shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
        raise HostError("neither mmdebstrap nor debootstrap is installed", hint=hint)
    if os.geteuid() != 0:
        raise HostError("debootstrap needs root, and mmdebstrap is not installed", hint=hint)
    if variant not in ("minbase", "buildd"):
        raise HostError(f"debootstrap has no variant {variant}", hint=hint)
    return "debootstrap"


@contextlib.contextmanager
def _scratch(store: Store) -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="bootstrap-", dir=store.scratch)
    try:
        os.chmod(path, 0o755)  # noqa: S103 - seen at /tmp by the tool alone
        yield path
    finally:
        tree.remove_tree(path)


def _shell(top: str) -> str:
    found = any(os.path.lexists(f"{top}/{folder}/bash") for folder in ("bin", "usr/bin"))
    return "bash" if found else "sh"


def _private(scratch: str) -> list[str]:
    """Give the words before a command of root's that keep all it does in namespaces of its own."""
    if os.geteuid() != 0:
        return []
    words = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
    words += ["--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    return [*words, "sh", "-c", _COVERED, scratch]


def _environment(epoch: int) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
    return {
        **kept,
        "PATH": PATH,
        "HOME": "/",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "SOURCE_DATE_EPOCH": str(epoch),
    }


@dataclass(frozen=True, slots=True)
class _Job:
    """What one of the tools is to do."""

    suite: debian.Suite
    packages: Sequence[str]
    variant: str
    scratch: str
    epoch: int
    """The archive's date: what is made gets no younger one."""
    progress: Progress | None


def _mmdebstrap(job: _Job, store: Store) -> tuple[Layer, str]:
    """Let mmdebstrap write a tar, and unpack it as any other."""
    removal = " ".join(f'"$1/{path}"' for path in _LEFT_OUT)
    listed = " ".join(f"'{line}'" for line in job.suite.lines)
    words = [
        *_private(job.scratch),
        *("mmdebstrap", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}"),
        *(
            f"--variant={job.variant}",
            "--format=tar",
            "--skip=output/dev",
            f"--keyring={job.suite.keyring}",
        ),
        "--dpkgopt=force-unsafe-io",
        *(f"--aptopt={line}" for line in debian.apt_settings()),
        *([f"--include={','.join(job.packages)}"] if job.packages else []),
        f"--customize-hook=rm -rf {removal}",
        f"--customize-hook=printf '%s\\n' {listed} > \"$1/etc/apt/sources.list\"",
        *(job.suite.name, "-", *job.suite.lines),
    ]
    with _started(words, _environment(job.epoch), job.progress, "mmdebstrap") as tar:
        return inside.call(
            _of_tar,
            inside.Stream(tar, "read"),
            store.root,
            job.scratch,
            job.epoch,
            job.progress,
        )


def _of_tar(
    tar: IO[bytes], root: str, scratch: str, epoch: int, progress: Progress | None
) -> tuple[Layer, str]:
    """Make a layer of mmdebstrap's tar; tell its shell too."""
    top = f"{scratch}/tree"
    os.mkdir(top, 0o755)
    try:
        rootfs.unpack(tar, top)
        while tar.read(1 << 16):  # what follows a tar's end: who writes it must not be cut off
            pass
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{top}/dev", 0o755)
        os.utime(f"{top}/dev", (epoch, epoch))
        os.utime(top, (epoch, epoch))
        _tell(progress, "making the layer")
        layer = Store(root).add_layer(lambda sink: rootfs.pack_tree(top, sink))
        return layer, _shell(top)
    finally:
        tree.remove_tree(top)


def _debootstrap(job: _Job, store: Store) -> tuple[Layer, str]:
    """Let debootstrap fill the directory, in its own /tmp, and take out what is this machine's."""
    os.mkdir(f"{job.scratch}/tree", 0o755)
    finish = (
        'top=$1; shift; "$@" >&2 && cd "$top" && rm -rf dev/* proc/* sys/* run/* tmp/*'
        " var/cache/apt/archives/*.deb var/cache/apt/*.bin var/lib/apt/lists/*_*"
        f" {' '.join(_LEFT_OUT)}"
        " && printf '%s\\n' \"$LINES\" > etc/apt/sources.list"
        ' && find . -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +'
    )
    program = shutil.which("debootstrap", path=PATH) or "debootstrap"
    archive, name = job.suite.sources[0]
    words = [
        *_private(job.scratch),
        *("sh", "-euc", finish, "sh", "/tmp/tree"),  # noqa: S108 - the scratch directory, see _COVERED
        *(program, f"--variant={job.variant}", f"--keyring={job.suite.keyring}"),
        *([f"--include={','.join(job.packages)}"] if job.packages else []),
        *(name, "/tmp/tree", archive),  # noqa: S108
    ]
    environment = {**_environment(job.epoch), "LINES": "\n".join(job.suite.lines)}
    with _started(words, environment, job.progress, "debootstrap") as output:
        output.read()
    top = f"{job.scratch}/tree"
    _tell(job.progress, "making the layer")
    return store.add_layer(lambda sink: rootfs.pack_tree(top, sink)), _shell(top)


@contextlib.contextmanager
def _started(
    words: Sequence[str], environment: dict[str, str], progress: Progress | None, tool: str
) -> Iterator[IO[bytes]]:
    """Run the tool; give what it writes. It is over and has succeeded when the context is left.

    Raises
    ------
    ImageError
        It failed.
    """
    process = subprocess.Popen(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # an interrupt is ours to hand on
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    listener = threading.Thread(target=_listen, args=(process.stderr, said, progress), daemon=True)
    listener.start()
    failure: BaseException | None = None
    try:
        yield process.stdout
        while process.stdout.read(1 << 16):
            pass
        process.wait()
    except BaseException as error:
        failure = error
        raise
    finally:
        if process.poll() is None:
            _end(process)
        listener.join(timeout=5)
        process.stdout.close()
        process.stderr.close()
        # A stream cut off is the tool's failure rather than the tar's.
        if process.returncode > 0 and (failure is None or isinstance(failure, ImageError)):
            raise ImageError(f"{tool} failed: {_why(said)}")


def _listen(stderr: IO[bytes], said: list[str], progress: Progress | None) -> None:
    """Hand on what the tool says, one line an event."""
    for raw in stderr:
        line = raw.decode("utf-8", "replace").strip()
        if line:
            said.append(line)
            del said[:-40]
            if "--customize-hook" not in line:  # the removal of what is this machine's
                _tell(progress, line.removeprefix("I: "))


def _why(said: list[str]) -> str:
    """Choose among a tool's last words those that say what was wrong."""
    errors = [line for line in said if line.startswith(("E:", "Err:", "W:", "dpkg: error"))]
    return "; ".join((errors or said)[-_LAST_WORDS:])[:800] or "it said nothing"


def _end(process: subprocess.Popen[Any]) -> None:
    """End the tool and all it started: its PID namespace, or its session, goes with it."""
    if os.geteuid() == 0:
        process.kill()  # unshare's --kill-child and setpriv's pdeathsig take the namespace along
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tell(progress: Progress | None, note: str) -> None:
    if progress is not None:
        progress(Event("download", "", 0, None, note))
