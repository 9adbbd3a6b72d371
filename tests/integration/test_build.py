"""Builds with real containers: what is built, what is cached, and what is left when one fails."""

from __future__ import annotations

import concurrent.futures
import contextlib
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

from nscontainer import api
from nscontainer.build import cache, execute
from nscontainer.build.trees import Union
from nscontainer.engine.container import Container
from nscontainer.errors import BuildError, NotFoundError, NsContainerError, SpecError, one_line
from nscontainer.image.records import Image, Layer
from nscontainer.image.store import Store
from tests.integration.building import build, make_base, shell, write
from tests.integration.inside import ROOT, eventually

pytestmark = [pytest.mark.root, pytest.mark.once, pytest.mark.usefixtures("engine")]


@pytest.fixture(scope="module", autouse=True)
def _base(engine: Path) -> None:
    make_base()


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes a container fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a container was made")

    monkeypatch.setattr(Container, "create", refuse)


def containers(engine: Path) -> list[str]:
    folder = engine / "containers"
    return os.listdir(folder) if folder.is_dir() else []


EVERY = """
FROM base AS first
ARG GREETING=hello
RUN echo $GREETING > /greeting && rm /bin/wc
FROM first
ENV A=1 PATH=/opt/bin:$PATH
WORKDIR /work
WORKDIR sub
COPY --chown=alice:staff --chmod=0640 a.txt d ./
ADD archive.tar /un/packed/
USER alice
RUN id -un > /tmp/who; pwd > /tmp/where; echo "$A $PATH" > /tmp/env
RUN ["/bin/sh", "-c", "echo exec > /tmp/exec"]
RUN <<EOF
for x in 1 2; do echo $x; done > /tmp/here
EOF
COPY --from=first /greeting /copied
COPY <<one <<'two' /made/
A is $A
one
A is $A
two
LABEL l="a b" m=$A
EXPOSE 80 53/udp 8000-8001
VOLUME /data
STOPSIGNAL SIGINT
SHELL ["/bin/ash", "-ec"]
ENTRYPOINT echo entry
CMD ["x"]
"""


def test_every_instruction(engine: Path, tmp_path: Path) -> None:
    """Files, owners, modes and config are what the instructions say."""
    write(tmp_path, {"a.txt": "a", "d/b.txt": "b", "in/packed.txt": "p"})
    with tarfile.open(tmp_path / "archive.tar", "w:gz") as tar:
        tar.add(tmp_path / "in", "in")
    image = build(EVERY, tmp_path, "every:1", "every:latest").image
    assert image is not None
    assert image.names == ("every:1", "every:latest")
    config = image.config["config"]
    assert config["Env"] == ["PATH=/opt/bin:/bin:/usr/bin", "A=1"]
    assert config["WorkingDir"] == "/work/sub"
    assert config["User"] == "alice"
    assert config["Labels"] == {"l": "a b", "m": "1"}
    assert sorted(config["ExposedPorts"]) == ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]
    assert config["Volumes"] == {"/data": {}}
    assert config["StopSignal"] == "SIGINT"
    assert config["Entrypoint"] == ["/bin/ash", "-ec", "echo entry"]
    assert config["Cmd"] == ["x"]
    told = shell(
        image,
        "cat /greeting /copied /tmp/who /tmp/where /tmp/env /tmp/exec /tmp/here /made/one /made/two; "
        "cat /un/packed/in/packed.txt; echo; "
        "stat -c '%n %u:%g %a' /work /work/sub a.txt b.txt /tmp /tmp/who; "
        "test -e /bin/wc || echo gone",
    )
    assert told.splitlines() == [
        *("hello", "hello", "alice", "/work/sub", "1 /opt/bin:/bin:/usr/bin", "exec", "1", "2"),
        *("A is 1", "A is $A", "p", "/work 0:0 755", "/work/sub 0:0 755"),
        *("a.txt 1000:50 640", "b.txt 1000:50 640", "/tmp 0:0 1777", "/tmp/who 1000:1000 644"),
        "gone",
    ]
    layers = [entry for entry in image.history if not entry.get("empty_layer")]
    assert len(layers) == len(image.layers) - 1  # the base has no history
    assert not containers(engine)


@pytest.mark.usefixtures("nothing_runs")
def test_no_container_where_nothing_runs(tmp_path: Path) -> None:
    """COPY, ADD and WORKDIR write their layers from here."""
    write(tmp_path, {"a": "a"})
    assert build("FROM base\nWORKDIR /w\nCOPY a /b\nENV A=1", tmp_path).image is not None


CACHED = """
FROM base
RUN echo one > /one
COPY f /f
RUN echo two > /two
ENV A=1
"""


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second build runs nothing and gives the same image; a time doesn't count, a content does."""
    write(tmp_path, {"f": "f"})
    first = build(CACHED, tmp_path, "cached")
    assert set(first.steps.values()) == {"ran"}
    with monkeypatch.context() as patched:
        patched.setattr(execute, "run", lambda *_: pytest.fail("a container was made"))
        os.utime(tmp_path / "f", (1, 1))
        second = build(CACHED, tmp_path, "cached")
    assert set(second.steps.values()) == {"cached"}
    assert first.image is not None
    assert second.image == first.image
    write(tmp_path, {"f": "changed"})
    third = build(CACHED, tmp_path, "cached")
    assert third.steps == {
        "RUN echo one > /one": "cached",
        "COPY f /f": "ran",
        "RUN echo two > /two": "ran",
        "ENV A=1": "ran",
    }
    assert third.image is not None
    assert shell(third.image, "cat /f") == "changed"
    again = build(CACHED, tmp_path, "cached", use_cache=False)
    assert set(again.steps.values()) == {"ran"}


def test_what_is_built_is_kept_once(tmp_path: Path) -> None:
    """After a build that succeeded there is one image more: none that only kept its layers."""
    before = {image.id for image in Store().images()}
    write(tmp_path, {"f": "kept once"})
    build(CACHED, tmp_path, "kept:1")
    after = [image for image in Store().images() if image.id not in before]
    assert [image.names for image in after] == [("kept:1",)]


def test_build_args_count_where_they_are_used() -> None:
    """One that changes makes the RUNs after its ARG run again, none before; a proxy never does."""
    text = "FROM base\nRUN true\nARG X=1\nRUN echo x is $X and $http_proxy\n"
    assert "x is 1 and" in build(text).said
    second = build(text, build_args={"X": "2", "http_proxy": "http://p", "Y": "3"})
    assert list(second.steps.values()) == ["cached", "ran", "ran"]
    assert "x is 2 and http://p" in second.said
    assert second.notes == ["--build-arg Y: there is no ARG Y"]
    third = build(text, build_args={"X": "2", "http_proxy": "http://other"})
    assert set(third.steps.values()) == {"cached"}
    assert third.image is not None
    assert not any("http_proxy=" in str(entry) for entry in third.image.history)


def test_an_env_is_stronger_than_an_arg() -> None:
    """As in Docker."""
    built = build("FROM base\nARG V=arg\nENV V=env\nRUN echo $V", build_args={"V": "x"})
    assert built.said == "env\n"


STAGES = """
FROM base AS builder
RUN mkdir /out && echo made > /out/file && chown 1000:50 /out/file && ln -s file /out/link
RUN ln -s /out /shortcut
FROM base AS unused
RUN exit 1
FROM scratch
COPY --from=builder /shortcut/ /all/
COPY --from=0 /out/link /followed
COPY --from=base /bin/busybox /bin/
"""


def test_stages() -> None:
    """Files come with their owners, links are followed in the other root; unused stages aren't run."""
    image = build(STAGES).image
    assert image is not None
    assert len(image.layers) == 3
    script = "/bin/busybox stat -c '%n %u:%g %F' /all/file /all/link /followed"
    result = api.run(["/bin/busybox", "sh", "-c", script], image=image.id)
    assert result.stdout.splitlines() == [
        "/all/file 1000:50 regular file",
        "/all/link 0:0 symbolic link",
        "/followed 1000:50 regular file",
    ]
    with pytest.raises(BuildError):
        build(STAGES, target="unused")
    assert set(build(STAGES, target="builder").steps.values()) == {"cached"}


def test_parents_that_are_links_or_there_already(tmp_path: Path) -> None:
    """/bin and /var/run stay links, /tmp and /srv keep their modes: as a container sees them."""
    write(tmp_path, {"tool": "#!/bin/sh\necho tool", "d/x": "x"})
    (tmp_path / "tool").chmod(0o755)
    image = build(
        "FROM base\nCOPY tool /bin/\nCOPY d /var/run/d\nCOPY d /tmp\nADD d /srv/\nCOPY tool /tmp/.",
        tmp_path,
    ).image
    assert image is not None
    script = "tool; ls -d /usr/bin/tool /tmp/x /tmp/tool; stat -c '%F %a' /bin /var/run /tmp /srv"
    assert shell(image, script).splitlines() == [
        *("tool", "/tmp/tool", "/tmp/x", "/usr/bin/tool"),
        *("symbolic link 777", "symbolic link 777", "directory 1777", "directory 2750"),
    ]


def test_dockerignore(tmp_path: Path) -> None:
    """What is ignored isn't copied, doesn't count for the cache, and is named in the error."""
    write(tmp_path, {".dockerignore": "secret*\n**/*.log\n!keep.log", "a": "", "secret1": ""})
    write(tmp_path, {"d/x.log": "", "keep.log": ""})
    text = "FROM base\nCOPY . /all"
    image = build(text, tmp_path).image
    assert image is not None
    assert shell(image, "ls -A /all /all/d").split() == [
        *("/all:", ".dockerignore", "a", "d", "keep.log", "/all/d:")
    ]
    write(tmp_path, {"secret1": "changed", "secret2": "new"})
    assert set(build(text, tmp_path).steps.values()) == {"cached"}
    with pytest.raises(SpecError, match="'secret1' isn't there") as caught:
        build("FROM base\nCOPY secret1 /", tmp_path)
    assert ".dockerignore leaves it out" in one_line(caught.value)


def test_a_run_that_cannot_begin_says_where(engine: Path) -> None:
    """A user that the image lacks is known only when the container is made: the line is named all the same."""
    with pytest.raises(SpecError, match=r"^Dockerfile:3: RUN: user 'nosuch'"):
        build("FROM base\nUSER nosuch\nRUN id")
    assert containers(engine) == []


def test_a_step_that_fails_leaves_nothing(engine: Path) -> None:
    """One line says which, where, how, and its last words; what came before is in the cache."""
    text = "FROM base\nRUN echo fine > /fine\n\nRUN echo some words >&2; exit 7\nRUN echo after"
    with pytest.raises(BuildError) as caught:
        build(text, None, "failed:1")
    assert caught.value.exit_code == 7
    said = one_line(caught.value)
    assert said.startswith("Dockerfile:4: RUN echo some words >&2; exit 7: ")
    assert said.endswith("; it said last: some words")
    assert "7" in said.removeprefix("Dockerfile:4: RUN echo some words >&2; exit 7: ")
    assert not containers(engine)
    with pytest.raises(NotFoundError):
        Store().get("failed:1")
    mended = build(text.replace("exit 7", "exit 0"), None, "failed:1")
    assert list(mended.steps.values()) == ["cached", "ran", "ran"]
    kept = [image for image in Store().images() if "> /fine" in str(image.history)]
    assert [image.names for image in kept] == [("failed:1",)]


def test_no_program_in_the_image() -> None:
    """FROM scratch, a RUN is told what it lacks; so is one whose program isn't there."""
    with pytest.raises(SpecError, match="RUN: the image is empty"):
        build("FROM scratch\nRUN true")
    with pytest.raises(BuildError) as caught:
        build('FROM base\nRUN ["/nowhere/program"]')
    assert "/nowhere/program" in one_line(caught.value)
    assert caught.value.exit_code == 127


def test_a_user_that_isnt_there(engine: Path) -> None:
    """The RUN that would be theirs fails with the name in the error, and leaves nothing."""
    with pytest.raises(NsContainerError) as caught:
        build("FROM base\nUSER nobody-here\nRUN true")
    assert "nobody-here" in one_line(caught.value)
    assert not containers(engine)


def test_an_image_of_nothing_but_a_config() -> None:
    """FROM scratch with no file at all is an image too."""
    image = build('FROM scratch\nCMD ["/x"]').image
    assert image is not None
    assert image.layers == ()
    assert image.cmd == ("/x",)


def test_what_a_run_writes_into_a_volume_is_dropped(tmp_path: Path) -> None:
    """From the VOLUME on, as Docker's documentation says; a COPY into it stays."""
    write(tmp_path, {"f": "f"})
    text = (
        "FROM base\nRUN mkdir /v; echo 1 > /v/1\nVOLUME /v\nRUN echo 2 > /v/2\nCOPY f /v/\nRUN true"
    )
    image = build(text, tmp_path).image
    assert image is not None
    store = Store()
    union = Union([store.layer_dir(layer.diff_id) or "" for layer in image.layers])
    assert union.names("v") == ["1", "f"]


def test_an_image_that_another_build_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two same builds at a time share an image on the way; who is through first may take it away."""
    real = execute.run
    taken: list[list[str]] = []

    def taking(command: execute.Command, image: Image, store: Store, *more: Any) -> Layer:
        if len(taken) < 2:
            taken.append(store.remove(image.manifest.digest))
        return real(command, image, store, *more)

    build("FROM base\nRUN echo shared > /shared")
    text = "FROM base\nRUN echo shared > /shared\nENV A=1\nRUN cat /shared"
    for image in Store().images():
        if not image.names and "/shared" in str(image.history):
            Store().tag(image.manifest.digest, "keeps-its-layer")
    monkeypatch.setattr(execute, "run", taking)
    assert build(text).said == "shared\n"
    assert len(taken) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM base\nRUN echo x\nHEALTHCHECK CMD x", "Dockerfile:3: HEALTHCHECK isn't supported"),
        ("FROM base\nCOPY a b", "COPY needs files, and there is no context"),
        ("FROM base\nUSER $NONE", "Dockerfile:2: USER $NONE is empty"),
        ("FROM base\nEXPOSE http", "Dockerfile:2: port 'http' can't be read"),
        ("FROM base\nSTOPSIGNAL SIGNOT", "Dockerfile:2: signal 'SIGNOT' is not known"),
        ("FROM base\nENV A=${B", "Dockerfile:2: ${B"),
        ("FROM base\nCOPY --from=host /etc/shadow /", "'host' has no files to copy"),
        ("FROM base\nCOPY --chown=bob --from=base /bin /x", "user 'bob' isn't in the image"),
        ("FROM base\nLABEL org.nscontainer.base=host", "is nscontainer's own"),
    ],
)
def test_what_cant_be_done_is_said_with_its_line(text: str, said: str) -> None:
    """In one line."""
    with pytest.raises(SpecError) as caught:
        build(text)
    assert said in one_line(caught.value)


@pytest.mark.usefixtures("nothing_runs")
def test_a_text_that_is_wrong_makes_nothing() -> None:
    """Not even the steps before the line that can't be done."""
    with pytest.raises(SpecError, match="Dockerfile:3"):
        build("FROM base\nRUN echo never\nONBUILD RUN x")


def test_a_hostile_archive_stays_inside(tmp_path: Path) -> None:
    """ADD of an archive with .. and absolute names, and a link out of it, writes nothing here."""
    target = tmp_path / "outside"
    target.mkdir()
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(target)
        tar.addfile(link)
        for name in ("out/through", "../../up", f"{target}/absolute"):
            tar.addfile(tarfile.TarInfo(name))
    with contextlib.suppress(NsContainerError):  # refused, or kept inside: both will do
        build("FROM base\nADD bad.tar /x/", tmp_path)
    assert os.listdir(target) == []
    assert not os.path.exists("/up")
    assert not [name for name in os.listdir(f"{Store().root}/layers") if name.startswith(".add")]


def test_on_the_host_image(tmp_path: Path) -> None:
    """FROM host stands on this machine's own system: RUN and COPY, and it runs."""
    write(tmp_path, {"f": "copied"})
    text = "FROM host\nRUN echo made > /opt/made\nCOPY f /opt/\nENV A=1\nRUN cat /opt/f"
    built = build(text, tmp_path, "onhost")
    assert built.said == "copied"
    assert built.image is not None
    assert built.image.on_host
    told = shell("onhost", "cat /opt/made /opt/f; echo $A; test -e /usr/bin/env")
    assert told == "made\ncopied1\n"
    assert not os.path.exists("/opt/made")
    assert build("FROM onhost\nRUN cat /opt/made").said == "made\n"


def test_a_copy_from_the_host_image_sees_what_its_containers_see(tmp_path: Path) -> None:
    """What ``host`` hides gets into no image: COPY --from a stage on it is not another way in."""
    text = "FROM host AS a\nRUN echo made > /opt/made\nFROM base\nCOPY --from=a /opt/made /bin/env* {} /x/"
    assert build(text.format("/etc/passwd"), tmp_path, "taken").image is not None
    assert "made" in shell("taken", "ls /x; cat /x/made")
    for hidden in ("/etc/shadow", str(tmp_path)):
        assert os.path.exists(hidden)
        with pytest.raises(SpecError, match="isn't there"):
            build(text.format(hidden), tmp_path)


def test_network() -> None:
    """RUN has the host's network unless none is asked for, of the build or of the RUN."""
    text = "FROM host\nRUN ls /sys/class/net | wc -l\nRUN --network=none ls /sys/class/net | wc -l"
    here = len(os.listdir("/sys/class/net"))
    assert build(text, network="host").said.split() == [str(here), "1"]


def test_onbuild_of_a_base_is_carried_out() -> None:
    """Docker's base images may have kept instructions for those who build on them."""
    store = Store()
    base = store.get("base")
    config = {**base.config, "config": {**base.config["config"], "OnBuild": ["RUN echo kept"]}}
    store.make_image(config, base.layers, name="onbuild")
    built = build("FROM onbuild\nENV A=1")
    assert built.said == "kept\n"
    assert built.image is not None
    assert "OnBuild" not in built.image.config["config"]


def test_builds_at_the_same_time(tmp_path: Path) -> None:
    """Four of the same, and one other, each give a whole image."""
    write(tmp_path, {"f": "parallel", ".dockerignore": "D*"})
    command = [sys.executable, "-m", "nscontainer", "build", "-q", "--network", "none"]
    texts = [CACHED.replace("one", "parallel")] * 4 + [CACHED.replace("one", "other")]

    def one(number: int) -> str:
        (tmp_path / f"D{number}").write_text(texts[number])
        words = [*command, "-t", f"p:{number}", "-f", str(tmp_path / f"D{number}"), str(tmp_path)]
        done = subprocess.run(words, env=environment(), capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        ids = list(pool.map(one, range(5)))
    for number, image_id in enumerate(ids):
        assert Store().get(f"p:{number}").id == image_id
        assert shell(f"p:{number}", "cat /f /two") == "paralleltwo\n"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def running(tmp_path: Path, engine: Path) -> Iterator[subprocess.Popen[str]]:
    """A build whose second RUN takes forever."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM base\nRUN echo {tmp_path}\nRUN echo begun; sleep 1000; : {tmp_path}\nRUN echo never"
    )
    words = [sys.executable, "-m", "nscontainer", "build", "-t", "never", str(tmp_path)]
    process = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line == "begun\n":
            break
    yield process
    process.kill()
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_nothing(
    running: subprocess.Popen[str], number: signal.Signals, engine: Path, tmp_path: Path
) -> None:
    """Its container is ended and removed; the steps before are in the cache."""
    running.send_signal(number)
    assert running.wait(timeout=20) == 130
    assert eventually(lambda: not containers(engine))
    with pytest.raises(NotFoundError):
        Store().get("never")
    text = (tmp_path / "Dockerfile").read_text().replace("sleep 1000", "true")
    assert list(build(text, network="host").steps.values()) == ["cached", "ran", "ran"]


def test_a_kill_ends_the_container(running: subprocess.Popen[str], engine: Path) -> None:
    """The container of a build that was killed ends with it; the next build removes it."""
    running.kill()
    running.wait()
    assert eventually(lambda: not Container.list())
    build("FROM base\nENV A=after")
    assert not containers(engine)


def test_the_command_line(tmp_path: Path) -> None:
    """-q prints the id alone, --iidfile writes it, - takes a Dockerfile without files, -f another."""
    write(tmp_path, {"f": "f\n", "Other": "FROM base\nCOPY f /\nRUN cat /f"})

    def run(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "nscontainer", "build", *words],
            env=environment(),
            input=text,
            capture_output=True,
            check=False,
            text=True,
        )

    iid = tmp_path / "iid"
    words = ("-f", str(tmp_path / "Other"), "-t", "cli:1", "-t", "cli:2", "--iidfile", str(iid))
    done = run(*words, str(tmp_path))
    image = Store().get("cli:1")
    assert image.names == ("cli:1", "cli:2")
    assert iid.read_text() == image.id
    short = image.id.removeprefix("sha256:")[:12]
    assert done.stdout.splitlines() == [
        f"Successfully built {short}",
        "Successfully tagged cli:1",
        "Successfully tagged cli:2",
    ]
    assert "[3/3] RUN cat /f\nf\n[3/3] done: " in done.stderr
    assert "[3/3] RUN cat /f  CACHED\n" in run(*words, str(tmp_path)).stderr
    quiet = run("-q", "-", text="FROM base\nENV A=1\nLABEL x=y")
    assert Store().get(quiet.stdout.strip()).env[-1] == "A=1"
    assert quiet.stderr == ""
    labelled = run("-q", "--label", "x=z", "-", text="FROM base\nENV A=1\nLABEL x=y")
    assert Store().get(labelled.stdout.strip()).labels == {"x": "z"}
    failed = run("-", text="FROM base\nRUN exit 3")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("nscontainer: stdin:2: RUN exit 3: ")
    wrong = run(str(tmp_path / "nowhere"))
    assert wrong.returncode == 125
    assert "is no directory" in wrong.stderr


def test_records_go_with_their_layers() -> None:
    """A sweep leaves those whose layer is there, and takes the others."""
    store = Store()
    text = "FROM base\nRUN echo swept > /swept"
    image = build(text, None, "swept").image
    assert image is not None
    found = {
        file: json.loads(file.read_text()) for file in Path(store.root, "build-cache").iterdir()
    }
    diff_id = image.layers[-1].diff_id
    (ours,) = [file for file, value in found.items() if value.get("diff_id") == diff_id]
    cache.sweep(store)
    assert ours.exists()
    store.remove("swept")
    cache.sweep(store)
    assert not ours.exists()
    assert list(build(text).steps.values()) == ["ran"]
