"""What a build is asked for, beside the Dockerfile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nscontainer.errors import SpecError
from nscontainer.image import names
from nscontainer.image.records import BASE_LABEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to build."""

    tags: tuple[str, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    use_cache: bool = True
    pull: bool = False
    network: str = "host"
    """Of RUN: ``host``, or ``none``."""

    def check(self) -> None:
        """Check what can be.

        Raises
        ------
        SpecError
            A name can't be an image's or a label's, a network isn't known.
        """
        for name in self.tags:
            if names.parse(name).digest is not None or name == names.HOST:
                raise SpecError(f"{name!r} can't be given to an image", hint="as mylab:1")
        if BASE_LABEL in self.labels:
            raise SpecError(f"label {BASE_LABEL} is nscontainer's own", hint="choose another name")
        if self.network not in ("none", "host"):
            raise SpecError(f"network {self.network!r} is not known", hint="none or host")
