"""Proof by others: skopeo, umoci and Docker read what we write, and we what they write.

Everything goes through the images of :mod:`tests.integration.peers_images`, which have every case.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nscontainer
from nscontainer import images, spec
from nscontainer.engine.container import Container
from nscontainer.image.archives import load, save
from nscontainer.image.records import Image
from nscontainer.image.store import Store
from tests.integration import peers_images as peers
from tests.integration.peers_images import Daemon, diff_ids, skopeo, umoci

pytestmark = [pytest.mark.root, pytest.mark.images, pytest.mark.timeout(300)]
NAME = "every/case:1"


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A directory on a disk: /tmp may be one that has no devices or attributes."""
    top = Path(tempfile.mkdtemp(prefix="nsc-peers-", dir="/var/tmp"))
    yield top
    shutil.rmtree(top)


@pytest.fixture
def here(scratch: Path) -> Iterator[Path]:
    """A test's own directory."""
    top = Path(tempfile.mkdtemp(dir=scratch))
    yield top
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def store(engine: Path, scratch: Path) -> Store:
    """The engine's store, with the image that has every case."""
    store = Store()
    peers.make_image(store, scratch, NAME)
    return store


@pytest.fixture(scope="module")
def image(store: Store) -> Image:
    return store.get(NAME)


@pytest.fixture(scope="module")
def seen(store: Store, image: Image, scratch: Path) -> peers.Look:
    """The image as one tree."""
    return peers.exported(store, NAME, scratch)


@pytest.fixture
def empty(here: Path) -> Store:
    """Another store, with nothing in it."""
    return Store(str(here / "other"))


@pytest.fixture(scope="module")
def docker(scratch: Path) -> Iterator[Daemon]:
    with peers.docker_daemon(scratch / "docker") as daemon:
        yield daemon


def test_the_tree_has_every_case(store: Store, image: Image, seen: peers.Look) -> None:
    """Whiteouts, opaque directories, links, attributes, holes, modes, ids and times survive packing."""
    base, second = peers.layers_look(store, image)
    assert base["dir/a"][5] == base["dir/a_too"][5] == base["etc/a_elsewhere"][5] == "dir/a"
    assert second["gone"] == second["dir/a"] == ("whiteout",)
    assert base["bin/able"][6] == {"security.capability": peers.CAPABILITY}
    assert base["dir/b"][6]["user.binary"] == b"\0\xff\n="
    assert base["sparse"][4][1:] == (10 << 20, True)
    assert base["kinds/setuid"][0] == "0o104755"
    assert base["kinds/farther"][1:3] == (3_000_000, 4_000_000)
    assert base["kinds/fifo"][0] == "0o10640"
    assert base["dir/b"][3] % 1000 != 0
    assert "gone" not in seen
    assert "dir/a" not in seen
    assert [name for name in seen if name.startswith("hides/")] == ["hides/new"]
    assert seen["becomes_file"][0] == "0o100644"
    assert "becomes_directory/inside" in seen
    assert seen["dir/a_too"][5] == seen["etc/a_elsewhere"][5] == "dir/a_too"


# -------------------------------------------------------------------------------- we write, they read


def test_skopeo_reads_the_store_itself(store: Store, image: Image, here: Path) -> None:
    """The store's directory is an OCI layout to skopeo: inspected, its blobs checked and copied."""
    facts = json.loads(skopeo("inspect", f"oci:{store.root}:{NAME}"))
    assert facts["Digest"] == image.manifest.digest
    assert facts["Layers"] == [layer.descriptor.digest for layer in image.layers]
    config = json.loads(skopeo("inspect", "--config", f"oci:{store.root}:{NAME}"))
    assert config == image.config
    skopeo("copy", f"oci:{store.root}:{NAME}", f"dir:{here}/copy")
    written = (here / "copy/manifest.json").read_bytes()
    assert f"sha256:{hashlib.sha256(written).hexdigest()}" == image.manifest.digest


@pytest.mark.parametrize(
    ("format_", "transport"),
    [("docker", "docker-archive"), ("docker", "oci-archive"), ("oci", "oci-archive")],
)
def test_skopeo_reads_our_archives(
    store: Store, image: Image, here: Path, empty: Store, format_: str, transport: str
) -> None:
    """skopeo reads what save writes, by the image's name, and what it copies has the same diffIDs."""
    save.save(NAME, here / "saved.tar", store=store, format=format_)
    name = "1" if (format_, transport) == ("docker", "oci-archive") else NAME
    source = f"{transport}:{here}/saved.tar:{name}"
    assert json.loads(skopeo("inspect", "--config", source))["config"] == image.config["config"]
    skopeo("copy", source, f"oci:{here}/copied:every/case:2")
    (loaded,) = load.load(here / "copied", store=empty)
    assert loaded.names == ("every/case:2",)
    assert loaded.id == image.id or transport == "docker-archive"  # there it writes the config anew
    assert loaded.config["config"] == image.config["config"]
    assert diff_ids(loaded) == diff_ids(image)


@pytest.mark.parametrize("what", ["store", "oci-dir"])
def test_umoci_unpacks_the_same_tree(store: Store, here: Path, seen: peers.Look, what: str) -> None:
    """umoci unpacks our layout to the very tree that we do: modes, ids, times, attributes, links."""
    layout, tag = Path(store.root), "umoci"
    if what == "store":
        store.tag(NAME, "umoci:latest")
        tag = "umoci:latest"
    else:
        save.save(NAME, here / "layout", store=store, format="oci-dir")
        layout, tag = here / "layout", NAME
        assert json.loads(umoci("stat", "--image", f"{layout}:{tag}", "--json"))["history"]
    umoci("unpack", "--image", f"{layout}:{tag}", here / "bundle")
    theirs = without_holes(peers.look(here / "bundle/rootfs"))
    seen = without_holes(seen)
    assert theirs.keys() == seen.keys()
    assert {name: (theirs[name], seen[name]) for name in seen if theirs[name] != seen[name]} == {}


def without_holes(tree: peers.Look) -> peers.Look:
    """A tree's look but for which files have holes: others write zeros out."""
    return {
        name: (*facts[:4], facts[4][:2] if isinstance(facts[4], tuple) else facts[4], *facts[5:])
        for name, facts in tree.items()
    }


def test_docker_loads_and_runs_ours(
    store: Store, image: Image, here: Path, docker: Daemon, empty: Store
) -> None:
    """dockerd loads our archive under its name and id, runs it, and saves it with the same diffIDs."""
    save.save(NAME, here / "saved.tar", store=store)
    assert "Loaded image: every/case:1" in docker("load", "-i", here / "saved.tar")
    assert docker.inspect(NAME)["Id"] == image.id
    assert docker.inspect(NAME)["RootFS"]["Layers"] == diff_ids(image)
    assert docker("run", "--rm", "--network", "none", NAME) == (
        "grüß dich from /srv/work as 1000:1001\n"
    )
    docker("save", "-o", here / "back.tar", NAME)
    (back,) = load.load(here / "back.tar", store=empty)
    assert (back.id, back.names, diff_ids(back)) == (image.id, (NAME,), diff_ids(image))
    assert back.config == image.config
    assert peers.layers_look(empty, back) == peers.layers_look(store, image)


def test_docker_sees_the_same_files(
    store: Store, here: Path, docker: Daemon, seen: peers.Look
) -> None:
    """What a container of Docker's sees of our image is what we see: content, modes, ids, links."""
    save.save(NAME, here / "saved.tar", store=store)
    docker("load", "-i", here / "saved.tar")
    container = docker("create", "--network", "none", NAME).strip()
    try:
        docker("export", "-o", here / "export.tar", container)
    finally:
        docker("rm", container)
    theirs = {}
    with tarfile.open(here / "export.tar") as tar:
        for entry in tar:
            content = tar.extractfile(entry).read() if entry.isreg() else b""  # type: ignore[union-attr]
            theirs[entry.name.rstrip("/")] = (
                oct(entry.mode & 0o7777), entry.uid, entry.gid, int(entry.mtime),
                hashlib.sha256(content).hexdigest() if entry.isreg() else entry.linkname,
            )  # fmt: skip
    # Its own: what it mounts over, and the directories that those are in.
    own = {".dockerenv", "dev", "proc", "sys", "etc"}
    for name, (mode, uid, gid, time, what, linked, _) in seen.items():
        if name in own or name.startswith(("etc/", "dev/")) or linked is not None:
            continue
        assert theirs[name][:3] == (oct(int(mode, 8) & 0o7777), uid, gid), name
        assert theirs[name][3] == time // 1_000_000_000, name
        if isinstance(what, tuple):
            assert theirs[name][4] == what[0], name
        elif isinstance(what, str):
            assert theirs[name][4] == what, name
    extra = {name for name in theirs.keys() - seen.keys() if name.split("/")[0] not in own}
    assert extra == set()


def assert_docker_agrees(docker: Daemon, image: Image, name: str) -> None:
    """docker inspect and docker history tell of an image what we do."""
    facts = docker.inspect(name)
    theirs = facts["Config"]
    assert facts["Id"] == image.id
    assert facts["RootFS"]["Layers"] == diff_ids(image)
    assert tuple(theirs["Env"] or ()) == image.env
    assert tuple(theirs["Entrypoint"] or ()) == image.entrypoint
    assert tuple(theirs["Cmd"] or ()) == image.cmd
    assert theirs["User"] == image.user
    assert theirs["WorkingDir"] == image.workdir
    assert (theirs["Labels"] or {}) == image.labels
    assert tuple(sorted(theirs["Volumes"] or ())) == image.volumes
    assert tuple(sorted(theirs.get("ExposedPorts") or ())) == image.exposed_ports
    assert theirs.get("StopSignal", "") == image.stop_signal
    assert (facts["Architecture"], facts["Os"]) == (image.architecture, image.os)
    assert facts["Created"] == image.config["created"]
    assert facts["Author"] == image.config.get("author", "")
    steps = docker.history(name)
    ours = [*reversed(image.history)]
    assert [step["CreatedBy"] for step in steps] == [step.get("created_by", "") for step in ours]
    assert [step["Comment"] for step in steps] == [step.get("comment", "") for step in ours]
    empty = [bool(step.get("empty_layer")) for step in ours]
    assert not any(step["Size"] and nothing for step, nothing in zip(steps, empty, strict=True))
    assert len(image.layers) == empty.count(False)
    assert name in steps[0]["Tags"]


def test_docker_says_the_same_of_ours(
    store: Store, image: Image, here: Path, docker: Daemon
) -> None:
    """docker inspect and docker history tell of our image what we do."""
    save.save(NAME, here / "saved.tar", store=store)
    docker("load", "-i", here / "saved.tar")
    assert_docker_agrees(docker, image, NAME)


LOOK = (
    "cd /; busybox find . -xdev -path ./dev -prune -o -path ./proc -prune -o -path ./sys -prune"
    " -o -path ./etc -prune -o -path ./data -prune -o -path ./run -prune"
    " -o -not -name .dockerenv -not -name .nscontainerenv -not -path ."
    " -exec busybox stat -c '%n %a %u:%g %s %h %Y %t:%T %F' {} + | busybox sort"
)
FAR = ("./kinds/far ", "./kinds/farther ")
"""Ids beyond a container's 65536 are nobody's in ours: its user namespace has no others."""


def test_what_a_container_of_ours_wrote(
    store: Store, here: Path, docker: Daemon, empty: Store
) -> None:
    """Committed, saved and loaded by Docker, what a container wrote is the same there, and comes back so."""
    script = f"""
        cd /; set -e; for i in rm mv ln mkdir chmod chown mkfifo dd; do alias $i="busybox $i"; done
        rm dir/inner/c; rm -r hides; mkdir hides; echo new > hides/new2; mv dir/b dir/moved
        ln dir/moved kinds/linked; ln dir/moved linked_too; chmod 4711 kinds/usual
        mkfifo -m 604 a_fifo; dd if=/dev/zero of=holes bs=1 count=1 seek=5M 2>/dev/null
        echo x > {"m" * 255}; mkdir -p "new dir/ü"; chown -R 12:34 "new dir"; rm -r becomes_directory
        echo file > becomes_directory; rm becomes_file; mkdir becomes_file; ln -s /no/where dangling2
    """
    what = spec.build([script], image=NAME, user="0")
    container = Container.create(what, remove=False, start=True)
    try:
        assert container.wait()["exit_code"] == 0
        made = images.commit(container, "committed/here:1")
    finally:
        container.remove(force=True)
    save.save("committed/here:1", here / "saved.tar", store=store)
    docker("load", "-i", here / "saved.tar")
    assert_docker_agrees(docker, made, "committed/here:1")
    ours = says("committed/here:1", LOOK, user="0").splitlines()
    words = ("run", "--rm", "--network", "none", "--user", "0", "committed/here:1", LOOK)
    theirs = docker(*words).splitlines()
    assert [line for line in ours if not line.startswith(FAR)] == [
        line for line in theirs if not line.startswith(FAR)
    ]
    facts = {line.split(" ")[0]: line.split(" ")[1:] for line in ours}
    assert facts["./kinds/linked"][3] == "3"  # names
    assert facts["./kinds/usual"][0] == "4711"
    assert "./hides/new2" in facts
    assert not {"./hides/new", "./dir/inner/c"} & facts.keys()
    docker("save", "-o", here / "back.tar", "committed/here:1")
    (back,) = load.load(here / "back.tar", store=empty)
    assert diff_ids(back) == diff_ids(made)
    assert peers.layers_look(empty, back) == peers.layers_look(store, made)


# ----------------------------------------------------------------------------- they write, we read


def says(image: str, *command: str, **options: Any) -> str:
    """What a container of the engine prints."""
    result = nscontainer.run([*command], image=image, **options)
    assert result.exit_code == 0, (result.describe_exit(), result.stderr)
    return str(result.stdout)


def test_we_run_it_as_docker_does(store: Store, here: Path, docker: Daemon) -> None:
    """The same command in our container and in Docker's: user, directory, environment, files agree."""
    save.save(NAME, here / "saved.tar", store=store)
    docker("load", "-i", here / "saved.tar")
    assert says(NAME) == docker("run", "--rm", "--network", "none", NAME)
    ours = says(NAME, LOOK, user="0").splitlines()
    theirs = docker("run", "--rm", "--network", "none", "--user", "0", NAME, LOOK).splitlines()
    assert [line for line in ours if not line.startswith(FAR)] == [
        line for line in theirs if not line.startswith(FAR)
    ]
    assert len(ours) > 50


@pytest.mark.parametrize(
    "how",
    [
        "docker-archive",
        "oci-archive",
        "oci",
        "oci-zstd",
        "oci-archive-gzipped",
        "docker-archive-zstd",
    ],
)
def test_we_load_what_skopeo_writes(
    store: Store, image: Image, here: Path, empty: Store, how: str
) -> None:
    """skopeo's archives and layouts, plain and compressed, come back with equal diffIDs and trees."""
    transport = {"oci-zstd": "oci", "oci-archive-gzipped": "oci-archive"}.get(how, how)
    transport = transport.removesuffix("-zstd")
    target = here / "theirs"
    options = ["--dest-compress", "--dest-compress-format", "zstd"] if how == "oci-zstd" else []
    if how == "oci-zstd":  # skopeo leaves layers as they are, unless they are plain
        peers.make_image(empty, here, "plain:1", "none")
        source = f"oci:{empty.root}:plain:1"
    else:
        source = f"oci:{store.root}:{NAME}"
    skopeo("copy", *options, source, f"{transport}:{target}:{NAME}")
    if how == "oci-archive-gzipped":
        peers.run("gzip", "-1", target)
        target = here / "theirs.gz"
    elif how == "docker-archive-zstd":
        peers.run("zstd", "-q", "-1", "--rm", target)
        target = here / "theirs.zst"
    mine = Store(str(here / "mine"))
    (loaded,) = load.load(target, store=mine)
    assert loaded.names == (NAME,)
    assert diff_ids(loaded) == diff_ids(image)
    assert loaded.config["config"] == image.config["config"]
    if how == "oci-zstd":
        assert {layer.descriptor.media_type[-4:] for layer in loaded.layers} == {"zstd"}
    assert peers.layers_look(mine, loaded) == peers.layers_look(store, image)


def test_zstd_layers_are_for_docker_too(
    store: Store, image: Image, here: Path, docker: Daemon
) -> None:
    """Docker 20.10 knows no zstd: an image with such layers is saved so that it loads all the same."""
    other = Store(str(here / "zstd"))
    made = peers.make_image(other, here, "zstd:1", "zstd")
    assert diff_ids(made) == diff_ids(image)
    save.save("zstd:1", here / "saved.tar", store=other)
    docker("load", "-i", here / "saved.tar")
    assert docker.inspect("zstd:1")["Id"] == made.id
    assert docker.inspect("zstd:1")["RootFS"]["Layers"] == diff_ids(image)
    skopeo("copy", f"oci-archive:{here}/saved.tar:1", f"dir:{here}/copy")


def test_umoci_repacks_ours(store: Store, image: Image, here: Path) -> None:
    """umoci's own changes to our image come back as one layer on top of the same diffIDs, and run."""
    skopeo("copy", f"oci:{store.root}:{NAME}", f"oci:{here}/layout:1")
    umoci("unpack", "--image", f"{here}/layout:1", here / "bundle")
    (here / "bundle/rootfs/srv/added").write_text("by hand\n")
    (here / "bundle/rootfs/dir/b").unlink()
    umoci("repack", "--image", f"{here}/layout:2", here / "bundle")
    umoci("config", "--image", f"{here}/layout:2", "--config.cmd", "ls", "--config.env", "NEW=1")
    first, second = load.load(here / "layout", store=store)
    assert ("layout:1" in first.names, second.names) == (True, ("layout:2",))
    assert first.id == image.id
    assert diff_ids(second)[:-1] == diff_ids(image)
    assert "NEW=1" in second.env
    assert says("layout:2", "cat", "/srv/added", entrypoint="") == "by hand\n"
    tree = peers.exported(store, "layout:2", here)
    assert tree["srv/added"][4][1] == len("by hand\n")
    assert "dir/b" not in tree
    assert tree["etc/b_too"][0] == "0o100644"


def test_umoci_repacks_nothing(store: Store, image: Image, here: Path, empty: Store) -> None:
    """Unpacked and repacked by umoci without a change, the image has the same layers and tree."""
    save.save(NAME, here / "layout", store=store, format="oci-dir")
    umoci("unpack", "--image", f"{here}/layout:{NAME}", here / "bundle")
    umoci("repack", "--image", f"{here}/layout:again", here / "bundle")
    images = {made.names[0]: made for made in load.load(here / "layout", store=empty)}
    again = images["layout:again"]
    assert diff_ids(again) == diff_ids(image)
    assert peers.exported(empty, "layout:again", here) == peers.exported(store, NAME, here)


def test_skopeo_and_umoci_write_into_the_store(
    store: Store, image: Image, here: Path, empty: Store
) -> None:
    """The store's directory is a layout to copy to: what others put there and name is found and run."""
    skopeo("copy", f"oci:{store.root}:{NAME}", f"docker-archive:{here}/a.tar:{NAME}")
    skopeo("copy", f"docker-archive:{here}/a.tar", f"oci:{store.root}:by/skopeo:1")
    assert diff_ids(store.get("by/skopeo:1")) == diff_ids(image)
    assert says("by/skopeo:1") == "grüß dich from /srv/work as 1000:1001\n"
    umoci("tag", "--image", f"{store.root}:by/skopeo:1", "umoci:tagged")
    assert store.get("umoci:tagged").id == store.get("by/skopeo:1").id
    store.remove("by/skopeo:1")
    assert says("umoci:tagged", "echo still there") == "still there\n"
    store.remove("umoci:tagged")
    assert store.get(NAME).id == image.id


def test_umoci_makes_a_new_one(here: Path, empty: Store) -> None:
    """An image that umoci made from nothing is loaded, with the tree it was made of."""
    layout = here / "fresh"
    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:made")
    umoci("unpack", "--image", f"{layout}:made", here / "bundle")
    shutil.rmtree(here / "bundle/rootfs")
    (here / "bundle/rootfs").mkdir()
    peers.make_base(here / "bundle/rootfs")
    wanted = peers.look(here / "bundle/rootfs")
    umoci("repack", "--image", f"{layout}:made", here / "bundle")
    (loaded,) = load.load(layout, store=empty)
    assert loaded.names == ("fresh:made",)
    (got,) = peers.layers_look(empty, loaded)
    assert got.keys() == wanted.keys()
    # Of times it writes whole seconds.
    for name, (mode, uid, gid, time, *rest) in without_holes(wanted).items():
        theirs = without_holes(got)[name]
        assert theirs[:3] == (mode, uid, gid), name
        assert theirs[3] // 1_000_000_000 == time // 1_000_000_000, name
        assert [*theirs[4:]] == rest, name


def test_we_load_what_docker_builds_and_commits(store: Store, here: Path, docker: Daemon) -> None:
    """Images that docker build and docker commit made, several in one archive, are loaded and run."""
    save.save(NAME, here / "saved.tar", store=store)
    docker("load", "-i", here / "saved.tar")
    (here / "Dockerfile").write_text(
        f"FROM {NAME}\nUSER 0\nWORKDIR /built\nENV BUILT=yes\nCOPY file /built/file\n"
        'RUN ["/bin/busybox", "rm", "/empty_file"]\nENTRYPOINT ["/bin/cat", "/built/file"]\nCMD []\n'
    )
    (here / "file").write_text("copied by docker build\n")
    docker("build", "-q", "--network", "none", "-t", "built:1", here)
    words = ["/bin/sh", "-c", "echo changed > /srv/work/new; busybox rm -r /kinds"]
    docker(
        "run",
        "--name",
        "changed",
        "--network",
        "none",
        "--user",
        "0",
        "--entrypoint",
        "",
        NAME,
        *words,
    )
    docker("commit", "-m", "by hand", "changed", "committed:1")
    changes = dict(line.split(maxsplit=1)[::-1] for line in docker("diff", "changed").splitlines())
    docker("rm", "changed")
    docker("save", "-o", here / "both.tar", "built:1", "committed:1")
    built, committed = load.load(here / "both.tar", store=store)
    assert_docker_agrees(docker, built, "built:1")
    assert_docker_agrees(docker, committed, "committed:1")
    assert built.names == ("built:1",)
    assert built.id == docker.inspect("built:1")["Id"]
    assert diff_ids(built) == docker.inspect("built:1")["RootFS"]["Layers"]
    assert built.workdir == "/built"
    assert built.entrypoint == ("/bin/cat", "/built/file")
    assert "BUILT=yes" in built.env
    tree = peers.exported(store, "built:1", here)
    assert "empty_file" not in tree
    assert tree["built/file"][4][1] == len("copied by docker build\n")
    assert committed.id == docker.inspect("committed:1")["Id"]
    assert committed.history[-1]["comment"] == "by hand"
    tree = peers.exported(store, "committed:1", here)
    assert "kinds" not in tree
    assert "srv/work/new" in tree
    assert (changes["/kinds"], changes["/srv/work/new"]) == ("D", "A")
    assert says("built:1") == "copied by docker build\n"
    assert says("committed:1", "cat", "/srv/work/new", entrypoint="") == "changed\n"


def test_a_pipe_will_do(store: Store, image: Image, docker: Daemon, empty: Store) -> None:
    """save into docker load, and docker save into load, by pipes and without a file."""
    with subprocess.Popen(
        [*docker._docker.client, "load"],
        env=docker._docker.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        save.save(NAME, process.stdin, store=store)  # type: ignore[arg-type]
        process.stdin.close()
    assert process.returncode == 0
    with subprocess.Popen(
        [*docker._docker.client, "save", NAME],
        env=docker._docker.environment,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        (loaded,) = load.load(process.stdout, store=empty)  # type: ignore[arg-type]
    assert process.returncode == 0
    assert diff_ids(loaded) == diff_ids(image)
