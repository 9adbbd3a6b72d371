"""``commit`` and ``diff``: what the user has written, all of it and nothing else."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nscontainer
from nscontainer import images, spec
from nscontainer.engine.container import Container
from nscontainer.errors import NotFoundError, SpecError, StateError
from nscontainer.image import compression
from nscontainer.image.records import Image
from nscontainer.image.store import Store
from tests.integration import rootfs_images as made
from tests.integration.inside import Owner, eventually, private_engine

pytestmark = [pytest.mark.root, pytest.mark.once]

BASE = (
    made.LayerTar().directory("data").file("data/one", "1").file("data/two", "2")
    .directory("data/sub", mode=0o700, uid=7).file("data/sub/deep", "d").directory("keep")
    .file("keep/file", "k").directory("srv").file("run.sh", "#!/bin/sh\n", mode=0o755)
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def top() -> Iterator[Path]:
    """An engine of their own, and an image of two layers."""
    with private_engine() as directory:
        made.make("base", made.busybox().bytes(), BASE.bytes(), config={"Cmd": ["sh"]})
        yield directory


def diffed(container: Container) -> list[str]:
    return [str(change) for change in images.diff(container)]


def entries(image: Image) -> dict[str, tarfile.TarInfo]:
    """What is in an image's topmost layer."""
    with Store().open_blob(image.layers[-1].descriptor) as blob:
        data = io.BytesIO(compression.decompress(blob).read())
    with tarfile.open(fileobj=data) as tar:
        return {member.name: member for member in tar}


def out(script: str, image: str, **options: Any) -> str:
    result = nscontainer.run(["sh", "-c", script], image=image, **options)
    assert result.exit_code == 0, (result.describe_exit(), result.stderr)
    return str(result.stdout)


# --- diff ------------------------------------------------------------------------------------------

SCRIPTS = {
    "nothing": ("true", []),
    "read": ("cat /data/one; ls -lR /data /bin /etc > /dev/null", []),
    "add": ("echo x > /new; mkdir -p /a/b; echo y > /a/b/c", ["A /a", "A /a/b", "A /a/b/c", "A /new"]),
    "edit": ("echo more >> /data/one", ["C /data", "C /data/one"]),
    "delete": ("rm /data/one; rm -r /keep", ["C /data", "D /data/one", "D /keep"]),
    "nested": ("rm /data/sub/deep", ["C /data", "C /data/sub", "D /data/sub/deep"]),
    "opaque": (
        "rm -r /data; mkdir /data; echo 3 > /data/three; echo 1 > /data/one",
        ["C /data", "C /data/one", "D /data/sub", "A /data/three", "D /data/two"],
    ),
    "same": ("cp -p /data/one /tmp/x; rm /data/one; cp -p /tmp/x /data/one; rm /tmp/x", []),
    "chmod": ("chmod 600 /data/two; chown 5:6 /keep", ["C /data", "C /data/two", "C /keep"]),
    "touch": ("touch -d 2001-01-01 /data/two", ["C /data", "C /data/two"]),
    "kind": ("rm /data/one; mkdir /data/one", ["C /data", "C /data/one"]),
    "link": ("ln /data/one /hard; ln -s one /data/soft", ["C /data", "A /data/soft", "A /hard"]),
    "move": (
        "cp -r /data/sub /moved; rm -r /data/sub",
        ["C /data", "D /data/sub", "A /moved", "A /moved/deep"],
    ),
    "come and gone": ("echo x > /x; rm /x; mkdir /d; rmdir /d", []),
}  # fmt: skip


@pytest.mark.parametrize("kind", SCRIPTS)
@pytest.mark.parametrize("share", [[], ["user"]], ids=["userns", "host-userns"])
def test_diff(kind: str, share: list[str]) -> None:
    """Added, changed, deleted, as docker diff tells it; what is as it was isn't told."""
    script, expected = SCRIPTS[kind]
    with made.ended(script, share=share) as container:
        assert diffed(container) == expected


def test_diff_on_host(tmp_path: Path) -> None:
    """On the image host as well: in its views, and under what it hides."""
    script = (
        f"echo x > /etc/new; echo y > {tmp_path}/f; rm /etc/passwd; mkdir /srv/s; echo > /root/r"
    )
    with made.ended(script, "host", workdir=str(tmp_path)) as container:
        told = diffed(container)
    assert {"A /etc/new", "D /etc/passwd", "C /etc", "A /srv/s", "A /root/r"} <= set(told)
    assert f"A {tmp_path}/f" in told
    assert not [line for line in told if "nscontainer" in line.replace(str(tmp_path), "")]


# --- what is saved ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCRIPTS)
def test_commit_is_what_diff_tells(kind: str) -> None:
    """A container of the committed image has the same tree as the one that was committed."""
    script, _ = SCRIPTS[kind]
    look = "find /data /keep /srv /new /a /hard /moved /tmp -exec stat -c '%n %F %a %u:%g %s' {} + 2>/dev/null || true"
    look += "; cat /data/* /new 2>/dev/null || true"
    with made.ended(
        f"{script}; ({look}) | sort > /dev/shm/x; sort /dev/shm/x > /tmp/seen"
    ) as container:
        image = images.commit(container, "saved:1")
        seen = out("cat /tmp/seen", "saved:1")
    again = out(f"({look}) | sort | grep -v /tmp", "saved:1")
    expected = [line for line in seen.splitlines() if "/tmp" not in line]
    assert again.splitlines() == expected
    assert len(image.layers) == 3


def test_links_attributes_and_kinds() -> None:
    """Hard links, fifos, set-id bits, owners and nanoseconds come along."""
    script = (
        "echo x > /a; ln /a /b; mkfifo /p; echo y > /s; chown 3:4 /s; chmod 4755 /s; ln -s /a /l; "
        "mknod /dev/shm/c c 1 3 || true; touch -d '2020-01-02 03:04:05' /a"
    )
    made.make("fifo", made.busybox().link("bin/mkfifo", "busybox").bytes())
    with made.ended(script, "fifo") as container:
        images.commit(container, "kinds")
    said = out(
        "stat -c '%n %F %a %u:%g %h' /a /b /p /s; readlink /l; stat -c %Y /a; [ /a -ef /b ]",
        "kinds",
    )
    assert said.splitlines() == [
        "/a regular file 644 0:0 2", "/b regular file 644 0:0 2", "/p fifo 644 0:0 1",
        "/s regular file 4755 3:4 1", "/a", "1577934245",
    ]  # fmt: skip


def test_nothing_of_the_engine_is_saved(tmp_path: Path) -> None:
    """No init layer, no mount point, no directory on the way to one, no VOLUME."""
    (tmp_path / "f").write_text("the host's")
    made.make(
        "vol", made.busybox().bytes(), BASE.bytes(), config={"Volumes": {"/data": {}, "/v": {}}}
    )
    options: dict[str, Any] = {
        "volumes": [f"{tmp_path}:/new/deep/er", f"{tmp_path}/f:/etc/conf", f"{tmp_path}:/srv/in"],
        "tmpfs": ["/scratch", "/keep/tmp"],
    }
    script = (
        "echo 1 > /new/deep/er/x; echo 2 > /scratch/x; echo 3 > /keep/tmp/x; echo 4 > /data/one; "
        "echo 5 > /v/x; echo 6 > /run/nscontainer/x; rm -f /.nscontainerenv; echo h > /etc/hostname"
    )
    with made.ended(script, "vol", **options) as container:
        assert diffed(container) == []
        image = images.commit(container, "clean")
    assert entries(image) == {}
    with made.ended(
        script + "; echo 7 > /new/mine; echo 8 > /srv/own", "vol", **options
    ) as container:
        assert diffed(container) == ["A /new", "A /new/mine", "C /srv", "A /srv/own"]
        image = images.commit(container, "clean")
    assert sorted(entries(image)) == ["new", "new/mine", "srv", "srv/own"]
    assert out("cat /data/one; ls /v", "clean") == "1"


def test_working_directory_is_saved() -> None:
    """The working directory that was made is the user's, as in Docker."""
    with made.ended("true", workdir="/made/here") as container:
        assert diffed(container) == ["A /made", "A /made/here"]


def test_without_idmapped_ids() -> None:
    """Without a user namespace the owners in the layer are the same."""
    with made.ended("echo x > /f; chown 11:12 /f", share=["user"]) as container:
        image = images.commit(container, "owners")
    member = entries(image)["f"]
    assert (member.uid, member.gid) == (11, 12)


def test_commit_on_host(tmp_path: Path) -> None:
    """Of a container of the image host only what was written is saved, and it runs again."""
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "old").write_text("old")
    script = f"echo one > /etc/nsc-one; echo two > {lab}/two; rm {lab}/old"
    with made.ended(script, "host", workdir=str(lab)) as container:
        image = images.commit(container, "mine:1")
    assert image.on_host
    assert set(entries(image)) <= {
        "etc", "etc/nsc-one", *(str(p).lstrip("/") for p in (lab / "two", lab / ".wh.old", *lab.parents)),
        str(lab).lstrip("/"),
    }  # fmt: skip
    look = f"cat /etc/nsc-one; ls {lab}"
    result = nscontainer.run(["sh", "-c", look], image="mine:1", workdir=str(lab))
    assert result.stdout == "one\ntwo\n"
    with made.ended(
        f"echo more >> /etc/nsc-one; rm {lab}/two", "mine:1", workdir=str(lab)
    ) as container:
        assert f"D {lab}/two" in diffed(container)
        images.commit(container, "mine:2")
    assert (
        nscontainer.run(["sh", "-c", look], image="mine:2", workdir=str(lab)).stdout
        == "one\nmore\n"
    )
    cell = nscontainer.run_cell(
        "print(open('/etc/nsc-one').read())", image="mine:2", workdir=str(lab)
    )
    assert "more" in cell.stdout
    assert cell.record["start_mode"] == "zygote"
    assert not Path("/etc/nsc-one").exists()
    assert (lab / "old").exists()


# --- of which containers ----------------------------------------------------------------------------


def test_running_container_goes_on() -> None:
    """It is frozen while it is saved, and runs afterwards; what it holds open is saved as it is."""
    script = "i=0; while :; do i=$((i+1)); echo $i > /c; mv /c /count; done"
    with running(script) as container:
        eventually(lambda: container.exec(["cat", "/count"]).exit_code == 0)
        images.commit(container, "counted")
        assert container.status == "running"
        first = int(container.exec(["cat", "/count"]).stdout or 0)
        assert eventually(lambda: int(container.exec(["cat", "/count"]).stdout or 0) > first)
    assert int(out("cat /count", "counted") or 0) > 0


@contextlib.contextmanager
def running(script: str, **options: Any) -> Iterator[Container]:
    what = spec.build(["sh", "-c", script], **{"image": "base", **options})
    container = Container.create(what, start=True)
    try:
        yield container
    finally:
        with contextlib.suppress(StateError, NotFoundError):
            container.kill()
        container.wait()


def test_paused_container_stays_paused() -> None:
    """One that its user has paused is not let go."""
    with running("echo x > /x; sleep 100") as container:
        eventually(lambda: container.exec(["cat", "/x"]).exit_code == 0)
        container.pause()
        images.commit(container, "paused")
        assert container.status == "paused"
        container.resume()
    assert out("cat /x", "paused") == "x\n"


def test_by_name_and_unknown() -> None:
    """A name or id finds it; one that nobody has is an error."""
    with running("sleep 100") as container:
        images.commit(container.id, "by-id")
    with pytest.raises(NotFoundError, match="no container 'nobody'"):
        images.commit("nobody", "x")


def test_session(top: Path) -> None:
    """A session's container is saved like any, between its cells."""
    with nscontainer.session(workdir="/") as session:
        session.run_cell("open('/etc/from-session', 'w').write('s')")
        images.commit(session, "session:1")
        assert session.run_cell("print(1)").ok
    result = nscontainer.run(["cat", "/etc/from-session"], image="session:1")
    assert result.stdout == "s"


# --- the new image ----------------------------------------------------------------------------------


def test_configuration_and_history() -> None:
    """The base's configuration with the changes made, and one more step in its history."""
    changes = [
        'CMD ["echo", "hi"]', "ENV A=1 B='two words'", "LABEL by=me", "USER bob", "WORKDIR /data",
        "EXPOSE 80 53/udp", "VOLUME /vol", "STOPSIGNAL SIGINT",
    ]  # fmt: skip
    with made.ended("echo x > /x", env={"SECRET": "not saved"}) as container:
        image = images.commit(container, "conf", message="why", author="who", changes=changes)
    settings = image.config["config"]
    assert settings == {
        "Env": ["PATH=/bin", "A=1", "B=two words"], "Cmd": ["echo", "hi"], "Labels": {"by": "me"},
        "User": "bob", "WorkingDir": "/data", "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Volumes": {"/vol": {}}, "StopSignal": "SIGINT",
    }  # fmt: skip
    step = image.history[-1]
    assert (step["comment"], step["author"], image.config["author"]) == ("why", "who", "who")
    assert "SECRET" not in str(image.config)
    assert len([s for s in image.history if not s.get("empty_layer")]) == len(image.layers)
    assert nscontainer.run([], image="conf").stdout == "hi\n"


def test_a_new_entrypoint_drops_the_old_command() -> None:
    """As in a Dockerfile: CMD was meant for the other one."""
    with made.ended("true") as container:
        image = images.commit(container, "ep", changes=['ENTRYPOINT ["echo", "e"]'])
    assert (image.entrypoint, image.cmd) == (("echo", "e"), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("COPY a b", "COPY is none that changes an image"), ("USER", "USER says nothing"),
        ('CMD ["a"', "can't be read"), ("ENV =x", "can't be read"), ("EXPOSE www", "'www' is no port"),
        ("STOPSIGNAL SIGNONE", "signal 'SIGNONE' is not known"), ("VOLUME data", "is not absolute"),
        ("LABEL org.nscontainer.base=host", "is nscontainer's own"), ("ENV A='x", "can't be read"),
    ],
)  # fmt: skip
def test_a_change_that_is_none(change: str, message: str) -> None:
    """It is refused before anything is made, in one line."""
    before = [image.id for image in Store().images()]
    with made.ended("true") as container, pytest.raises(SpecError, match=message):
        images.commit(container, "bad", changes=[change])
    assert [image.id for image in Store().images()] == before


def test_an_image_in_use_stays() -> None:
    """Neither image nor layers go while a container stands on them."""
    with made.ended("echo x > /x") as container:
        images.commit(container, "used:1")
    with running("sleep 100", image="used:1") as container:
        container.exec(["true"])
        with pytest.raises(StateError, match="in use by container"):
            Store().remove("used:1")
        assert container.exec(["cat", "/x"]).stdout == b"x\n"
    assert any("deleted" in line for line in Store().remove("used:1"))


# --- cost and interruption --------------------------------------------------------------------------


def read_bytes() -> int:
    """What this process has read so far, from files and pipes."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    raise AssertionError


@pytest.mark.slow
def test_only_what_was_written_is_read() -> None:
    """10 MB written on an image of 1 GB: the other 990 MB are never read."""
    big = made.LayerTar()
    chunk = os.urandom(1 << 20) * 33
    for number in range(30):
        big.file(f"big{number}", chunk)
    made.make("gigabyte", made.busybox().bytes(), big.bytes())
    script = "dd if=/dev/urandom of=/ten bs=1M count=10 2>/dev/null; touch /big0.note"
    with made.ended(script, "gigabyte") as container:
        before = read_bytes()
        images.commit(container, "ten")
        read = read_bytes() - before
        assert 10 << 20 <= read < 12 << 20, read
        before = read_bytes()
        assert diffed(container) == ["A /big0.note", "A /ten"]
        assert read_bytes() - before < 1 << 20
    for name in ("ten", "gigabyte"):
        Store().remove(name)


def test_killed_commit_lets_go(top: Path) -> None:
    """SIGKILL in the midst of one: the container runs on, and no image, layer or blob has come."""
    before = {image.id for image in Store().images()}
    script = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.01; done"
    with running(
        f"dd if=/dev/urandom of=/much bs=1M count=64 2>/dev/null; touch /ready; {script}"
    ) as c:
        eventually(lambda: c.exec(["test", "-e", "/ready"]).exit_code == 0)
        source = f"from nscontainer import images\nprint('go', flush=True)\nimages.commit({c.id!r}, 'half')"
        owner = Owner(top, source)
        assert owner.line() == "go"
        assert eventually(lambda: c.status == "paused")
        os.kill(owner.process.pid, signal.SIGKILL)
        owner.kill()
        assert eventually(lambda: c.status == "running")
        first = int(c.exec(["cat", "/count"]).stdout or 0)
        assert eventually(lambda: int(c.exec(["cat", "/count"]).stdout or 0) > first)
    assert {image.id for image in Store().images()} == before


def test_killed_container_is_no_half_image() -> None:
    """A container that is killed and removed while it is saved gives an error and no image."""
    before = {image.id for image in Store().images()}
    with running(
        "dd if=/dev/urandom of=/much bs=1M count=64 2>/dev/null; touch /ready; sleep 100"
    ) as c:
        eventually(lambda: c.exec(["test", "-e", "/ready"]).exit_code == 0)

        def kill() -> None:
            eventually(lambda: c.status == "paused")
            time.sleep(0.05)
            Container.get(c.id).kill()

        thread = threading.Thread(target=kill)
        thread.start()
        with pytest.raises((StateError, NotFoundError)):
            images.commit(c, "half")
        thread.join()
    assert {image.id for image in Store().images()} == before
