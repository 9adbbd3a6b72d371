"""Images of an ordinary user: what root's are, with owners kept as subordinate ids, or all the user's own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nscontainer.image.store import Store
from tests import ordinary
from tests.integration import registries
from tests.integration import rootfs_images as made
from tests.integration.inside import eventually
from tests.ordinary import Person

pytestmark = [pytest.mark.root, pytest.mark.userns, pytest.mark.once]


@pytest.fixture(scope="module")
def user() -> Iterator[Person]:
    """An ordinary user with subordinate ids."""
    with ordinary.person() as one:
        yield one


@pytest.fixture(scope="module")
def lone() -> Iterator[Person]:
    """One without: root inside is all there is."""
    with ordinary.person(single=True) as one:
        yield one


PRELUDE = """
import io, json, os, sys
from nscontainer import images
from nscontainer.errors import NsContainerError
from nscontainer.image.store import Store
home = os.path.expanduser("~")
def tell(value):
    print(json.dumps(value))
"""


def ask(one: Person, source: str, **options: Any) -> Any:
    """Run Python as that user; give the JSON value that it tells."""
    done = one.python(PRELUDE + source, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def given(one: Person, name: str, data: bytes) -> str:
    """Put a file into a user's home; give its path."""
    path = one.home / name
    path.write_bytes(data)
    os.chown(path, one.uid, one.uid)
    return str(path)


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_raw=ep, version 2
"""As every image has it: no user namespace's (include/uapi/linux/capability.h)."""


def tree() -> bytes:
    """Every kind of entry that a user namespace can have: owners, modes, links, attributes, holes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes, mode: int, uid: int, **more: Any) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, uid, uid, 1_000_000
            data = more.pop("data", b"")
            info.size = len(data)
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))

        add("bin", tarfile.DIRTYPE, 0o755, 0)
        add("bin/su", tarfile.REGTYPE, 0o4755, 0, data=b"setuid")
        ping = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
        add("bin/ping", tarfile.REGTYPE, 0o755, 0, data=b"capable", pax_headers=ping)
        add("home", tarfile.DIRTYPE, 0o755, 0)
        add("home/closed", tarfile.DIRTYPE, 0o700, 1000)
        add("home/closed/file", tarfile.REGTYPE, 0o400, 1000, data=b"x" * 5000)
        add("home/closed/none", tarfile.REGTYPE, 0, 1001, data=b"nobody may")
        add("home/closed/hard", tarfile.LNKTYPE, 0o400, 1000, linkname="home/closed/file")
        note = {"SCHILY.xattr.user.note": "here"}
        add("home/noted", tarfile.REGTYPE, 0o644, 65533, data=bytes(1 << 17), pax_headers=note)
        add("run", tarfile.DIRTYPE, 0o1777, 0)
        add("run/fifo", tarfile.FIFOTYPE, 0o600, 33)
        add("run/link", tarfile.SYMTYPE, 0o777, 33, linkname="../home/closed")
    return out.getvalue()


def entries(tar: bytes) -> dict[str, tuple[Any, ...]]:
    """What a tar has, by name."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        return {
            one.name: (one.type, one.mode, one.uid, one.gid, one.mtime, one.size, one.linkname,
                       {k: v for k, v in one.pax_headers.items() if "xattr" in k})
            for one in file
        }  # fmt: skip


def test_a_tree_goes_in_and_out_as_roots_does(user: Person, tmp_path: Path) -> None:
    """import, export and save of a tree with all that a user namespace can have: the digests are root's."""
    archive = given(user, "tree.tar", tree())
    mine = ask(user, f"""
image = images.import_({archive!r}, "tree:1")
Store().unpack(image)
images.export("tree:1", home + "/out.tar")
images.save("tree:1", home + "/saved.tar")
images.remove("tree:1")
again = images.load(home + "/saved.tar")[0]
tell([image.layers[0].diff_id, again.layers[0].diff_id, Store().layer_facts(again.layers[0].diff_id)])
""")  # fmt: skip
    from nscontainer.image.archives import rootfs

    (tmp_path / "state").mkdir(0o700)
    store = Store(str(tmp_path / "state" / "images"))
    roots = rootfs.import_(archive, store=store).layers[0].diff_id
    assert mine[:2] == [roots, roots]
    assert mine[2]["notes"] == []
    assert entries((user.home / "out.tar").read_bytes()) == entries(tree())
    unpacked = next(Path(f"{user.state_dir}/images/layers").glob(f"{mine[0][7:15]}*[0-9a-f]"))
    assert (unpacked / "home/closed").stat().st_uid == user.subids + 999
    assert (unpacked / "bin/su").stat().st_uid == user.uid
    assert os.getxattr(unpacked / "bin/ping", "security.capability")[3] == 3, (
        "not the namespace's own"
    )


def test_owners_without_subordinate_ids(lone: Person) -> None:
    """With one id all files are the user's own, root's inside; it is said once."""
    notes = ask(lone, f"""
image = images.load({given(lone, "saved.tar", saved(tree()))!r})[0]
images.export(image.id, home + "/out.tar")
tell(Store().layer_facts(image.layers[0].diff_id)["notes"])
""")  # fmt: skip
    assert notes == ["all files are root's: this user has no subordinate ids (/etc/subuid)"]
    there = {name: (*facts[:2], 0, 0, *facts[4:]) for name, facts in entries(tree()).items()}
    assert entries((lone.home / "out.tar").read_bytes()) == there
    done = lone.nscontainer("import", given(lone, "tree.tar", tree()), "flat:1")
    assert done.stderr.splitlines() == [f"warning: {notes[0]}"]
    done = lone.nscontainer("prune", "--all", "--force")
    assert (done.returncode, done.stderr) == (0, "")
    assert not list((lone.state_dir / "images/layers").iterdir())


def saved(*layers: bytes) -> bytes:
    """Make what ``docker save`` would of some layers."""
    import hashlib

    out = io.BytesIO()
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]},
    }  # fmt: skip
    files = {f"{number}/layer.tar": one for number, one in enumerate(layers)}
    files["config.json"] = json.dumps(config).encode()
    manifest = [
        {"Config": "config.json", "RepoTags": ["saved:1"], "Layers": [*files][: len(layers)]}
    ]
    files["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_what_a_layer_deletes(user: Person) -> None:
    """Whiteouts and opaque directories are overlayfs' marks for who isn't root, and hide what is below."""
    below = (
        made.LayerTar()
        .directory("a")
        .file("a/1", "1")
        .directory("b", uid=7, mode=0o700)
        .file("b/2", "2")
    )
    above = (
        made.LayerTar()
        .directory("a")
        .file("a/.wh.1", "")
        .directory("b")
        .file("b/.wh..wh..opq", "")
        .file("b/3", "3")
    )
    names = ask(user, f"""
image = images.load({given(user, "two.tar", saved(below.bytes(), above.bytes()))!r})[0]
images.export(image.id, home + "/two-out.tar")
stack = images.layers("saved:1")
tell([[e.path, e.kind] for e in stack.entries])
""")  # fmt: skip
    assert sorted(entries((user.home / "two-out.tar").read_bytes())) == ["a", "b", "b/3"]
    kinds = dict(map(tuple, names))
    assert kinds["/a/1"] in ("deleted", "whiteout"), names
    tops = [p for p in (user.state_dir / "images/layers").iterdir() if (p / "b/3").exists()]
    assert [os.getxattr(top / "b", "user.overlay.opaque") for top in tops] == [b"y"]


CHANGING = "rm -r /data; mkdir /data; echo 3 > /data/three; mkdir -m 700 /p; echo x > /p/x"
DOCKERFILE = """
FROM base
RUN rm /data/one; echo built > /data/built; chmod 600 /data/built{give}
COPY --chown=3:4 here /etc/here
WORKDIR /w/d
"""


@pytest.mark.parametrize("which", ["user", "lone"])
def test_containers_change_images(which: str, request: pytest.FixtureRequest) -> None:
    """A container's changes are told, committed and run; RUN, COPY and WORKDIR make layers; all is removed."""
    one: Person = request.getfixturevalue(which)
    owners = which == "user"
    data = (
        made.LayerTar()
        .directory("data")
        .file("data/one", "1")
        .directory("data/sub", mode=0o700, uid=7)
    )
    archive = given(
        one, "base.tar", saved(made.busybox().bytes(), data.file("data/sub/deep", "d").bytes())
    )
    given(one, "here", b"here")
    script = CHANGING + (" && chown -R 5:6 /p" if owners else "")
    dockerfile = DOCKERFILE.format(give=" && chown 3:4 /data/built" if owners else "")
    diff, ran, layers, built, left = ask(one, f"""
import nscontainer
from nscontainer import spec
from nscontainer.engine.container import Container
images.load({archive!r}, name="base")
images.get("base")
held = Container.create(spec.build(["sh", "-c", {script!r}], image="base"), name="held", remove=False, start=True)
assert held.wait()["exit_code"] == 0
diff = [str(change) for change in images.diff(held)]
images.commit(held, "new:1")
def run(image, script):
    result = nscontainer.run(["sh", "-c", script], image=image)
    assert result.exit_code == 0, result.stderr
    return result.stdout.split()
ran = run("new:1", "ls /data; stat -c %u:%g:%a /p /p/x; cat /p/x")
layers = [layer.kind for layer in images.layers("held").layers]
os.chdir(home)
heard = []
images.build(".", text={dockerfile!r}, tags="built:1", on_event=heard.append)
assert [type(event).__name__ for event in heard].count("Done") == 4, heard
built = run("built:1", "ls /data; stat -c %u:%g:%a /data/built /etc/here; pwd")
held.remove()
images.prune(all=True)
tell([diff, ran, layers, built, [*os.listdir(Store().root + "/layers"), *os.listdir(home + "/.local/share/nscontainer/containers")]])
""")  # fmt: skip
    assert diff == ["C /data", "D /data/one", "D /data/sub", "A /data/three", "A /p", "A /p/x"]
    assert ran == ["three", *(["5:6:700", "5:6:644"] if owners else ["0:0:700", "0:0:644"]), "x"]
    assert layers == ["base", "image", "init", "rw"]
    assert built == [
        "built",
        "sub",
        *(["3:4:600", "3:4:644"] if owners else ["0:0:600", "0:0:644"]),
        "/w/d",
    ]
    assert left == []


def test_interrupts_and_failures_reach_the_owner(user: Person) -> None:
    """A refused tar, an interrupt in a progress callback, a stream that fails: each is raised, and nothing stays."""
    told = ask(user, f"""
found = []
def stop(event):
    raise KeyboardInterrupt
class Broken(io.RawIOBase):
    def readable(self): return True
    def readinto(self, buffer): raise OSError("the line is down")
for source, progress in (({given(user, "bad.tar", tree()[:1000])!r}, None), ({given(user, "t.tar", tree())!r}, stop), (Broken(), None)):
    try:
        images.import_(source, "bad:1", progress=progress)
    except BaseException as error:
        found.append([type(error).__name__, str(error)])
tell([found, [i.names for i in images.list("bad")], os.listdir(Store().scratch)])
""")  # fmt: skip
    assert [name for name, _ in told[0]][1] == "KeyboardInterrupt"
    assert told[0][0][0] == "LayerError"
    assert "the line is down" in told[0][2][1]
    assert told[1:] == [[], []]


def test_an_interrupted_build_leaves_nothing(user: Person) -> None:
    """Ctrl-C ends the helper's RUN and its container; the user is told as root is."""
    given(user, "base.tar", saved(made.busybox().bytes()))
    assert user.nscontainer("load", "-q", str(user.home / "base.tar")).returncode == 0
    given(user, "Dockerfile", b"FROM saved:1\nRUN echo begun; sleep 1000\n")
    words = ["build", "-f", str(user.home / "Dockerfile"), str(user.home)]
    program = [sys.executable, "-m", "nscontainer", *words]
    with user.start(program, stderr=subprocess.PIPE) as build:
        assert build.stderr is not None
        for line in build.stderr:
            if line.strip() == "begun":
                break
        build.send_signal(signal.SIGINT)
        rest = build.stderr.read()
    assert build.wait() == 130, rest
    assert "Traceback" not in rest
    assert not list((user.state_dir / "containers").iterdir())
    assert user.nscontainer("prune", "--all", "--force").returncode == 0


def test_gc_after_everything_was_killed(user: Person) -> None:
    """What a container wrote under subordinate ids, closed to its user, goes with gc."""
    given(user, "base.tar", saved(made.busybox().bytes()))
    assert user.nscontainer("load", "-q", str(user.home / "base.tar")).returncode == 0
    script = "mkdir -m 700 /p; echo x > /p/x; chown -R 5:6 /p; echo ready; sleep 1000"
    words = ["run", "--rm", "--image", "saved:1", "--", "sh", "-c", script]
    program = [sys.executable, "-m", "nscontainer", *words]
    with user.start(program, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        going = user.processes()
        for number in (
            signal.SIGSTOP,
            signal.SIGKILL,
        ):  # first still: none may tidy up after another
            for pid in going:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
    assert eventually(lambda: not user.processes())
    (closed,) = (user.state_dir / "containers").glob("*/upper0/p")
    assert closed.stat().st_uid == user.subids + 4
    assert user.nscontainer("gc").stdout.endswith(": removed its files\n")
    assert not list((user.state_dir / "containers").iterdir())
    assert user.nscontainer("prune", "--all", "--force").returncode == 0


@pytest.mark.images
def test_a_registry_gives_and_takes(user: Person, tmp_path: Path) -> None:
    """push and pull: the network is the user's own process's, the files the helper's."""
    archive = given(user, "tree.tar", saved(tree()))
    with registries.registry(tmp_path / "registry") as host:
        first, second, there = ask(user, f"""
made = images.load({archive!r})[0]
images.push(made.id, "{host}/lab:1")
images.remove(made.id, force=True)
told = []
got = images.pull("{host}/lab:1", progress=lambda event: told.append(event.kind))
assert {{"unpack", "done"}} <= set(told), told
tell([made.id, got.id, Store().layer_dir(got.layers[0].diff_id)])
images.remove(got.id, force=True)
""")  # fmt: skip
    assert first == second
    assert there
    assert not os.path.exists(there)


def test_root_has_no_helper() -> None:
    """For root a function that may run in the namespace is called as it is."""
    from nscontainer import inside

    assert not inside.needed()
    assert inside.call(os.getpid) == os.getpid()
