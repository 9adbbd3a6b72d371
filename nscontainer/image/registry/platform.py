"""Operating system, architecture and variant: this host's, and which of an index's images fits.

Names are Go's (GOOS, GOARCH), as in the OCI image index; the order of preference among variants is
containerd's (platforms/compare.go).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nscontainer.errors import SpecError

_ARCHITECTURES: Final = {  # uname -m, and what people write, to GOARCH and variant
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "amd64": ("amd64", ""),
    "aarch64": ("arm64", ""), "arm64": ("arm64", ""),
    "armv8l": ("arm", "v7"), "armv7l": ("arm", "v7"), "armhf": ("arm", "v7"), "arm": ("arm", "v7"),
    "armv6l": ("arm", "v6"), "armel": ("arm", "v6"), "armv5tel": ("arm", "v5"),
    "i386": ("386", ""), "i486": ("386", ""), "i586": ("386", ""), "i686": ("386", ""),
    "386": ("386", ""),
    "ppc64le": ("ppc64le", ""), "s390x": ("s390x", ""), "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""), "loong64": ("loong64", ""), "mips64le": ("mips64le", ""),
}  # fmt: skip
_PART: Final = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image was made for; an empty variant is the usual one of that architecture."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        parts = (self.os, self.architecture, self.variant)
        return "/".join(part for part in parts if part)


def parse(text: str) -> Platform:
    """Read ``os/arch[/variant]`` or an architecture alone.

    Raises
    ------
    SpecError
        It is none.
    """
    parts = text.strip().split("/")
    if len(parts) == 1:
        parts = ["linux", *parts]
    if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise SpecError(f"not a platform: {text!r}", hint="as linux/arm64 or linux/arm/v7")
    system, architecture = parts[0].lower(), parts[1].lower()
    if system != "linux":
        raise SpecError(f"platform {text!r}: only linux images can be run here")
    if architecture not in _ARCHITECTURES:
        raise SpecError(
            f"platform {text!r}: no such architecture: {architecture}",
            hint="one of " + ", ".join(sorted({name for name, _ in _ARCHITECTURES.values()})),
        )
    return of(system, architecture, parts[2] if len(parts) == 3 else "")


def of(system: str, architecture: str, variant: str = "") -> Platform:
    """Give a platform in its usual form: ``aarch64`` is ``arm64``, and its ``v8`` goes without saying."""
    usual, implied = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), ""))
    variant = variant.lower() or implied
    if variant.isdigit():
        variant = f"v{variant}"
    if (usual, variant) in {("arm64", "v8"), ("amd64", "v1")}:
        variant = ""
    return Platform(system.lower(), usual, variant)


def host() -> Platform:
    """Give this machine's."""
    return of("linux", os.uname().machine)


def described(platform: Mapping[str, Any] | None) -> Platform | None:
    """Read the ``platform`` of an index's entry, or an image's configuration; None where it has none."""
    if not isinstance(platform, Mapping):
        return None
    parts = [platform.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts) or not parts[1] or parts[1] == "unknown":
        return None  # "unknown/unknown" is what BuildKit writes for attestations
    return of(parts[0] or "linux", parts[1], parts[2])


def fitness(wanted: Platform, there: Platform) -> int | None:
    """Say how well that platform's image runs on the wanted one: 0 is best, None not at all."""
    if (wanted.os, wanted.architecture) != (there.os, there.architecture):
        return None
    if wanted.variant == there.variant:
        return 0
    if wanted.architecture == "arm":
        return _older(wanted.variant, there.variant)
    if not there.variant:  # the least of the architecture's variants
        return 1
    return None


def _older(wanted: str, there: str) -> int | None:
    """Rank for arm: a v7 runs what is for v6 and v5 too."""
    if not (wanted[1:].isdigit() and there[1:].isdigit()):
        return None
    behind = int(wanted[1:]) - int(there[1:])
    return behind if behind > 0 else None
