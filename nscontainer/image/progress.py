"""How far a pull, load, unpack or push has come: one event for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["download", "unpack", "upload", "done"]


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a transfer.

    Parameters
    ----------
    kind
        What is being done; "done" ends a layer, or with ``layer=""`` the whole.
    layer
        The layer's digest, its first 12 hexadecimal digits; "" for the image as a whole.
    done_bytes, total_bytes
        How much of it, in bytes; None where the total is not known.
    note
        One word more, as "already here".
    """

    kind: Kind
    layer: str
    done_bytes: int
    total_bytes: int | None
    note: str = ""


Progress = Callable[[Event], None]
"""May be called from any thread, and often: whoever shows it thins it out."""
