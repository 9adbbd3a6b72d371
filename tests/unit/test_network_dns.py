"""The resolver on real sockets of this machine's loopback, with name servers of the test's own."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nscontainer.errors import SpecError
from nscontainer.network import dns, dnswire, names

NAMES = {"web": "10.213.0.2", "db": "10.213.0.3"}


def query(name: str, kind: int = dnswire.A, number: int = 77) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".") if part)
    return (
        struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0)
        + labels
        + struct.pack("!BHH", 0, kind, 1)
    )


def read_reply(data: bytes) -> tuple[int, int, list[tuple[int, bytes]]]:
    """Give the number, the code and the records of a reply: those of the question's name."""
    number, flags, _, count, _, _ = struct.unpack_from("!HHHHHH", data)
    at = 12
    while data[at]:
        at += data[at] + 1
    at += 5
    records = []
    for _ in range(count):
        _, kind, _, _, size = struct.unpack_from("!HHHIH", data, at)
        records.append((kind, data[at + 12 : at + 12 + size]))
        at += 12 + size
    return number, flags & 15, records


def lookup(name: str) -> str | None:
    return NAMES.get(name)


def reverse(address: str) -> str | None:
    if not address.startswith("10.213.0."):
        return None
    return {a: n for n, a in NAMES.items()}.get(address, "")


@contextlib.contextmanager
def serving(**options):
    """A resolver with a thread that is its monitor; gives where it listens."""
    udp, tcp = dns.sockets("127.0.0.1", 0)
    resolver = dns.Resolver(udp, tcp, lookup=lookup, reverse=reverse, **options)
    stop_r, stop_w = os.pipe()
    address = udp.getsockname()

    def loop() -> None:
        while stop_r not in (ready := select.select([resolver.fileno(), stop_r], [], [])[0]):
            assert ready
            resolver.serve()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield address
        assert thread.is_alive(), "the resolver's loop ended by an error"
    finally:
        os.write(stop_w, b"x")
        thread.join(10)
        resolver.close()
        os.close(stop_r)
        os.close(stop_w)


def ask(address: tuple[str, int], message: bytes, timeout: float = 10) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.sendto(message, address)
        return sock.recv(4096)


def ask_stream(address: tuple[str, int], message: bytes) -> bytes:
    with socket.create_connection(address, 10) as sock:
        frame = struct.pack("!H", len(message)) + message
        sock.sendall(frame[:5])  # in two parts: a stream has no messages
        time.sleep(0.02)
        sock.sendall(frame[5:])
        file = sock.makefile("rb")
        return file.read(int.from_bytes(file.read(2), "big"))


@contextlib.contextmanager
def name_server(answer=b"\x05\x06\x07\x08"):
    """A name server that knows every name, by UDP and by TCP; gives its address and what it was asked."""
    udp, tcp = dns.sockets("127.0.0.1", 0)
    asked: list[bytes] = []
    stop_r, stop_w = os.pipe()

    def respond(message: bytes) -> bytes:
        asked.append(message)
        question = dnswire.parse_question(message)
        assert question is not None
        return dnswire.reply(question, dnswire.NO_ERROR, [(dnswire.A, answer)])

    def loop() -> None:
        while True:
            ready = select.select([udp.fileno(), tcp.fileno(), stop_r], [], [])[0]
            if stop_r in ready:
                return
            if udp.fileno() in ready:
                message, client = udp.recvfrom(4096)
                # Somebody's guess first: another number. It must not be believed.
                udp.sendto(dnswire.with_number(respond(message), 1 + message[0] * 256), client)
                udp.sendto(respond(message), client)
            if tcp.fileno() in ready:
                client = tcp.accept()[0]
                client.setblocking(True)  # noqa: FBT003 - socket's own
                with client, client.makefile("rb") as file:
                    reply = respond(file.read(int.from_bytes(file.read(2), "big")))
                    client.sendall(struct.pack("!H", len(reply)) + reply)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield f"127.0.0.1#{udp.getsockname()[1]}", asked
    finally:
        os.write(stop_w, b"x")
        thread.join(10)
        for thing in (udp, tcp):
            thing.close()
        os.close(stop_r)
        os.close(stop_w)


def test_names_of_the_network_are_answered_by_datagram_and_by_stream():
    with serving(forward=False) as address:
        for how in (ask, ask_stream):
            assert read_reply(how(address, query("WEB"))) == (
                77,
                0,
                [(dnswire.A, socket.inet_aton("10.213.0.2"))],
            )
            # It has no IPv6 address, and that is no error: else getaddrinfo would fail.
            assert read_reply(how(address, query("web", 28))) == (77, 0, [])
            assert read_reply(how(address, query("nobody")))[1] == dnswire.NO_SUCH_NAME


def test_addresses_of_the_network_have_names():
    with serving(forward=False) as address:
        asked = query("3.0.213.10.in-addr.arpa", dnswire.PTR)
        assert read_reply(ask(address, asked))[2] == [(dnswire.PTR, b"\x02db\x00")]
        nobody = query("9.0.213.10.in-addr.arpa", dnswire.PTR)
        assert read_reply(ask(address, nobody))[1] == dnswire.NO_SUCH_NAME


@pytest.mark.parametrize("how", [ask, ask_stream])
def test_other_names_are_asked_of_the_hosts_server_under_another_number(how):
    with name_server() as (server, asked), serving(servers=[server]) as address:
        number, code, records = read_reply(how(address, query("example.org")))
        assert (number, code, records) == (77, 0, [(dnswire.A, b"\x05\x06\x07\x08")])
        assert asked
        assert all(message[12:] == query("example.org")[12:] for message in asked)
        how(address, query("web"))
        assert not any(b"web" in message for message in asked), "a container's name went out"


def test_the_next_server_is_asked_when_one_refuses_or_is_silent():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, name_server() as (server, _):
        silent.bind(("127.0.0.1", 0))
        servers = ["127.0.0.1#1", f"127.0.0.1#{silent.getsockname()[1]}", "no address", server]
        with serving(servers=servers) as address:
            assert read_reply(ask(address, query("example.org")))[2]
            # Meanwhile others are answered: nothing waits.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(query("example.org"), address)
                assert read_reply(ask(address, query("db"), timeout=1))[2]
    with serving(servers=["127.0.0.1#1"]) as address:
        assert read_reply(ask(address, query("example.org")))[1] == dnswire.SERVER_FAILURE
        assert read_reply(ask_stream(address, query("example.org")))[1] == dnswire.SERVER_FAILURE


@pytest.fixture(scope="module")
def fuzzed():
    with serving(forward=False) as address:
        yield address


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600) | st.binary(max_size=80).map(lambda tail: query("web")[:12] + tail))
@example(query("web")[:12] + b"\xc0\x0c\x00\x01\x00\x01")
@example(query("web")[:12] + b"\x3f" * 70 + b"\0\0\1\0\1")
@example(query(".".join(["a" * 63] * 4)))
@example(query("a\0b") + b"trailing")
@example(query("web", 0x10001 & 0xFFFF))
def test_whatever_comes_it_goes_on_answering(fuzzed, message):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(message, fuzzed)
    with socket.create_connection(fuzzed, 10) as stream:
        stream.sendall(message)
    assert read_reply(ask(fuzzed, query("db")))[2]


def test_connections_that_say_nothing_dont_keep_others_out():
    with serving(forward=False) as address, contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(address, 10))
        assert read_reply(ask(address, query("db")))[2]


def test_the_name_files(monkeypatch):
    texts = {"/etc/resolv.conf": "# x\nnameserver 9.9.9.9\nsearch a b # c\n", "/etc/hosts": "h"}
    monkeypatch.setattr(names, "read", lambda path: texts[path])
    place = names.Place("10.213.0.2", "10.213.0.1")
    hosts = [("db", "10.0.0.9"), ("me", "host-gateway")]
    files = names.files("abc", host=False, place=place, add_hosts=hosts)
    assert files["/etc/hosts"].splitlines()[2:] == [
        "10.213.0.2\tabc",
        "10.0.0.9\tdb",
        "10.213.0.1\tme",
    ]
    assert files["/etc/resolv.conf"] == "nameserver 127.0.0.11\nsearch a b\noptions ndots:0\n"
    assert names.host_servers() == ["9.9.9.9"]
    alone = names.files("abc", host=False, place=None, add_hosts=hosts[:1])
    assert alone["/etc/hosts"].endswith("127.0.1.1\tabc\n10.0.0.9\tdb\n")
    with pytest.raises(SpecError, match="without a network there is no gateway"):
        names.check(hosts, reaches_host=False)
    names.check(hosts, reaches_host=True)
    shared = names.files("abc", host=True, place=None, add_hosts=hosts)
    assert shared["/etc/hosts"] == "h\n10.0.0.9\tdb\n127.0.0.1\tme\n"
    assert shared["/etc/resolv.conf"] == texts["/etc/resolv.conf"]
