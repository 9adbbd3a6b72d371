"""DNS messages, as much of RFC 1035 as a resolver needs that knows names and hands on the rest."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

A: Final = 1
PTR: Final = 12
ANY: Final = 255
IN: Final = 1
NO_ERROR: Final = 0
SERVER_FAILURE: Final = 2
NO_SUCH_NAME: Final = 3
_HEADER: Final = struct.Struct("!HHHHHH")
_LONGEST_NAME: Final = 255
_LONGEST_LABEL: Final = 63
_RESPONSE: Final = 0x8000
_OPCODE: Final = 0x7800
_RECURSION_DESIRED: Final = 0x0100
_RECURSION_AVAILABLE: Final = 0x0080


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the name in lower case without the last dot, type, class."""

    id: int
    flags: int
    name: str
    type: int
    klass: int
    raw: bytes
    """The question as it came, from after the header on."""


def parse_question(message: bytes) -> Question | None:
    """Read a query with one question; None for anything else, however it is malformed."""
    if len(message) < _HEADER.size:
        return None
    number, flags, questions, _, _, _ = _HEADER.unpack_from(message)
    if flags & (_RESPONSE | _OPCODE) or questions != 1:
        return None
    at, labels, length = _HEADER.size, [], 0
    while True:
        if at >= len(message):
            return None
        size = message[at]
        at += 1
        if size == 0:
            break
        length += size + 1
        # A pointer (0xC0) has nothing to point to in a question.
        if size > _LONGEST_LABEL or length >= _LONGEST_NAME or at + size > len(message):
            return None
        labels.append(message[at : at + size])
        at += size
    if at + 4 > len(message):
        return None
    kind, klass = struct.unpack_from("!HH", message, at)
    # latin-1 keeps every byte one character: a dot within a label makes a name nobody has.
    name = ".".join(label.decode("latin-1").replace(".", "\0") for label in labels).lower()
    return Question(number, flags, name, kind, klass, message[_HEADER.size : at + 4])


def reply(question: Question, code: int, answers: list[tuple[int, bytes]] | None = None) -> bytes:
    """Make the answer: a code, and records of the question's name as (type, data).

    Their time to live is 0: a container's name may be another's the next moment.
    """
    answers = answers or []
    flags = _RESPONSE | _RECURSION_AVAILABLE | (question.flags & _RECURSION_DESIRED) | code
    head = _HEADER.pack(question.id, flags, 1, len(answers), 0, 0)
    records = b"".join(
        struct.pack("!HHHIH", 0xC000 | _HEADER.size, kind, IN, 0, len(data)) + data
        for kind, data in answers
    )
    return head + question.raw + records


def address(text: str) -> bytes:
    """Write an IPv4 address as the data of an A record."""
    return socket.inet_aton(text)


def name(text: str) -> bytes:
    """Write a name as the data of a PTR record."""
    labels = [label.encode("latin-1", "replace")[:_LONGEST_LABEL] for label in text.split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels if label) + b"\0"


def reversed_address(text: str) -> str | None:
    """Give the address that ``4.3.2.1.in-addr.arpa`` asks about, or None."""
    parts = text.removesuffix(".in-addr.arpa").split(".")
    if not text.endswith(".in-addr.arpa") or len(parts) != 4:
        return None
    if not all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts):
        return None
    return ".".join(str(int(part)) for part in reversed(parts))


def is_reply_to(message: bytes, number: int, question: Question) -> bool:
    """Tell whether a message answers this question, asked under this number."""
    if len(message) < _HEADER.size:
        return False
    theirs, flags, _, _, _, _ = _HEADER.unpack_from(message)
    if theirs != number or not flags & _RESPONSE:
        return False
    raw = message[_HEADER.size : _HEADER.size + len(question.raw)]
    return raw.lower() == question.raw.lower()


def with_number(message: bytes, number: int) -> bytes:
    """Give a message another number."""
    return struct.pack("!H", number) + message[2:]
