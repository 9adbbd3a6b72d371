"""What a build tells while it goes on: front ends show it, each in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction, about to be carried out."""

    number: int
    total: int
    text: str
    stage: str = ""
    """The stage that it is in, where there are several."""

    @property
    def place(self) -> str:
        """``[2/5]``, ``[builder 2/5]``."""
        stage = f"{self.stage} " if self.stage else ""
        return f"[{stage}{self.number}/{self.total}]"

    @property
    def heading(self) -> str:
        """``[2/5] RUN apt-get update``; only the first line of a longer text."""
        first, more, _ = self.text.strip().partition("\n")
        return f"{self.place} {first}{' …' if more else ''}"


@dataclass(frozen=True, slots=True)
class Output:
    """What a RUN says."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """A step is through."""

    step: Step
    wall_s: float
    cached: bool
    layer_bytes: int | None = None
    """The size of its layer's blob; None where it made none."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know: a build argument that no ARG takes, an image being pulled."""

    text: str


Event = Step | Output | Done | Note
