"""The same Dockerfile built here and by a real dockerd: the same config, the same files."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks import sandbox
from benchmarks.docker import Docker
from nscontainer.image.store import Store
from tests.integration.building import base_tar, build, files_of, make_base, write

pytestmark = [pytest.mark.root, pytest.mark.images, pytest.mark.slow]
pytestmark += [pytest.mark.usefixtures("engine"), pytest.mark.timeout(300)]

DOCKERFILE = """\
# escape=\\
ARG FROM_ARG=base
FROM ${FROM_ARG} AS builder
ARG GREETING="hello there"
ARG UNSET
RUN echo "$GREETING $UNSET" > /greeting && \\
    # a comment
    mkdir -p /out/d && echo x > /out/d/file && chown alice:staff /out/d/file && \\
    ln -s file /out/d/link && ln /out/d/file /out/d/hard && rm /usr/bin/wc

FROM base AS unused
RUN true

FROM builder
MAINTAINER somebody
ENV A=1 B="two words" C=three\\ words D='$A' E="$A-${A}-${NONE:-none}-${A:+some}"
ENV OLD the  whole rest
ENV A=2 F=$A
LABEL plain=1 "quoted key"="a  b" multi="x\\
y" from_env=$OLD
WORKDIR /work
WORKDIR sub/$A
WORKDIR ../other
COPY a.txt plain
COPY a.txt b.txt dest/
COPY *.txt /globbed/
COPY tree /tree
COPY tree/ /srv/
COPY tree /tmp
COPY script.sh /bin/script
COPY --chown=1000:50 tree /owned
COPY --chown=alice:staff a.txt /owned/by/name/
COPY ["with space.txt", "/space here/"]
COPY ./tree/../a.txt ./
COPY linked /followed/
COPY . /everything/
COPY --from=builder /out /copied
COPY --from=0 /out/d/link /copied-link
COPY --from=base /etc/passwd /from-image/
ADD a.txt /added/
ADD archive.tar.gz /unpacked
ADD archive.tar.xz /unpacked/xz/
RUN ["/bin/sh", "-c", "echo exec form > /exec"]
USER alice
RUN id -u > /tmp/id; id -g >> /tmp/id; pwd > /tmp/pwd; echo "$A|$B|$C|$D|$E|$F|$OLD|$HOME|$GREETING|" > /tmp/env; umask > /tmp/umask
USER 1000:50
RUN id -u > /tmp/id2; id -g >> /tmp/id2
USER root
RUN rm -rf /tree/d && echo changed > /srv/top && mkdir /tree/d && chmod 700 /home
VOLUME /data
VOLUME ["/data1", "/data2"]
EXPOSE 80 53/udp $A
STOPSIGNAL SIGINT
SHELL ["/bin/ash", "-ec"]
RUN echo $0 > /shell
ENTRYPOINT ["/bin/script"]
CMD echo $A "quoted"
"""
VOLATILE = (
    "data",
    "data1",
    "data2",
    "dev",
    "proc",
    "sys",
    ".dockerenv",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
)
COMPARED = "Env Cmd Entrypoint User WorkingDir Labels ExposedPorts Volumes StopSignal Shell OnBuild".split()


class Daemon:
    """A dockerd of this test's own."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker

    def __call__(self, *words: str, data: bytes | None = None) -> bytes:
        """Run the client; it must succeed."""
        done = subprocess.run(
            [*self._docker.client, *words],
            env={**self._docker.environment, "DOCKER_BUILDKIT": "0"},
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (done.stdout.decode()[-1500:], done.stderr.decode()[-1500:])
        return done.stdout

    def files(self, image: str) -> dict[str, tuple[Any, ...]]:
        """All files of an image, as docker export gives them."""
        container = self("create", "--network", "none", image, "x").decode().strip()
        found = files_of(self("export", container))
        self("rm", container)
        return {
            name: facts
            for name, facts in found.items()
            if not any(name == top or name.startswith(f"{top}/") for top in VOLATILE)
        }

    def config(self, image: str) -> dict[str, Any]:
        """What docker says of an image's config."""
        answer = json.loads(self("image", "inspect", image))[0]
        return {name: answer["Config"].get(name) or None for name in COMPARED}


@pytest.fixture(scope="module")
def docker() -> Iterator[Daemon]:
    """A daemon with the base image."""
    top = Path(tempfile.mkdtemp(prefix="nsc-docker-", dir="/var/tmp"))
    try:
        with Docker(top / "d") as running:
            daemon = Daemon(running)
            daemon("import", "-c", "ENV PATH=/bin:/usr/bin", "-", "base", data=base_tar())
            yield daemon
    finally:
        sandbox.remove_cgroups()
        shutil.rmtree(top, ignore_errors=True)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Files of every kind that a COPY has rules for."""
    top = tmp_path / "context"
    write(top, {"Dockerfile": DOCKERFILE, "a.txt": "a\n", "b.txt": "b\n", "with space.txt": "s\n"})
    write(top, {"tree/top": "t", "tree/d/deep": "d", "tree/d/e/deeper": "e", "tree/.hidden": "h"})
    write(top, {"script.sh": "#!/bin/sh\necho $@\n", "secret/key": "k", "x.log": "l"})
    write(top, {"keep/a.log": "l", "keep/b.log": "l", ".dockerignore": IGNORED})
    (top / "script.sh").chmod(0o755)
    (top / "tree/d").chmod(0o2750)
    (top / "tree/top").chmod(0o600)
    (top / "tree/link").symlink_to("d/deep")
    (top / "tree/dangling").symlink_to("/nowhere")
    (top / "tree/directory-link").symlink_to("d")
    (top / "linked").symlink_to("tree/d/deep")
    (top / "tree/empty").mkdir()
    (top / "tree/d/second-name").hardlink_to(top / "tree/d/deep")
    packed = write(tmp_path / "packed", {"p/file": "p", "p/d/x": "x"})
    (packed / "p/link").symlink_to("file")
    for kind in ("gz", "xz"):
        with tarfile.open(str(top / f"archive.tar.{kind}"), cast("Any", f"w:{kind}")) as tar:
            tar.add(packed / "p", "p", filter=_somebodys)
    return top


IGNORED = "# a comment\nsecret\n*.log\n**/b.log\n!keep\nDockerfile\n.dockerignore\n"


def _somebodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid, member.gid = 1234, 567
    return member


def test_a_real_docker_builds_the_same(docker: Daemon, context: Path, tmp_path: Path) -> None:
    """Config and every file, mode, owner and link; ours is loaded by that daemon to be looked at."""
    docker(*"build --network none --build-arg GREETING=given -t theirs".split(), str(context))
    make_base()
    text = (context / "Dockerfile").read_text()
    built = build(text, context, "ours:1", build_args={"GREETING": "given"})
    assert built.image is not None
    archive = tmp_path / "ours.tar"
    source, target = f"oci:{Store().root}:ours:1", f"docker-archive:{archive}:ours:1"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", source, target], check=True)
    docker("load", "-i", str(archive))
    theirs, ours = docker.files("theirs"), docker.files("ours:1")
    differing = {
        name: (theirs.get(name), ours.get(name))
        for name in {*theirs, *ours}
        if theirs.get(name) != ours.get(name)
    }
    assert not differing, "\n".join(f"{n}: {t} {o}" for n, (t, o) in differing.items())
    assert len(ours) > 80
    assert docker.config("ours:1") == docker.config("theirs")
