"""A container's resolver: 127.0.0.11:53 inside its network, served by its monitor outside.

It answers what the network's containers are called and hands the rest on to the host's name servers,
from the host's network: so those at a loopback address (systemd-resolved's 127.0.0.53) do as well.
Nothing here ever waits. All that it listens to is behind one epoll descriptor, so that the
monitor watches one fd however many questions are under way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from nscontainer.linux.timerfd import timerfd_create, timerfd_settime
from nscontainer.network import dnswire, names
from nscontainer.network.dnswire import Question

PORT: Final = 53
_BATCH: Final = 32
"""Most questions taken in one turn: a flood of them must not keep the monitor from its samples."""
_MOST_PENDING: Final = 128
_MOST_CLIENTS: Final = 16
_PATIENCE_S: Final = 2.0
"""How long one name server is waited for before the next is asked; glibc asks again after 5 s."""
_IDLE_S: Final = 10.0
_TICK_NS: Final = 500_000_000
_IP_FREEBIND: Final = 15

Reply = Callable[[bytes], None]


@dataclass(slots=True)
class _Pending:
    """A question handed on: to whom, and how the answer goes back."""

    question: Question
    message: bytes
    reply: Reply
    stream: bool
    servers: list[str]
    sock: socket.socket
    number: int
    until: float
    unsent: bytes = b""
    received: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class _Client:
    """A connection of the container's."""

    sock: socket.socket
    until: float
    received: bytearray = field(default_factory=bytearray)


def sockets(address: str = names.RESOLVER, port: int = PORT) -> tuple[socket.socket, socket.socket]:
    """Make the two sockets of a resolver in the calling thread's network namespace: UDP, TCP."""
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | flags)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | flags)
    try:
        for sock in (udp, tcp):
            # The loopback interface is the container's to bring up, and may be down yet.
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        udp.bind((address, port))
        tcp.bind((address, udp.getsockname()[1]))
        tcp.listen(_MOST_CLIENTS)
    except OSError:
        udp.close()
        tcp.close()
        raise
    return udp, tcp


class Resolver:
    """Answers questions about names.

    Parameters
    ----------
    udp, tcp
        As :func:`sockets` makes them; the resolver closes them.
    lookup
        Gives the address of a container on the network by its name, or None.
    reverse
        Gives a container's name by its address, "" where the address is the network's but nobody's,
        None where it is none of the network's.
    servers
        Name servers to ask instead of the host's.
    forward
        Whether questions about other names are handed on; an internal network has no way out, by
        way of names neither (CVE-2024-29018).
    """

    def __init__(
        self,
        udp: socket.socket,
        tcp: socket.socket,
        *,
        lookup: Callable[[str], str | None],
        reverse: Callable[[str], str | None],
        servers: Sequence[str] = (),
        forward: bool = True,
    ) -> None:
        self._udp, self._tcp = udp, tcp
        self._lookup, self._reverse = lookup, reverse
        self._servers, self._forward = tuple(servers), forward
        self._pending: dict[int, _Pending] = {}
        self._clients: dict[int, _Client] = {}
        self._timer = timerfd_create()
        self._ticking = False
        self._epoll = select.epoll()
        for fd in (udp.fileno(), tcp.fileno(), self._timer):
            self._epoll.register(fd, select.EPOLLIN)

    def fileno(self) -> int:
        """Give the fd to watch: readable when there is something to do."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Close everything; questions under way stay without an answer."""
        for pending in self._pending.values():
            pending.sock.close()
        for client in self._clients.values():
            client.sock.close()
        self._epoll.close()
        os.close(self._timer)
        self._udp.close()
        self._tcp.close()

    def serve(self) -> None:
        """Do what is to be done now. Nothing that the container sends makes it fail or wait."""
        with contextlib.suppress(OSError):
            for fd, _ in self._epoll.poll(0):
                if fd == self._udp.fileno():
                    self._take_datagrams()
                elif fd == self._tcp.fileno():
                    self._accept()
                elif fd == self._timer:
                    self._expire()
                elif fd in self._clients:
                    self._read_client(self._clients[fd])
                elif fd in self._pending:
                    self._go_on(self._pending[fd])

    # --- questions ---------------------------------------------------------------------------

    def _take_datagrams(self) -> None:
        for _ in range(_BATCH):
            try:
                message, client = self._udp.recvfrom(4096)
            except BlockingIOError:
                return
            self._answer(message, partial(self._send_to, client), stream=False)

    def _send_to(self, client: tuple[str, int], data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._udp.sendto(data, client)

    def _answer(self, message: bytes, reply: Reply, *, stream: bool) -> None:
        question = dnswire.parse_question(message)
        if question is None:
            return  # Docker's too: nothing that could be answered
        data = self._own(question)
        if data is not None:
            reply(data)
        elif not self._forward:
            reply(dnswire.reply(question, dnswire.NO_SUCH_NAME))
        elif len(self._pending) >= _MOST_PENDING:
            reply(dnswire.reply(question, dnswire.SERVER_FAILURE))
        else:
            self._ask(question, message, reply, self._upstream(), stream=stream)

    def _own(self, question: Question) -> bytes | None:
        """Give the answer that this network has itself, or None."""
        if question.klass not in (dnswire.IN, dnswire.ANY):
            return None
        asked = dnswire.reversed_address(question.name)
        if asked is not None:
            name = self._reverse(asked)
            if name is None:
                return None
            if not name:
                return dnswire.reply(question, dnswire.NO_SUCH_NAME)
            wanted = question.type in (dnswire.PTR, dnswire.ANY)
            records = [(dnswire.PTR, dnswire.name(name))] if wanted else []
            return dnswire.reply(question, dnswire.NO_ERROR, records)
        address = self._lookup(question.name) if question.name else None
        if address is None:
            return None
        wanted = question.type in (dnswire.A, dnswire.ANY)  # another type, as AAAA: there is none
        records = [(dnswire.A, dnswire.address(address))] if wanted else []
        return dnswire.reply(question, dnswire.NO_ERROR, records)

    # --- handing on --------------------------------------------------------------------------

    def _upstream(self) -> list[str]:
        # Read anew each time: a notebook's host moves from one network to another.
        return list(self._servers) or names.host_servers()[:3]

    def _ask(
        self, question: Question, message: bytes, reply: Reply, servers: list[str], *, stream: bool
    ) -> None:
        """Ask the first server that a socket can be had to; with none left, say that it failed."""
        while servers:
            server = servers.pop(0)
            number = int.from_bytes(os.urandom(2), "big")
            until = time.monotonic() + _PATIENCE_S
            try:
                sock = _connected(server, stream=stream)
            except OSError:
                continue
            pending = _Pending(question, message, reply, stream, servers, sock, number, until)
            data = dnswire.with_number(message, number)
            if stream:
                pending.unsent = struct.pack("!H", len(data)) + data
            else:
                try:
                    sock.send(data)
                except OSError:
                    sock.close()
                    continue
            self._pending[sock.fileno()] = pending
            events = select.EPOLLIN | (select.EPOLLOUT if stream else 0)
            self._epoll.register(sock.fileno(), events)
            self._tick()
            return
        reply(dnswire.reply(question, dnswire.SERVER_FAILURE))

    def _go_on(self, pending: _Pending) -> None:
        """Take what a name server sent, or send it what it couldn't take yet."""
        try:
            if pending.unsent:
                sent = pending.sock.send(pending.unsent)
                pending.unsent = pending.unsent[sent:]
                if not pending.unsent:
                    self._epoll.modify(pending.sock.fileno(), select.EPOLLIN)
                return
            data = pending.sock.recv(65535)
        except BlockingIOError:
            return
        except OSError:  # as when nobody listens there
            self._next_server(pending)
            return
        if pending.stream:
            if not data:
                self._next_server(pending)
                return
            pending.received += data
            if (whole := _take_frame(pending.received)) is None:
                return
            data = whole
        if not dnswire.is_reply_to(data, pending.number, pending.question):
            return  # somebody's guess, or a late one: go on waiting
        self._drop(pending)
        pending.reply(dnswire.with_number(data, pending.question.id))

    def _next_server(self, pending: _Pending) -> None:
        self._drop(pending)
        self._ask(
            pending.question,
            pending.message,
            pending.reply,
            pending.servers,
            stream=pending.stream,
        )

    def _drop(self, pending: _Pending) -> None:
        self._pending.pop(pending.sock.fileno(), None)
        self._forget(pending.sock)

    # --- connections -------------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            sock = self._tcp.accept()[0]
            if len(self._clients) >= _MOST_CLIENTS:
                sock.close()
                return
            sock.setblocking(False)  # noqa: FBT003 - socket's own signature
            self._clients[sock.fileno()] = _Client(sock, time.monotonic() + _IDLE_S)
            self._epoll.register(sock.fileno(), select.EPOLLIN)
            self._tick()

    def _read_client(self, client: _Client) -> None:
        try:
            data = client.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up(client)
            return
        client.until = time.monotonic() + _IDLE_S
        client.received += data
        while (message := _take_frame(client.received)) is not None:
            self._answer(message, partial(self._send_on, client), stream=True)

    def _send_on(self, client: _Client, data: bytes) -> None:
        """Send it, or hang up on a client that doesn't read: an answer fits into a socket."""
        if client.sock.fileno() < 0:
            return
        frame = struct.pack("!H", len(data)) + data
        try:
            whole = client.sock.send(frame) == len(frame)
        except OSError:
            whole = False
        if not whole:
            self._hang_up(client)

    def _hang_up(self, client: _Client) -> None:
        if self._clients.pop(client.sock.fileno(), None) is not None:
            self._forget(client.sock)

    def _forget(self, sock: socket.socket) -> None:
        # By name: a closed one stays as long as a process forked meanwhile (exec) has its copy.
        with contextlib.suppress(OSError):
            self._epoll.unregister(sock.fileno())
        sock.close()

    # --- time --------------------------------------------------------------------------------

    def _tick(self) -> None:
        if not self._ticking:
            timerfd_settime(self._timer, _TICK_NS)
            self._ticking = True

    def _expire(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._timer, 8)
        now = time.monotonic()
        for pending in [p for p in self._pending.values() if p.until <= now]:
            self._next_server(pending)
        for client in [c for c in self._clients.values() if c.until <= now]:
            self._hang_up(client)
        if not self._pending and not self._clients:
            timerfd_settime(self._timer, 0)
            self._ticking = False


def _connected(server: str, *, stream: bool) -> socket.socket:
    """Make a socket to a name server that waits for nothing; its port is Linux's random choice."""
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    host, _, port = server.partition("#")  # dnsmasq's form of another port
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    found = socket.getaddrinfo(host, port or str(PORT), type=kind, flags=flags)
    family, _, _, _, address = found[0]
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.connect(address)
    except OSError as error:
        if error.errno != errno.EINPROGRESS:
            sock.close()
            raise
    return sock


def _take_frame(received: bytearray) -> bytes | None:
    """Take one message off what came over a connection: two bytes of length, then itself."""
    if len(received) < 2:
        return None
    size = int.from_bytes(received[:2], "big")
    if len(received) < 2 + size:
        return None
    message = bytes(received[2 : 2 + size])
    del received[: 2 + size]
    return message
