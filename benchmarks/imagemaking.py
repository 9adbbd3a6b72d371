"""Images to measure with, and a registry of our own to have them in; the same every time."""

from __future__ import annotations

import hashlib
import io
import os
import random
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from benchmarks import roots
from benchmarks.peers import PeerError, need
from nscontainer.image.store import Store

REGISTRY_IMAGE = "lab:200"
LAYERS = 4
LAYER_BYTES = 50_000_000
LARGE_BYTES = 1_000_000_000
MANY_LAYERS = {1: "layers:1", 30: "layers:30"}
_CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "{address}"}}
"""


class Registry:
    """A docker-registry on loopback, its data in a directory.

    Raises
    ------
    PeerError
        It isn't installed, or doesn't start.
    """

    def __init__(self, top: Path) -> None:
        top.mkdir()
        self.address = f"127.0.0.1:{_free_port()}"
        config = top / "config.yml"
        config.write_text(_CONFIG.format(root=top / "data", address=self.address), "utf-8")
        with (top / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [need("docker-registry"), "serve", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                said = (top / "log").read_text("utf-8", errors="replace").strip()
                message = f"docker-registry doesn't start: {said[-300:]}"
                raise PeerError(message)
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/v2/", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def fill(registry: Registry, state: Path, name: str) -> int:
    """Put an image of 200 MB into a registry, by skopeo; give its files' bytes."""
    store = _store(state)
    layers = [store.add_layer(_tar(_files(number))) for number in range(LAYERS)]
    store.make_image(_config(), layers, name=REGISTRY_IMAGE)
    source = f"oci:{store.root}:{_index_name(store)}"
    command = ["skopeo", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"skopeo copy to {registry.address}: {done.stderr.strip()[-300:]}"
        raise PeerError(message)
    return LAYERS * LAYER_BYTES


def layered(state: Path) -> None:
    """Make two images that show the same files: in 1 layer, and in 30."""
    store = _store(state)
    extra = [(f"opt/part{number}/file", b"x" * 1000) for number in range(29)]
    base = roots.tar(roots.true_files())
    whole = store.add_layer(_tar([*_members(base), *extra]))
    store.make_image(_config(), [whole], name=MANY_LAYERS[1])
    first = store.add_layer(_tar(_members(base)))
    parts = [store.add_layer(_tar([one])) for one in extra]
    store.make_image(_config(), [first, *parts], name=MANY_LAYERS[30])


def large(state: Path) -> str:
    """Make an image of 1 GB that /bin/true and dd run in; give its name."""
    store = _store(state)
    chunk = random.Random(1).randbytes(1 << 20)  # noqa: S311 - no secret
    data = [(f"srv/data/{number}", chunk) for number in range(LARGE_BYTES // len(chunk))]
    files = [*roots.true_files(), "/bin/dd", *roots.libraries("/bin/dd")]
    layer = store.add_layer(_tar([*_members(roots.tar(files)), *data]), compression="none")
    store.make_image(_config(), [layer], name="large:1")
    return "large:1"


def many(state: Path, count: int) -> None:
    """Make many images of a few small layers."""
    store = _store(state)
    layers = [store.add_layer(_tar([(f"file{number}", b"x" * 100)])) for number in range(8)]
    for number in range(count):
        config = _config() | {"config": {"Env": [f"NUMBER={number}", "PATH=/usr/bin:/bin"]}}
        store.make_image(config, layers[: 1 + number % 8], name=f"lab{number % 50}:{number}")


def _store(state: Path) -> Store:
    state.mkdir(mode=0o700)
    return Store(str(state / "images"))


def _index_name(store: Store) -> str:
    """Give the name that skopeo knows the only image of a store by."""
    import json

    index = json.loads(Path(store.root, "index.json").read_text("utf-8"))
    annotations: dict[str, str] = index["manifests"][0]["annotations"]
    return annotations["org.opencontainers.image.ref.name"]


def _config() -> dict[str, object]:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    return {"created": "2026-01-01T00:00:00Z", "architecture": machine, "os": "linux"}


def _members(packed: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for entry in archive:
            if entry.isreg():
                content = archive.extractfile(entry)
                assert content is not None
                yield entry.name, content.read()


def _tar(files: Iterable[tuple[str, bytes]]) -> Callable[[Any], None]:
    """Give what writes a tar of files: root's, all of them programs."""
    held = list(files) if not isinstance(files, list) else files

    def write(sink: Any) -> None:
        with tarfile.open(fileobj=sink, mode="w|") as archive:
            for name in sorted({str(parent) for path, _ in held for parent in Path(path).parents}):
                if name != ".":
                    folder = tarfile.TarInfo(name)
                    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(folder)
            for path, content in held:
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content), 0o755
                archive.addfile(entry, io.BytesIO(content))

    return write


def _files(number: int) -> list[tuple[str, bytes]]:
    """Give a layer's files: sizes as in a real root, contents that gzip makes a bit over a third of."""
    chance = random.Random(number)  # noqa: S311 - no secret
    words = [hashlib.sha256(bytes([n])).hexdigest()[: chance.randrange(3, 12)] for n in range(200)]
    text = " ".join(chance.choices(words, k=400_000)).encode()
    noise = chance.randbytes(8 << 20)
    found: list[tuple[str, bytes]] = []
    total = 0
    while total < LAYER_BYTES:
        size = min(int(chance.paretovariate(0.9) * 1500), 4 << 20, LAYER_BYTES - total)
        source = noise if chance.random() < 0.25 else text
        at = chance.randrange(max(1, len(source) - size))
        found.append((f"usr/lib{number}/d{len(found) % 97}/f{len(found)}", source[at : at + size]))
        total += len(found[-1][1])
    return found
