"""Digests: ``sha256:`` and 64 hexadecimal digits, the name of everything in the store."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from nscontainer.errors import ImageError

_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_ANY: Final = re.compile(r"[a-z0-9]+([+._-][a-z0-9]+)*:[A-Za-z0-9=_-]{32,}", re.ASCII)
KEY_DIGITS: Final = 24
SHORT_DIGITS: Final = 12


def is_digest(text: object) -> bool:
    """Tell whether a text is a digest as the store has them."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def check(text: object) -> str:
    """Give a digest back if it is one.

    Raises
    ------
    ImageError
        It is none, or not of sha256, the one algorithm that every registry has.
    """
    if isinstance(text, str):
        if _SHA256.fullmatch(text):
            return text
        if _ANY.fullmatch(text) and not text.startswith("sha256:"):
            message = f"the digest {text[:40]!r} is not of sha256"
            raise ImageError(message, hint="only sha256 is done; ask for the image by its name")
    message = f"{text!r:.90} is no digest"
    raise ImageError(message, hint="one is sha256: and 64 hexadecimal digits in lower case")


def of(data: bytes) -> str:
    """Compute the digest of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def hexadecimal(digest: str) -> str:
    """Give a digest's 64 hexadecimal digits, its file name in the store."""
    return check(digest)[7:]


def key(diff_id: str) -> str:
    """Give the name of a layer's directory: the first 24 digits of its diffID."""
    return hexadecimal(diff_id)[:KEY_DIGITS]


def short(digest: str) -> str:
    """Give the 12 digits that a person is shown."""
    return digest.partition(":")[2][:SHORT_DIGITS]


class Hashing:
    """A digest in the making: what went by, and how many bytes."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self.size = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take more bytes in."""
        self._sum.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        """The digest of all that went by so far."""
        return f"sha256:{self._sum.hexdigest()}"
