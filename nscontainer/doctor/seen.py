"""What one trial saw, before it is known how to mend it on this kind of host."""

from __future__ import annotations

from dataclasses import dataclass

from nscontainer.doctor.finding import Status


@dataclass(frozen=True, slots=True)
class Seen:
    """A finding whose ``cause`` is still a key of :data:`nscontainer.doctor.mend.MENDS`."""

    name: str
    status: Status
    detail: str
    why: str = ""
    cause: str = ""
    needed: bool = False
    mend: str = ""
    """What mends it where nothing confines this process: known better by what refused it."""
