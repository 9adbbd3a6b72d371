"""Containers of stored images: what an image says of its run, as Docker does it."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nscontainer
from nscontainer import spec
from nscontainer.engine.container import Container
from nscontainer.errors import HostError, NotFoundError, SetupError, SpecError, StateError
from nscontainer.image.store import Store
from tests.integration import rootfs_images as made
from tests.integration.inside import eventually, private_engine

pytestmark = [pytest.mark.root, pytest.mark.once]

CONFIG = {
    "Env": ["PATH=/bin", "GREETING=hello", "EMPTY="],
    "Entrypoint": ["echo", "entry"],
    "Cmd": ["cmd"],
}


@pytest.fixture(scope="module", autouse=True)
def base() -> Iterator[bytes]:
    """An engine of their own, and busybox in it under a few configurations."""
    with private_engine():
        tar = made.busybox().bytes()
        made.make("bb", tar, config={"Cmd": ["sh", "-c", "echo its own"]})
        made.make("entry", tar, config=CONFIG)
        yield tar


def out(command: list[str], image: str = "bb", **options: Any) -> str:
    result = nscontainer.run(command, image=image, **options)
    assert result.exit_code == 0, (result.describe_exit(), result.stderr)
    return str(result.stdout)


# --- ENTRYPOINT, CMD, ENV, USER, WORKDIR -------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "entrypoint", "printed"),
    [
        ([], None, "entry cmd\n"),
        (["args", "two"], None, "entry args two\n"),
        (["args"], "echo", "args\n"),
        ([], "echo", "\n"),
        ([], ["echo", "-n", "x"], "x"),
        (["echo", "plain"], "", "plain\n"),
        (["echo", "plain"], [], "plain\n"),
    ],
)
def test_entrypoint_and_command(command: list[str], entrypoint: Any, printed: str) -> None:
    """Arguments replace CMD and follow ENTRYPOINT; another entrypoint drops both of the image's."""
    assert out(command, "entry", entrypoint=entrypoint) == printed


def test_no_command_at_all(base: bytes) -> None:
    """An image without CMD is refused in one line when none is given."""
    made.make("none", base)
    with pytest.raises(SpecError, match="image 'none' has no command of its own"):
        nscontainer.run([], image="none")


def test_a_result_can_be_run_again() -> None:
    """The spec in a result has the whole command, and running it doesn't double the entrypoint."""
    first = nscontainer.run([], image="entry")
    again = Container.create(first.spec, start=True).wait()
    assert again["exit_code"] == 0
    assert first.spec.command == ("echo", "entry", "cmd")
    assert again["spec"]["command"] == ["echo", "entry", "cmd"]


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image's variables, the caller's over them, and nothing of this machine's own."""
    for name in ("VIRTUAL_ENV", "LD_LIBRARY_PATH", "LC_ALL", "OMP_NUM_THREADS", "TZ"):
        monkeypatch.setenv(name, "the host's")
    printed = out(["env"], "entry", entrypoint="", env={"GREETING": "bye", "X": "1"})
    variables = dict(line.split("=", 1) for line in printed.splitlines())
    expected = {"PATH": "/bin", "GREETING": "bye", "EMPTY": "", "X": "1", "HOME": "/root"}
    assert variables.pop("HOSTNAME")
    variables.pop("SHLVL", None)
    variables.pop("PWD", None)
    assert variables == expected


def test_default_path(base: bytes) -> None:
    """An image that sets no PATH gets Docker's."""
    made.make("nopath", base, config={"Env": []})
    assert out(["/bin/sh", "-c", "echo $PATH"], "nopath").strip() == (
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    )


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("bob", "1000 1001 /home/bob 50"),
        ("1000", "1000 1001 /home/bob 50"),
        ("bob:staff", "1000 50 /home/bob"),
        ("4321", "4321 0 /"),
        ("7:8", "7 8 /"),
    ],
)
def test_user(base: bytes, user: str, expected: str) -> None:
    """USER by name and number, looked up in the image's own files, HOME with it."""
    made.make("user", base, config={"User": user})
    script = "echo $(id -u) $(id -g) $HOME $(sed -n 's/^Groups:\\t//p' /proc/self/status)"
    assert out(["sh", "-c", script], "user").strip() == expected
    assert out(["sh", "-c", script], "user", user="0").startswith("0 0 /root")


def test_unknown_user(base: bytes) -> None:
    """A USER that the image hasn't got is one line, and nothing is left."""
    made.make("nobody", base, config={"User": "carol"})
    with pytest.raises(SpecError, match="'carol' is not in the container's /etc/passwd"):
        nscontainer.run(["true"], image="nobody")


def test_workdir(base: bytes) -> None:
    """WORKDIR is made where it is missing, root's as in Docker; the caller's wins."""
    made.make("wd", base, config={"WorkingDir": "/srv/app", "User": "bob"})
    assert out(["sh", "-c", "pwd; stat -c '%u %a' ."], "wd") == "/srv/app\n0 755\n"
    assert out(["pwd"], "wd", workdir="/tmp") == "/tmp\n"
    made.make("wd", base, config={"WorkingDir": "app"})
    assert out(["pwd"], "wd") == "/app\n"


def test_stop_signal(base: bytes) -> None:
    """STOPSIGNAL is what stop sends first."""
    made.make("stop", base, config={"StopSignal": "SIGUSR1"})
    script = "trap 'echo usr1; exit 7' USR1; while :; do sleep 0.05; done"
    container = Container.create(spec.build(["sh", "-c", script], image="stop"), start=True)
    container.exec(["true"])
    container.stop()
    assert container.wait()["exit_code"] == 7


def test_hosts_python_stays_out() -> None:
    """A cell in an image without Python is refused before anything is made."""
    with pytest.raises(SpecError, match="image 'bb' has no python3") as caught:
        nscontainer.run_cell("1", image="bb")
    assert "--sh" in str(caught.value.hint)


def test_a_python_that_is_too_old(base: bytes) -> None:
    """What the runner says of it is a cell's error output, and the reason why there is no session."""
    words = "nscontainer: a cell needs Python 3.8 or newer, and the image's python3 is 3.7"
    script = f'#!/bin/sh\necho "{words}" >&2\nexit 126\n'
    old = made.LayerTar().file("bin/python3", script, mode=0o755)
    made.make("old", base, old.bytes())
    result = nscontainer.run_cell("1", image="old")
    assert (result.exit_code, result.stderr) == (126, words + "\n")
    said = []
    for _ in range(8):  # at whatever moment it is found out
        try:
            said.append(nscontainer.session("lab", image="old").run_cell("1").describe_exit())
        except StateError as error:
            said.append(error.message)
    reason = "can't begin: a cell needs Python 3.8 or newer"
    assert any(reason in text for text in said), said


def test_unknown_image() -> None:
    """A name that isn't here says so, with the nearest name and how to get it."""
    with pytest.raises(NotFoundError, match="no image 'entyr'; there is entry:latest") as caught:
        nscontainer.run(["true"], image="entyr")
    assert caught.value.hint == "pull entyr gets it from its registry"


def test_another_architecture(base: bytes) -> None:
    """An image for another machine is refused, and says which to get."""
    made.make("arm", base, architecture="arm64")
    with pytest.raises(HostError, match="image 'arm' is for arm64, and this machine is amd64"):
        nscontainer.run(["true"], image="arm")


def test_provenance() -> None:
    """A result says which image, by its digest and its layers', and no package of this machine."""
    image = Store().get("bb")
    where = nscontainer.run(["true"], image="bb").provenance
    assert (where.image, where.image_digest) == ("bb", image.id)
    assert where.image_layers == tuple(layer.diff_id for layer in image.layers)
    assert (where.python, dict(where.packages)) == (None, {})


@pytest.mark.parametrize("share", [[], ["user"]])
def test_owners(base: bytes, share: list[str]) -> None:
    """What the image says is whose: with a user namespace and without one."""
    tar = made.LayerTar().file("mine", "x", uid=1000, gid=1001, mode=0o600).directory("d", uid=7)
    made.make("owned", base, tar.bytes())
    assert out(["stat", "-c", "%u:%g %a", "/mine", "/d", "/bin"], "owned", share=share) == (
        "1000:1001 600\n7:0 755\n0:0 755\n"
    )


# --- the init layer ------------------------------------------------------------------------------


def test_init_layer() -> None:
    """The engine's files are there, and what the image has keeps its mode."""
    said = out(["sh", "-c", "cat /etc/hostname; readlink /etc/mtab; stat -c %a /tmp /etc; ls /dev"])
    lines = said.splitlines()
    assert len(lines[0]) == 12
    assert lines[1:4] == ["/proc/mounts", "1777", "755"]
    assert {"null", "pts", "shm"} <= set(lines[4:])


EVIL: dict[str, made.LayerTar] = {
    "etc-up": made.LayerTar().link("etc", "../../../../etc"),
    "etc-root": made.LayerTar().link("etc", "/"),
    "etc-file": made.LayerTar().file("etc", "no directory"),
    "proc-link": made.LayerTar().link("proc", "/tmp"),
    "proc-file": made.LayerTar().file("proc", "x"),
    "sys-dev-links": made.LayerTar().link("sys", "/etc").link("dev", "/tmp"),
    "run-root": made.LayerTar().link("run", "/"),
    "run-proc": made.LayerTar().link("run", "/proc/1/root"),
    "run-fd": made.LayerTar().link("run", "/proc/self/fd/3"),
    "run-file": made.LayerTar().file("run", "x"),
    "run-loop": made.LayerTar().link("run", "run"),
    "own-link": made.LayerTar().directory("run").link("run/nscontainer", "/"),
    "own-file": made.LayerTar().directory("run").file("run/nscontainer", "x"),
    "names-out": made.LayerTar().link("etc/hosts", "/proc/self/fd/2").link(
        "etc/hostname", "/dev/null"
    ).link("etc/resolv.conf", "../run/systemd/stub.conf"),
    "names-dirs": made.LayerTar().directory("etc/hosts").fifo("etc/hostname").link(
        "etc/resolv.conf", "resolv.conf"
    ),
    "marker-out": made.LayerTar().link(".nscontainerenv", "/etc/passwd"),
}  # fmt: skip


@pytest.mark.parametrize("kind", EVIL)
def test_evil_images(base: bytes, kind: str) -> None:
    """Links and files where directories are expected: it starts all the same, and harms nothing."""
    before = {path: Path(path).read_bytes() for path in ("/etc/hosts", "/etc/hostname")}
    made.make(f"evil-{kind}", base, EVIL[kind].bytes())
    script = "test -d /proc/self && test -c /dev/null && echo x > /dev/null && echo safe; id -u"
    assert out(["sh", "-c", script], f"evil-{kind}") == "safe\n0\n"
    assert {path: Path(path).read_bytes() for path in before} == before


# --- many layers -----------------------------------------------------------------------------------


def test_128_layers(base: bytes) -> None:
    """As many as Docker allows: all are there, the topmost wins, and a whiteout hides."""
    store = Store()
    layers = [store.add_layer(_stream(base), "none")]
    for number in range(1, 127):
        tar = made.LayerTar().file(f"f{number}", str(number)).file("last", str(number))
        layers.append(store.add_layer(_stream(tar.bytes()), "none"))
    layers.append(store.add_layer(_stream(made.LayerTar().file(".wh.f1").bytes()), "none"))
    made.make("many", *layers)
    said = out(["sh", "-c", "cat /last; echo; ls / | grep -c '^f[0-9]'; cat /f126"], "many")
    assert said == "126\n125\n126"


def _stream(data: bytes) -> Any:
    return io.BytesIO(data)


# --- volumes, tmpfs, read-only -----------------------------------------------------------------------


def test_volumes_anywhere(base: bytes, tmp_path: Path) -> None:
    """Over a directory, over nothing, below a link and through one that leads nowhere."""
    (tmp_path / "f").write_text("here")
    links = made.LayerTar().directory("real").link("alias", "/real").link("gone", "../no/where")
    made.make("linked", base, links.bytes())
    for target in ("/etc", "/a/b/c", "/alias/deep/er", "/gone", "/tmp"):
        said = out(["cat", f"{target}/f"], "linked", volumes=[f"{tmp_path}:{target}:ro"])
        assert said == "here", target
    assert out(["cat", "/no/where/f"], "linked", volumes=[f"{tmp_path}:/gone"]) == "here"
    assert out(["cat", "/etc/passwd"], "linked", volumes=[f"{tmp_path}/f:/etc/passwd"]) == "here"


def test_a_directory_on_a_file(tmp_path: Path) -> None:
    """Where the two don't fit, the error names the place."""
    with pytest.raises(SetupError, match="/etc/passwd"):
        nscontainer.run(["true"], image="bb", volumes=[f"{tmp_path}:/etc/passwd"])


def test_mount_option(tmp_path: Path) -> None:
    """Docker's long form: bind and tmpfs, read-only, size and mode."""
    (tmp_path / "f").write_text("here")
    mounts = [
        f"type=bind,source={tmp_path},target=/data,readonly",
        "type=tmpfs,dst=/scratch,tmpfs-size=1M,tmpfs-mode=0700",
    ]
    script = (
        "cat /data/f; touch /data/g || echo ' ro'; stat -c %a /scratch; df -k /scratch | tail -1"
    )
    said = out(["sh", "-c", script], mounts=mounts)
    assert said.startswith("here ro\n700\n")
    assert " 1024 " in said


def test_tmpfs_options() -> None:
    """Docker's options of --tmpfs: owner, mode, read-only, no execution."""
    tmpfs = ["/a:size=1M,mode=0750,uid=1000,gid=1001", "/b:ro", "/c:noexec"]
    script = "stat -c '%u:%g %a' /a; touch /b/x || echo ro; cp /bin/busybox /c/; /c/busybox || echo noexec"
    assert out(["sh", "-c", script], tmpfs=tmpfs) == "1000:1001 750\nro\nnoexec\n"


def test_read_only(tmp_path: Path) -> None:
    """The root can't be written, volumes and tmpfs can."""
    script = "touch /x || echo ro; touch /data/x /t/x && echo rw"
    said = out(["sh", "-c", script], read_only=True, volumes=[f"{tmp_path}:/data"], tmpfs=["/t"])
    assert said == "ro\nrw\n"
    assert (tmp_path / "x").exists()


# --- what else containers do -------------------------------------------------------------------------


def test_an_image_of_nothing() -> None:
    """One without any layer has the engine's own files and no program."""
    made.make("scratch", config={"Cmd": ["/anything"]})
    result = nscontainer.run([], image="scratch")
    assert (result.exit_code, result.record["exec_error"]) == (
        127, "command '/anything' not found in the container",
    )  # fmt: skip


def test_exec_and_detached() -> None:
    """A detached one is found by name; exec has the image's variables, user and directory."""
    config = {"Env": ["PATH=/bin", "A=1"], "User": "bob", "WorkingDir": "/tmp"}
    made.make("settled", made.busybox().bytes(), config=config)
    container = nscontainer.run(["sleep", "100"], image="settled", name="lab", detach=True)
    try:
        found = Container.get("lab")
        assert found.inspect()["image_id"] == Store().get("settled").id
        said = found.exec(["sh", "-c", "id -un; pwd; echo $A $HOME"]).stdout
        assert said == b"bob\n/tmp\n1 /home/bob\n"
    finally:
        container.remove(force=True)


def test_one_stands_by_for_an_image(base: bytes) -> None:
    """The next start of the same image is a pooled one; of another image, or the host, it isn't."""
    made.make("pool", base)
    other = made.LayerTar().file("other", "x").bytes()
    made.make("pool2", base, other)

    def pooled(image: str) -> bool:
        return bool(nscontainer.run(["true"], image=image).record["pooled"])

    pooled("pool")
    assert eventually(lambda: pooled("pool"))
    time.sleep(0.3)
    assert not pooled("pool2")
    time.sleep(0.3)
    assert not nscontainer.run(["true"]).record["pooled"]


def test_a_layer_unpacked_anew_is_another(base: bytes) -> None:
    """What stood by on layers that were removed since is not handed out: the files are all there."""
    tar = made.LayerTar().file("here", "yes").bytes()
    made.make("anew", base, tar)
    assert out(["cat", "/here"], "anew") == "yes"
    time.sleep(0.3)  # one stands by
    Store().remove("anew")
    made.make("anew", base, tar)
    assert out(["cat", "/here"], "anew") == "yes"


def test_a_foreign_image_on_the_host(tmp_path: Path) -> None:
    """One that claims to stand on ``host``, with links and marks of its own, sees no more of it."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    tar = made.LayerTar().link("home", str(secret)).link("root", "/").directory("x")
    tar.link("x/up", "../../../..").link(str(tmp_path).lstrip("/"), str(secret))
    made.make("foreign", tar.bytes(), config={"Labels": {"org.nscontainer.base": "host"}})
    script = (
        f"cat {secret}/key /home/key /root{secret}/key /x/up{secret}/key; cat /etc/shadow; true"
    )
    result = nscontainer.run(["sh", "-c", script], image="foreign", workdir="/")
    assert (result.exit_code, result.stdout) == (0, "")
