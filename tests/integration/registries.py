"""Real registries on loopback, and what may stand between: TLS, passwords, tokens, a bad line, a CDN.

The registry is Debian's ``docker-registry`` (CNCF distribution 2.8), one process for each.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import random
import socket
import subprocess
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER, PASSWORD = "tester", "s3cret:word"  # a colon in it: Basic's separator is the first one
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
HTPASSWD = "tester:$2b$05$pndjxHQAQGNOnQWR7qMsHuJ9HiT3u7bPSOWfEsdJuP4MORYNSLZ3C\n"


def free_port(host: str = "127.0.0.1") -> int:
    with socket.create_server((host, 0)) as one:
        return int(one.getsockname()[1])


@contextlib.contextmanager
def registry(
    top: Path,
    *,
    auth: dict[str, Any] | None = None,
    tls: Certificate | None = None,
    clients: Certificate | None = None,
    host: str = "127.0.0.1",
) -> Iterator[str]:
    """A docker-registry with its files under ``top`` (``clients``: whose certificates it asks for); gives ``host:port``."""
    top.mkdir(exist_ok=True)
    port = free_port()
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(top / "data")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "for the state of uploads"},
    }
    if tls:
        config["http"]["tls"] = {"certificate": str(tls.chain), "key": str(tls.key)}
        if clients:
            config["http"]["tls"]["clientcas"] = [str(clients.chain)]
    if auth:
        config["auth"] = auth
    (top / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (top / "log").open("w") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(top / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        wait_for_port(port, process, top / "log")
        yield f"{host}:{port}"
    finally:
        process.terminate()
        process.wait(10)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            message = f"docker-registry doesn't serve: {log.read_text()[-500:]}"
            raise RuntimeError(message)
        time.sleep(0.02)


def htpasswd(top: Path) -> dict[str, Any]:
    """Settings of a registry that wants USER and PASSWORD by HTTP's Basic scheme."""
    path = top / "htpasswd"
    path.write_text(HTPASSWD)
    return {"htpasswd": {"realm": "the lab", "path": str(path)}}


# -- certificates --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    chain: Path
    key: Path


def openssl(*arguments: str, data: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def authority(top: Path, name: str = "ca") -> Certificate:
    """A CA of one's own."""
    made = Certificate(top / f"{name}.crt", top / f"{name}.key")
    openssl(
        *"req -x509 -newkey rsa:2048 -nodes -days 2 -subj".split(), f"/CN=lab {name}",
        *"-addext keyUsage=critical,keyCertSign,digitalSignature".split(),
        "-keyout", str(made.key), "-out", str(made.chain),
    )  # fmt: skip
    return made


def certificate(
    top: Path, ca: Certificate, names: str = "IP:127.0.0.1,DNS:localhost"
) -> Certificate:
    """A server's certificate from that CA."""
    made = Certificate(top / "server.crt", top / "server.key")
    request, extensions = top / "server.csr", top / "server.ext"
    extensions.write_text(f"subjectAltName={names}\n")
    openssl(
        *"req -newkey rsa:2048 -nodes -subj /CN=lab".split(),
        "-keyout", str(made.key), "-out", str(request),
    )  # fmt: skip
    openssl(
        *"x509 -req -days 2 -CAcreateserial".split(), "-in", str(request),
        "-CA", str(ca.chain), "-CAkey", str(ca.key), "-extfile", str(extensions),
        "-out", str(made.chain),
    )  # fmt: skip
    return made


# -- tokens --------------------------------------------------------------------------------------


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Quiet(http.server.BaseHTTPRequestHandler):
    """Answers without a line for each on standard error."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def serving(handler: type[Quiet], host: str = "127.0.0.1") -> Iterator[str]:
    """A small HTTP server of the test's own; gives ``host:port``."""
    server = http.server.ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class TokenServer:
    """Signs what docker-registry's ``auth: token`` wants: RS256 with the signer's chain in ``x5c``."""

    ca: Certificate
    life_s: int = 60
    refresh_token: str = "an identity token"
    anonymous: bool = False
    realm: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    def settings(self) -> dict[str, Any]:
        return {
            "token": {
                "realm": self.realm,
                "service": "lab, the registry",
                "issuer": "lab issuer",
                "rootcertbundle": str(self.ca.chain),
            }
        }

    def token(self, service: str, scopes: list[str], user: str) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        der = openssl("x509", "-in", str(self.ca.chain), "-outform", "DER")
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": "lab issuer", "sub": user, "aud": service, "jti": uuid.uuid4().hex,
            "iat": now, "nbf": now - 10, "exp": now + self.life_s, "access": access,
        }  # fmt: skip
        text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
        signature = openssl("dgst", "-sha256", "-sign", str(self.ca.key), data=text.encode())
        return f"{text}.{b64(signature)}"


@contextlib.contextmanager
def token_server(lab: TokenServer) -> Iterator[TokenServer]:
    """Serve tokens: by Basic, by a refresh token, or to anybody for pulling."""

    class Handler(Quiet):
        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            sent = self.headers.get("Authorization", "")
            good = sent == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            lab.asked.append({"method": "GET", "authorization": sent, **query})
            scopes = query.get("scope", [])
            if not good and (sent or not lab.anonymous):
                self.answer(401, b'{"details": "incorrect username or password"}')
                return
            if not good:
                scopes = [scope for scope in scopes if scope.endswith(":pull")]
            self.give(query["service"][0], scopes)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = urllib.parse.parse_qs(body)
            lab.asked.append({"method": "POST", **form})
            if form.get("refresh_token") != [lab.refresh_token]:
                self.answer(401, b"{}")
                return
            self.give(form["service"][0], form["scope"][0].split())

        def give(self, service: str, scopes: list[str]) -> None:
            token = lab.token(service, scopes, USER)
            body = json.dumps({"token": token, "expires_in": lab.life_s}).encode()
            self.answer(200, body, Content_Type="application/json")

    with serving(Handler) as address:
        lab.realm = f"http://{address}/token"
        yield lab


# -- a line that can be bad ----------------------------------------------------------------------


@dataclass
class Line:
    """What a TCP connection through :func:`line` has to bear, and what went over it.

    Parameters
    ----------
    cut_down, cut_up
        Bytes after which a connection is dropped, towards the client and towards the server; one
        for each connection that gets so far, in turn.
    stall_down
        The same, but the connection goes silent.
    flip_down
        The byte there is changed, of all that came down on whichever connection.
    bytes_per_s
        How fast bytes come down, or None.
    """

    cut_down: list[int] = field(default_factory=list)
    cut_up: list[int] = field(default_factory=list)
    stall_down: list[int] = field(default_factory=list)
    flip_down: list[int] = field(default_factory=list)
    bytes_per_s: float | None = None
    down: int = 0
    up: int = 0
    address: str = ""
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, faults: list[int], before: int, after: int) -> int | None:
        """Give the place of the next fault if it lies in these bytes of a connection."""
        with self.lock:
            if faults and before <= faults[0] < after:
                return faults.pop(0) - before
        return None


@contextlib.contextmanager
def line(to: str, state: Line | None = None) -> Iterator[Line]:
    """A TCP proxy to ``host:port``."""
    state = Line() if state is None else state
    host, port = to.rsplit(":", 1)
    server = socket.create_server(("127.0.0.1", 0))
    state.address = f"127.0.0.1:{server.getsockname()[1]}"
    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = [server]

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
                upstream = socket.create_connection((host, int(port)))
            except OSError:
                return
            sockets.extend((client, upstream))
            for target, a, b in ((_down, upstream, client), (_up, client, upstream)):
                thread = threading.Thread(target=target, args=(state, a, b))
                thread.start()
                threads.append(thread)

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield state
    finally:
        state.closing.set()
        for one in sockets:
            _drop(one)
        acceptor.join(5)
        for thread in threads:
            thread.join(5)


def _drop(*sockets: socket.socket) -> None:
    """End both directions, and wake up whoever waits; then close: only that refuses what still comes."""
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


def _down(state: Line, server: socket.socket, client: socket.socket) -> None:
    passed = 0
    with contextlib.suppress(OSError):
        while data := server.recv(65536):
            if state.bytes_per_s:
                data = bytes(data)
                state.closing.wait(len(data) / state.bytes_per_s)
            if (at := state.take(state.flip_down, state.down, state.down + len(data))) is not None:
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            at = state.take(state.cut_down, passed, passed + len(data))
            silent = state.take(state.stall_down, passed, passed + len(data))
            if silent is not None:
                at = silent
            client.sendall(data if at is None else data[:at])
            with state.lock:
                state.down += len(data) if at is None else at
            if silent is not None:
                state.closing.wait(60)
            if at is not None:
                break
            passed += len(data)
    _drop(server, client)


def _up(state: Line, client: socket.socket, server: socket.socket) -> None:
    passed = 0
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            at = state.take(state.cut_up, passed, passed + len(data))
            server.sendall(data if at is None else data[:at])
            with state.lock:
                state.up += len(data) if at is None else at
            if at is not None:
                break
            passed += len(data)
    _drop(server, client)


# -- in front of a registry ----------------------------------------------------------------------

Hook = Callable[[Quiet], bool]


@contextlib.contextmanager
def front(to: str, hook: Hook, host: str = "127.0.0.1") -> Iterator[str]:
    """An HTTP server that hands requests on to a registry, unless ``hook`` has answered."""

    class Handler(Quiet):
        def handle_one(self) -> None:
            if hook(self):
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = http.client.HTTPConnection(to)
            try:
                connection.request(self.command, self.path, body or None, dict(self.headers))
                answer = connection.getresponse()
                headers = {
                    name.replace("-", "_"): value
                    for name, value in answer.getheaders()
                    if name.lower() not in {"content-length", "transfer-encoding", "date"}
                }
                self.answer(answer.status, answer.read(), **headers)
            finally:
                connection.close()

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = handle_one  # noqa: N815

    with serving(Handler, host) as address:
        yield address


# -- images --------------------------------------------------------------------------------------


def layout(
    top: Path, layers: list[bytes], *, architecture: str = "amd64", compression: str = "gzip"
) -> Path:
    """An OCI layout by hand with the image ``it`` of those layer tars."""
    import gzip

    import zstandard

    squeeze: Callable[[bytes], bytes] = {
        "gzip": lambda data: gzip.compress(data, 1, mtime=0),
        "zstd": lambda data: zstandard.compress(data, 1),
    }[compression]
    store = top / "blobs" / "sha256"
    store.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (store / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    blobs = [
        put(squeeze(tar), f"application/vnd.oci.image.layer.v1.tar+{compression}") for tar in layers
    ]
    config = {
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/true"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in layers],
        },
    }  # fmt: skip
    kind = "application/vnd.oci.image.config.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(json.dumps(config).encode(), kind),
        "layers": blobs,
    }
    entry = put(json.dumps(manifest).encode(), MANIFEST)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "it"}
    (top / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (top / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return top


def tar(files: dict[str, bytes]) -> bytes:
    """A layer's tar with those files."""
    import io
    import tarfile

    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            writer.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


def noise(size: int, seed: int) -> bytes:
    """Bytes that don't compress, the same for each seed."""
    return random.Random(seed).randbytes(size)


def skopeo(*arguments: str, **environment: str) -> str:
    """Run skopeo; give what it wrote."""
    done = subprocess.run(
        ["skopeo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo_push(top: Path, to: str, *options: str, **environment: str) -> None:
    """Put a layout's image into a registry: by a stranger's hand."""
    skopeo(
        "copy", "--quiet", "--dest-tls-verify=false", *options, f"oci:{top}:it",
        f"docker://{to}", **environment,
    )  # fmt: skip
