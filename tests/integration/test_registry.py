"""Pull and push against a real registry on loopback, over good lines and bad ones.

What we pull was pushed by skopeo, and what we push skopeo reads: digests must be equal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nscontainer.errors import ImageError, NsContainerError, RegistryError, one_line
from nscontainer.image.progress import Event
from nscontainer.image.records import Image
from nscontainer.image.registry import client, credentials, hosts, transport
from nscontainer.image.registry.pull import pull
from nscontainer.image.registry.push import push
from nscontainer.image.store import Store
from tests.integration import registries as lab

pytestmark = [pytest.mark.images, pytest.mark.root]

BIG = 6_000_000
TESTER = credentials.Credentials(lab.USER, lab.PASSWORD, source="the test")
ME = credentials.Found(TESTER)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of three layers, the first one big and without compression to speak of."""
    files = [{"big": lab.noise(BIG, 1)}, {"etc/two": b"2\n"}, {"etc/three": b"3\n" * 50_000}]
    return lab.layout(tmp_path_factory.mktemp("layout"), [lab.tar(one) for one in files])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> Iterator[str]:
    """A plain-http registry with ``team/it:1`` in it."""
    with lab.registry(tmp_path_factory.mktemp("registry")) as host:
        lab.skopeo_push(layout, f"{host}/team/it:1")
        yield host


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "images"))


@pytest.fixture(autouse=True)
def nobodys_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No file of this machine's has a say; retries are quick."""
    directory = tmp_path / "config"
    directory.mkdir()
    monkeypatch.setenv("NSCONTAINER_CONFIG_DIR", str(directory))
    monkeypatch.setenv("DOCKER_CONFIG", str(directory))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setattr(hosts, "DAEMON_JSON", str(directory / "daemon.json"))
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.05)
    return directory


def entry(layout: Path) -> dict[str, Any]:
    index = json.loads((layout / "index.json").read_text())
    return dict(index["manifests"][0])


def check(image: Image, store: Store, layout: Path) -> None:
    """The image is the layout's, every blob bit for bit, and its files are unpacked."""
    assert image.manifest.digest == entry(layout)["digest"]
    for blob in (image.manifest, *(layer.descriptor for layer in image.layers)):
        there = (layout / "blobs" / "sha256" / blob.digest[7:]).read_bytes()
        assert Path(store.blob_path(blob.digest)).read_bytes() == there
    directories = [store.layer_dir(layer.diff_id) for layer in image.layers]
    assert None not in directories
    assert Path(str(directories[0]), "big").read_bytes() == lab.noise(BIG, 1)
    assert Path(str(directories[1]), "etc/two").read_bytes() == b"2\n"
    assert os.listdir(os.path.join(store.root, "tmp")) == []


def manifest_of(host: str, name: str, *options: str) -> str:
    """The digest under which skopeo finds an image."""
    raw = lab.skopeo("inspect", "--raw", "--tls-verify=false", *options, f"docker://{host}/{name}")
    return f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"


# -- plain ---------------------------------------------------------------------------------------


def test_pull(registry, layout, store):
    """Pulled by tag and by digest, it is what skopeo pushed, unpacked; progress adds up to all its bytes."""
    events: list[Event] = []
    image = pull(f"{registry}/team/it:1", store=store, progress=events.append)
    check(image, store, layout)
    assert image.names == (f"{registry}/team/it:1",)
    sizes = {layer.descriptor.digest[7:19]: layer.descriptor.size for layer in image.layers}
    assert {one.layer: one.total_bytes for one in events if one.kind == "download"} == sizes
    ends = [one for one in events if one.kind == "done"]
    assert {one.layer: one.done_bytes for one in ends[:-1]} == sizes
    assert (ends[-1].layer, ends[-1].note) == ("", f"from {registry}")
    seen: dict[str, int] = {}
    for one in events:
        if one.kind == "download":
            assert one.done_bytes >= seen.get(one.layer, 0)
            seen[one.layer] = one.done_bytes
    by_digest = pull(f"{registry}/team/it@{entry(layout)['digest']}", store=store)
    assert by_digest.id == image.id


def test_what_is_here_is_not_fetched(registry, layout, store):
    """A second pull moves a manifest and no blob."""
    with lab.line(registry) as wire:
        pull(f"{wire.address}/team/it:1", store=store)
        assert wire.down > BIG
        before = wire.down
        events: list[Event] = []
        pull(f"{wire.address}/team/it:1", store=store, progress=events.append)
        assert wire.down - before < 8000
        assert [one.note for one in events[:-1]] == ["already here"] * 3


def test_zstd(registry, tmp_path, store):
    """Layers compressed with zstd are pulled and unpacked."""
    made = lab.layout(tmp_path / "zstd", [lab.tar({"a": b"zstd"})], compression="zstd")
    lab.skopeo_push(made, f"{registry}/team/zstd:1")
    image = pull(f"{registry}/team/zstd:1", store=store)
    assert Path(str(store.layer_dir(image.layers[0].diff_id)), "a").read_bytes() == b"zstd"


def test_docker_schema_2(registry, layout, store):
    """An image as Docker writes it is pulled; both its digests are known."""
    lab.skopeo_push(layout, f"{registry}/team/docker:1", "--format=v2s2")
    theirs = manifest_of(registry, "team/docker:1")
    image = pull(f"{registry}/team/docker:1", store=store)
    assert image.manifest.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert image.repo_digests == (f"{registry}/team/docker@{theirs}",)
    assert pull(f"{registry}/team/docker@{theirs}", store=store).id == image.id


def put(host: str, path: str, data: bytes, kind: str) -> str:
    """PUT a manifest by hand; gives its digest."""
    import http.client

    connection = http.client.HTTPConnection(host)
    connection.request("PUT", f"/v2/{path}", data, {"Content-Type": kind})
    answer = connection.getresponse()
    assert answer.status == 201, answer.read()
    connection.close()
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_manifest_list(registry, layout, tmp_path, store):
    """Of an index the image for the platform is taken, this machine's where none is named."""
    arm = lab.layout(tmp_path / "arm", [lab.tar({"arch": b"arm64"})], architecture="arm64")
    lab.skopeo_push(arm, f"{registry}/team/many:arm")
    lab.skopeo_push(layout, f"{registry}/team/many:amd")
    manifests = [
        entry(arm) | {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
        entry(layout) | {"platform": {"os": "linux", "architecture": "amd64"}},
    ]
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}).encode()
    digest = put(registry, "team/many/manifests/1", index, kind)
    name = f"{registry}/team/many:1"
    image = pull(name, store=store, platform="linux/arm64/v8")
    assert (image.architecture, image.manifest.digest) == ("arm64", entry(arm)["digest"])
    image = pull(name, store=store, platform="linux/amd64")
    assert (image.architecture, image.manifest.digest) == ("amd64", entry(layout)["digest"])
    assert image.repo_digests == (f"{registry}/team/many@{digest}",)
    with pytest.raises(
        RegistryError, match=r"no image for linux/s390x; it has linux/arm64, linux/amd64"
    ):
        pull(name, store=store, platform="linux/s390x")
    with pytest.raises(RegistryError, match=r"no image for linux/arm64; it is for linux/amd64"):
        pull(f"{registry}/team/it:1", store=store, platform="linux/arm64")


def test_what_is_not_there(registry, store):
    """A wrong tag names the right one; nothing is left in the store."""
    with pytest.raises(RegistryError, match=f"{registry}/team/it:11: no such image") as caught:
        pull(f"{registry}/team/it:11", store=store)
    assert caught.value.hint == f"did you mean {registry}/team/it:1?"
    with pytest.raises(RegistryError, match="no such image"):
        pull(f"{registry}/team/nothing", store=store)
    assert store.images() == []


def test_nobody_listens(store):
    """A host without a registry is told at once."""
    host = f"127.0.0.1:{lab.free_port()}"
    start = time.monotonic()
    with pytest.raises(RegistryError, match=f"{host} can't be reached: Connection refused"):
        pull(f"{host}/x", store=store)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("manifest", "kind", "said"),
    [
        ({"schemaVersion": 1, "name": "x", "fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+json", "schema 1"),
        ({"schemaVersion": 2, "mediaType": "{manifest}", "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": "sha256:" + "0" * 64, "size": 2}, "layers": []}, "{manifest}", "no container image"),
        ({"schemaVersion": 2, "mediaType": "{manifest}", "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + "0" * 64, "size": 2}, "layers": [{"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": "sha256:" + "0" * 64, "size": 2}]}, "{manifest}", "may not be handed on"),
        ("no JSON", "{manifest}", "no JSON object"),
    ],
)  # fmt: skip
def test_manifests_that_are_not_done(store, manifest, kind, said):
    """Schema 1, charts, layers that registries may not hold, and rubbish: one line each."""
    oci = "application/vnd.oci.image.manifest.v1+json"
    body = json.dumps(manifest).replace("{manifest}", oci).encode()

    def answer(handler: lab.Quiet) -> bool:
        handler.answer(200, body, Content_Type=kind.replace("{manifest}", oci))
        return True

    with lab.front("127.0.0.1:1", answer) as host, pytest.raises(ImageError, match=said):
        pull(f"{host}/x", store=store)


def test_a_changed_manifest_is_refused(registry, store):
    """A manifest that isn't what the registry (or the name) says it is never gets in."""
    data = b'{"schemaVersion": 2}'

    def answer(handler: lab.Quiet) -> bool:
        handler.answer(200, data, Docker_Content_Digest=f"sha256:{'0' * 64}")
        return True

    with lab.front(registry, answer) as host, pytest.raises(RegistryError) as caught:
        pull(f"{host}/team/it:1", store=store)
    assert caught.value.reason == "digest"

    def bare(handler: lab.Quiet) -> bool:
        handler.answer(200, data)
        return True

    with lab.front(registry, bare) as host, pytest.raises(RegistryError) as caught:
        pull(f"{host}/team/it@sha256:{'1' * 64}", store=store)
    assert caught.value.reason == "digest"


# -- bad lines -----------------------------------------------------------------------------------


def test_a_line_that_drops(registry, layout, store):
    """A connection that breaks in the midst of a layer goes on where it broke: no byte comes twice."""
    wire = lab.Line(cut_down=[1_000_000, 1_500_000, 100_000, 2_000_000, 70_000, 90_000, 80_000])
    with lab.line(registry, wire):
        check(pull(f"{wire.address}/team/it:1", store=store), store, layout)
        assert wire.cut_down == []
        assert wire.down < BIG * 1.01


def test_a_line_that_stays_dead_is_an_error(registry, store):
    """After five tries that bring nothing the pull ends, and what came before is kept."""
    wire = lab.Line(cut_down=[1_000_000, *[0] * 40])
    with lab.line(registry, wire), pytest.raises(RegistryError, match=r"connection to .* was lost"):
        pull(f"{wire.address}/team/it:1", store=store)
    partial = [one.stat().st_size for one in Path(store.root, "tmp").glob("*.partial")]
    assert max(partial) > 900_000


def test_a_line_that_stalls(registry, layout, store, monkeypatch):
    """A connection that goes silent is given up and taken up again."""
    monkeypatch.setattr(transport, "READ_S", 0.5)
    wire = lab.Line(stall_down=[1_000_000])
    with lab.line(registry, wire):
        check(pull(f"{wire.address}/team/it:1", store=store), store, layout)
        assert wire.stall_down == []
        assert wire.down < BIG * 1.01


def test_a_changed_byte(registry, layout, store):
    """One changed on its way is noticed, and the layer fetched anew; changed again, it is refused."""
    wire = lab.Line(flip_down=[3_000_000])
    with lab.line(registry, wire):
        check(pull(f"{wire.address}/team/it:1", store=store), store, layout)
        assert wire.flip_down == []
    digest = next(iter(store.images())).layers[0].descriptor.digest
    other = Store(f"{store.root}-other")
    wire = lab.Line(flip_down=[3_000_000, 9_000_000])
    with lab.line(registry, wire), pytest.raises(RegistryError) as caught:
        pull(f"{wire.address}/team/it:1", store=other)
    assert caught.value.reason == "digest"
    assert not other.has(digest)
    assert other.images() == []
    assert list(Path(other.root, "tmp").glob(f"{digest[7:]}*")) == []


PULL = """
import sys
from nscontainer.image.registry.pull import pull
from nscontainer.image.store import Store
pull(sys.argv[1], store=Store(sys.argv[2]))
"""


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_pull_goes_on(registry, layout, store):
    """After SIGKILL in the midst the next pull fetches only the rest, by the line's own count."""
    wire = lab.Line(bytes_per_s=4_000_000)
    with lab.line(registry, wire):
        name = f"{wire.address}/team/it:1"
        process = subprocess.Popen([sys.executable, "-c", PULL, name, str(store.root)])
        try:
            wait_until(lambda: wire.down > BIG / 2)
        finally:
            process.kill()
            process.wait()
        partial = sum(one.stat().st_size for one in Path(store.root, "tmp").glob("*.partial"))
        assert partial > BIG / 3
    with lab.line(registry) as second:
        check(pull(f"{second.address}/team/it:1", store=store), store, layout)
        assert second.down < BIG - partial + 120_000


@pytest.mark.parametrize("silent", [False, True])
def test_an_interrupt_ends_it_at_once(registry, layout, store, silent):
    """Ctrl-C breaks a pull off within a second, even on a silent line; no thread stays, and it goes on."""
    threads = set(threading.enumerate())
    wire = lab.Line(
        bytes_per_s=None if silent else 2_000_000, stall_down=[1_000_000] if silent else []
    )
    with lab.line(registry, wire):
        sent: list[float] = []

        def interrupt() -> None:
            wait_until(lambda: wire.down > 900_000)
            time.sleep(0.2)
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        killer = threading.Thread(target=interrupt)
        killer.start()
        with pytest.raises(KeyboardInterrupt):
            pull(f"{wire.address}/team/it:1", store=store)
        assert time.monotonic() - sent[0] < 1
        killer.join()
    assert set(threading.enumerate()) <= threads
    assert store.images() == []
    partial = sum(one.stat().st_size for one in Path(store.root, "tmp").glob("*.partial"))
    assert partial > 500_000
    with lab.line(registry) as second:
        check(pull(f"{second.address}/team/it:1", store=store), store, layout)
        assert second.down < BIG - partial + 120_000


def full(store: Store, name: str, *, check_first: bool) -> str:
    """Pull into a file system of 4 MiB, mounted where only this process sees it; give the error."""
    code = (
        "import os, sys\nfrom nscontainer.errors import one_line, HostError\n"
        + ("" if check_first else "os.statvfs = lambda p, f=os.statvfs_result([1<<20] * 10): f\n")
        + PULL.replace("pull(sys", "try:\n    pull(sys")
        + "except HostError as error:\n    print(one_line(error), os.listdir(sys.argv[2] + '/tmp'))\n"
    )
    script = 'mkdir -p "$2" && mount -t tmpfs -o size=4M,mode=700 lab "$2" && exec "$0" -c "$3" "$1" "$2"'
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            script,
            sys.executable,
            name,
            f"{store.root}-full",
            code,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk(registry, store):
    """What can't fit is refused before it is fetched; a disk that fills up meanwhile is one line too."""
    name = f"{registry}/team/it:1"
    assert re.search(
        r"it:1 needs 2\d MiB more, the disk of .* has \d MiB left",
        full(store, name, check_first=True),
    )
    assert "no space left on the disk" in full(store, name, check_first=False)


def test_a_progress_that_fails_breaks_it_off(registry, store):
    """An exception in the caller's progress ends the pull and comes out."""

    def progress(event: Event) -> None:
        if event.done_bytes:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pull(f"{registry}/team/it:1", store=store, progress=progress)


def test_a_server_that_does_not_do_ranges(registry, layout, store):
    """Where the server sends all from the beginning again, so do we."""
    wire = lab.Line(cut_down=[2_000_000])
    ranges: list[str | None] = []

    def no_ranges(handler: lab.Quiet) -> bool:
        if "/blobs/" in handler.path:
            ranges.append(handler.headers.get("Range"))
        del handler.headers["Range"]
        return False

    with lab.front(registry, no_ranges) as front, lab.line(front, wire):
        check(pull(f"{wire.address}/team/it:1", store=store), store, layout)
    assert any(ranges)
    assert wire.down > BIG + 1_500_000


def test_an_overloaded_registry(registry, layout, store):
    """429 with Retry-After and 503 are waited out, for manifests and blobs alike."""
    asked: dict[str, int] = {}
    begun = time.monotonic()

    def overloaded(handler: lab.Quiet) -> bool:
        asked[handler.path] = asked.get(handler.path, 0) + 1
        if asked[handler.path] == 1:
            handler.answer(429, b"", Retry_After="1")
        elif asked[handler.path] == 2:
            handler.answer(503, b"")
        return asked[handler.path] <= 2

    with lab.front(registry, overloaded) as host:
        check(pull(f"{host}/team/it:1", store=store), store, layout)
    assert time.monotonic() - begun > 2


# -- TLS, passwords, tokens ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> lab.Certificate:
    return lab.authority(tmp_path_factory.mktemp("ca"))


def test_tls(tmp_path, layout, store, ca, nobodys_configuration, monkeypatch):
    """A CA of one's own: refused with the way to add it, then taken by certs.d or SSL_CERT_FILE."""
    with lab.registry(tmp_path / "tls", tls=lab.certificate(tmp_path, ca)) as host:
        lab.skopeo_push(layout, f"{host}/team/it:1")
        name = f"{host}/team/it:1"
        with pytest.raises(RegistryError) as caught:
            pull(name, store=store)
        assert caught.value.reason == "tls"
        assert f"/etc/docker/certs.d/{host}/ca.crt" in one_line(caught.value)

        monkeypatch.setenv("SSL_CERT_FILE", str(ca.chain))
        check(pull(name, store=store), store, layout)
        monkeypatch.delenv("SSL_CERT_FILE")

        certs = nobodys_configuration / "certs.d" / host
        certs.mkdir(parents=True)
        (certs / "ca.crt").write_bytes(ca.chain.read_bytes())
        other = Store(str(tmp_path / "other"))
        image = pull(name, store=other)
        check(image, other, layout)
        assert push(name, to=f"{host}/mine/it:2", store=other) == image.manifest.digest
        assert manifest_of(host, "mine/it:2") == image.manifest.digest

        (certs / "ca.crt").write_text("no certificate")
        with pytest.raises(NsContainerError, match=r"ca\.crt: a certificate .* can't be used"):
            pull(name, store=other)


def test_a_client_certificate(tmp_path, layout, store, ca, nobodys_configuration):
    """A registry that asks for a certificate of ours gets the pair in certs.d; without it, it's an error."""
    made = lab.certificate(tmp_path, ca)
    with lab.registry(tmp_path / "tls", tls=made, clients=ca) as host:
        certs = nobodys_configuration / "certs.d" / host
        certs.mkdir(parents=True)
        (certs / "ca.crt").write_bytes(ca.chain.read_bytes())
        with pytest.raises(RegistryError):
            pull(f"{host}/team/it:1", store=store)
        (certs / "client.cert").write_bytes(made.chain.read_bytes())
        (certs / "client.key").write_bytes(made.key.read_bytes())
        lab.skopeo_push(layout, f"{host}/team/it:1", f"--dest-cert-dir={certs}")
        check(pull(f"{host}/team/it:1", store=store), store, layout)


def test_tls_for_another_name(tmp_path, store, ca, monkeypatch):
    """A good certificate for another host is refused."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.chain))
    other = lab.certificate(tmp_path, ca, "DNS:elsewhere.example")
    with lab.registry(tmp_path / "tls", tls=other) as host, pytest.raises(RegistryError) as caught:
        pull(f"{host}/x", store=store)
    assert caught.value.reason == "tls"
    assert "not trusted" in caught.value.message


def test_insecure_by_configuration(tmp_path, layout, store, ca, nobodys_configuration):
    """A registry named insecure is taken with any certificate."""
    with lab.registry(tmp_path / "tls", tls=lab.certificate(tmp_path, ca)) as host:
        lab.skopeo_push(layout, f"{host}/team/it:1")
        text = f'[registry."{host}"]\ninsecure = true\n'
        (nobodys_configuration / "registries.toml").write_text(text)
        check(pull(f"{host}/team/it:1", store=store), store, layout)


def logged_in(directory: Path, host: str) -> None:
    """What ``docker login`` leaves."""
    import base64

    pair = base64.b64encode(f"{lab.USER}:{lab.PASSWORD}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": pair}}}))


def test_basic(tmp_path, layout, store, nobodys_configuration):
    """A registry with htpasswd: refused with the way in, refused by a wrong password, then taken."""
    with lab.registry(tmp_path / "basic", auth=lab.htpasswd(tmp_path)) as host:
        lab.skopeo_push(layout, f"{host}/team/it:1", f"--dest-creds={lab.USER}:{lab.PASSWORD}")
        name = f"{host}/team/it:1"
        with pytest.raises(RegistryError, match="no such image, or not for us") as caught:
            pull(name, store=store)
        assert f"docker login {host}" in one_line(caught.value)
        wrong = credentials.Credentials("tester", "wr0ng", source="the test")
        with pytest.raises(RegistryError) as caught:
            pull(name, store=store, look_up=lambda *_: credentials.Found(wrong))
        assert "asked as 'tester' from the test" in one_line(caught.value)
        assert "wr0ng" not in one_line(caught.value)

        logged_in(nobodys_configuration, host)
        image = pull(name, store=store)
        check(image, store, layout)
        push(name, to=f"{host}/mine/it:2", store=store)
        creds = f"--creds={lab.USER}:{lab.PASSWORD}"
        assert manifest_of(host, "mine/it:2", creds) == image.manifest.digest


def test_a_credential_helper(tmp_path, layout, store, nobodys_configuration, monkeypatch):
    """Credentials come from a helper program that config.json names."""
    with lab.registry(tmp_path / "basic", auth=lab.htpasswd(tmp_path)) as host:
        lab.skopeo_push(layout, f"{host}/team/it:1", f"--dest-creds={lab.USER}:{lab.PASSWORD}")
        program = tmp_path / "docker-credential-lab"
        answer = json.dumps({"ServerURL": host, "Username": lab.USER, "Secret": lab.PASSWORD})
        program.write_text(
            f"#!/bin/sh\nread -r server\n[ \"$server\" = {host} ] && echo '{answer}'\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        config = {"credHelpers": {host: "lab"}}
        (nobodys_configuration / "config.json").write_text(json.dumps(config))
        check(pull(f"{host}/team/it:1", store=store), store, layout)


@contextlib.contextmanager
def guarded(
    tmp_path: Path, ca: lab.Certificate, **options: Any
) -> Iterator[tuple[str, lab.TokenServer]]:
    """A registry that wants tokens, and the server that signs them."""
    with (
        lab.token_server(lab.TokenServer(ca, **options)) as tokens,
        lab.registry(tmp_path / "tokens", auth=tokens.settings()) as host,
    ):
        yield host, tokens


def test_tokens(tmp_path, layout, store, ca):
    """Anonymous, by password and by identity token: pull and push, with one token for each."""
    with guarded(tmp_path, ca, anonymous=True) as (host, tokens):
        lab.skopeo_push(layout, f"{host}/team/it:1", f"--dest-creds={lab.USER}:{lab.PASSWORD}")
        tokens.asked.clear()
        image = pull(f"{host}/team/it:1", store=store, look_up=lambda *_: credentials.Found())
        check(image, store, layout)
        assert len(tokens.asked) == 1
        assert tokens.asked[0]["service"] == ["lab, the registry"]
        assert tokens.asked[0]["scope"] == ["repository:team/it:pull"]

        with pytest.raises(RegistryError) as caught:
            push(
                f"{host}/team/it:1",
                to=f"{host}/mine/it:2",
                store=store,
                look_up=lambda *_: credentials.Found(),
            )
        assert caught.value.reason == "unauthorized"
        assert "docker login" in one_line(caught.value)

        tokens.asked.clear()
        push(f"{host}/team/it:1", to=f"{host}/mine/it:2", store=store, look_up=lambda *_: ME)
        assert all(one["account"] == [lab.USER] for one in tokens.asked)
        creds = f"--creds={lab.USER}:{lab.PASSWORD}"
        assert manifest_of(host, "mine/it:2", creds) == image.manifest.digest

        tokens.asked.clear()
        identity = credentials.Credentials(identity_token=tokens.refresh_token)
        other = Store(str(tmp_path / "other"))
        check(
            pull(f"{host}/mine/it:2", store=other, look_up=lambda *_: credentials.Found(identity)),
            other,
            layout,
        )
        assert [one["method"] for one in tokens.asked] == ["POST"]

        wrong = credentials.Credentials("tester", "wr0ng", source="the test")
        with pytest.raises(
            RegistryError, match=r"credentials for .* from the test were refused"
        ) as caught:
            pull(f"{host}/team/it:1", store=other, look_up=lambda *_: credentials.Found(wrong))
        assert "wr0ng" not in one_line(caught.value)


def test_a_token_that_runs_out_during_the_pull(tmp_path, layout, store, ca):
    """Tokens that hold for a second are renewed as a slow pull over a bad line goes on."""
    with guarded(tmp_path, ca, anonymous=True, life_s=1) as (host, tokens):
        lab.skopeo_push(layout, f"{host}/team/it:1", f"--dest-creds={lab.USER}:{lab.PASSWORD}")
        tokens.asked.clear()
        wire = lab.Line(bytes_per_s=2_000_000, cut_down=[3_000_000, 1_500_000])
        with lab.line(host, wire):
            check(pull(f"{wire.address}/team/it:1", store=store), store, layout)
        assert len(tokens.asked) >= 2


# -- mirrors and redirects -----------------------------------------------------------------------


def test_mirrors(registry, layout, store, nobodys_configuration, tmp_path):
    """Mirrors are asked in order, the registry last; which one gave it is told."""
    with lab.registry(tmp_path / "mirror") as mirror:
        lab.skopeo_push(layout, f"{mirror}/hub/team/it:1")
        dead = f"http://127.0.0.1:{lab.free_port()}"
        text = f'[registry."{registry}"]\nmirrors = ["{dead}", "http://{mirror}/hub"]\n'
        (nobodys_configuration / "registries.toml").write_text(text)
        events: list[Event] = []
        image = pull(f"{registry}/team/it:1", store=store, progress=events.append)
        check(image, store, layout)
        assert events[-1].note == f"from mirror {mirror}"
        assert image.names == (f"{registry}/team/it:1",)

        lab.skopeo_push(layout, f"{registry}/team/only:1")  # not on the mirror
        pull(f"{registry}/team/only:1", store=store, progress=events.append)
        assert events[-1].note == f"from {registry}"
        with pytest.raises(
            RegistryError, match=rf"no such image \(before it, mirror .*mirror {mirror}"
        ):
            pull(f"{registry}/team/never:1", store=store)


def test_a_mirror_that_breaks_down(registry, layout, store, nobodys_configuration):
    """A mirror that fails in the midst of a layer: the registry itself gives the rest of it."""
    wire = lab.Line(cut_down=[3_000_000, *[0] * 40])
    with lab.line(registry, wire), lab.line(registry) as itself:
        text = f'[registry."{itself.address}"]\nmirrors = ["http://{wire.address}"]\n'
        (nobodys_configuration / "registries.toml").write_text(text)
        image = pull(f"{itself.address}/team/it:1", store=store)
        check(image, store, layout)
        assert itself.down < BIG - 2_500_000


def test_a_mirror_gets_no_credentials_of_the_registry(
    registry, layout, tmp_path, store, nobodys_configuration
):
    """A mirror that asks for a password isn't sent the registry's."""
    seen: list[str] = []

    def greedy(handler: lab.Quiet) -> bool:
        seen.append(handler.headers.get("Authorization", ""))
        handler.answer(401, b"", WWW_Authenticate='Basic realm="give it to me"')
        return True

    with lab.front(registry, greedy) as mirror:
        text = f'[registry."{registry}"]\nmirrors = ["http://{mirror}"]\n'
        (nobodys_configuration / "registries.toml").write_text(text)
        logged_in(nobodys_configuration, registry)
        check(pull(f"{registry}/team/it:1", store=store), store, layout)
    assert seen == [""]


def test_redirects_of_blobs(tmp_path, registry, layout, store):
    """A registry that sends us to a CDN for blobs: the CDN sees no Authorization."""
    seen: list[tuple[str, str]] = []

    def cdn(handler: lab.Quiet) -> bool:
        seen.append((handler.path, str(handler.headers.get("Authorization"))))
        return False

    asked: list[str] = []
    with lab.front(registry, cdn, "127.0.0.2") as elsewhere:

        def gate(handler: lab.Quiet) -> bool:
            if handler.headers.get("Authorization") != TESTER.basic:
                handler.answer(401, b"", WWW_Authenticate='Basic realm="lab"')
                return True
            asked.append(handler.path)
            if "/blobs/" in handler.path:
                handler.answer(307, b"", Location=f"http://{elsewhere}{handler.path}?sig=s3cret")
                return True
            del handler.headers["Authorization"]
            return False

        with lab.front(registry, gate) as host:
            check(pull(f"{host}/team/it:1", store=store, look_up=lambda *_: ME), store, layout)
    assert len(asked) == 5
    assert len(seen) == 4
    assert {authorization for _, authorization in seen} == {"None"}


# -- push ----------------------------------------------------------------------------------------


def test_push(registry, layout, store):
    """skopeo reads what we push under an equal digest; what is there is not sent again."""
    name = f"{registry}/team/it:1"
    image = pull(name, store=store)
    with lab.registry(Path(store.root).parent / "second") as second, lab.line(second) as wire:
        events: list[Event] = []
        digest = push(name, to=f"{wire.address}/mine/it:1", store=store, progress=events.append)
        assert digest == image.manifest.digest == manifest_of(second, "mine/it:1")
        assert wire.up > BIG
        lab.skopeo(
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            f"docker://{second}/mine/it:1",
            f"oci:{store.root}-copy:it",
        )
        assert entry(Path(f"{store.root}-copy"))["digest"] == digest
        assert (
            max(one.done_bytes for one in events if one.kind == "upload")
            == image.layers[0].descriptor.size
        )
        assert events[-1].kind == "done"
        before = wire.up
        push(name, to=f"{wire.address}/mine/it:2", store=store, progress=events.append)
        assert wire.up - before < 8000
        assert [one.note for one in events[-5:-1]] == ["already there"] * 4


def test_mounted_from_a_relative(registry, layout, store):
    """Blobs that another repository of the registry has are mounted, not sent."""
    with lab.line(registry) as wire:
        name = f"{wire.address}/team/it:1"
        pull(name, store=store)
        events: list[Event] = []
        before = wire.up
        digest = push(name, to=f"{wire.address}/relative/it:1", store=store, progress=events.append)
        assert wire.up - before < 10_000
        assert [one.note for one in events[:-1]] == ["mounted from team/it"] * 4
    assert manifest_of(registry, "relative/it:1") == digest


def test_push_over_a_line_that_drops(registry, layout, store):
    """An upload that breaks is begun anew where the registry has lost count (distribution 2.8 has)."""
    name = f"{registry}/team/it:1"
    pull(name, store=store)
    wire = lab.Line(cut_up=[2_000_000, 1_000_000])
    with lab.registry(Path(store.root).parent / "second") as second, lab.line(second, wire):
        digest = push(name, to=f"{wire.address}/mine/it:1", store=store)
        assert wire.cut_up == []
        assert manifest_of(second, "mine/it:1") == digest


def test_push_goes_on_where_the_registry_says(registry, store):
    """A registry that tells how far an upload came is sent the rest only."""
    name = f"{registry}/team/it:1"
    image = pull(name, store=store)
    size = image.layers[0].descriptor.size
    have: dict[str, bytes] = {}
    requests: list[tuple[str, int]] = []

    def spec(handler: lab.Quiet) -> bool:
        """Uploads as the distribution specification has them; the first big one breaks."""
        path, _, query = handler.path.partition("?")
        length = int(handler.headers.get("Content-Length", 0))
        if handler.command in {"PUT", "PATCH"}:
            requests.append((handler.command, length))
        if handler.command == "HEAD":
            handler.answer(404, b"")
        elif handler.command == "POST":
            where = f"{path}{len(have)}"
            have[where] = b""
            handler.answer(202, b"", Location=where)
        elif handler.command == "GET":
            handler.answer(204, b"", Location=path, Range=f"0-{len(have[path]) - 1}")
        elif handler.command == "PUT" and length == size:
            have[path] = handler.rfile.read(1_000_000)
            handler.connection.close()
            handler.close_connection = True
        elif "manifests" in path:
            handler.rfile.read(length)
            handler.answer(201, b"")
        else:
            start = handler.headers.get("Content-Range", "0-").partition("-")[0]
            if handler.command == "PATCH":
                assert int(start) == len(have[path])
            have[path] += handler.rfile.read(length)
            if handler.command == "PUT":
                digest = query.partition("digest=")[2].replace("%3A", ":")
                assert f"sha256:{hashlib.sha256(have[path]).hexdigest()}" == digest
            handler.answer(201 if handler.command == "PUT" else 202, b"", Location=path)
        return True

    with lab.front(registry, spec) as host:
        push(name, to=f"{host}/mine/it:1", store=store)
    assert ("PATCH", size - 1_000_000) in requests
    assert [count for _, count in requests].count(size) == 1


def test_an_image_on_the_host_is_not_pushed(registry, store):
    """What stands on this machine's own system is refused before anything is sent, naming export."""
    config = {
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Labels": {"org.nscontainer.base": "host"}},
    }  # fmt: skip
    store.make_image(config, [], name="mylab:1")
    with pytest.raises(ImageError, match="stands on this machine's own system") as caught:
        push("mylab:1", to=f"{registry}/mine/lab:1", store=store)
    assert "export" in one_line(caught.value)
