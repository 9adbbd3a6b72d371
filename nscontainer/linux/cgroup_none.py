"""The cgroup of a container where there is none to be had: nothing is limited by it, nothing accounted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nscontainer.errors import HostError
from nscontainer.limits import Limits
from nscontainer.linux import blockdev
from nscontainer.schema import COLUMNS, NA

_ASKED: Final = {
    "cpu_quota_us": "cpu quota",
    "cpu_period_us": "cpu period",
    "cpu_burst_us": "cpu-burst",
    "cpu_shares": "cpu-shares",
    "cpuset_cpus": "cpuset-cpus",
    "cpuset_mems": "cpuset-mems",
    "memory_bytes": "memory",
    "memory_swap_bytes": "memory-swap",
    "pids": "pids-limit",
    "blkio_weight": "blkio-weight",
}
"""What only a cgroup holds, as it is called in an error."""
_READ_BACK: Final = (*(set(_ASKED) - {"cpuset_mems", "blkio_weight"}), "cpu_weight")


class NoReader:
    """Reads nothing: every figure is NA."""

    def read(self, *, whole: bool = True) -> list[int]:  # noqa: ARG002 - as Reader has it
        """Give a row of NA."""
        return [NA] * len(COLUMNS)

    def fileno_populated(self) -> int | None:
        """Give none."""
        return None

    def close(self) -> None:
        """Do nothing."""


class NoCgroup:
    """What stands for a cgroup; see :class:`nscontainer.linux.cgroup.Cgroup`.

    Parameters
    ----------
    cause, hint
        Why there is none, and how to mend it: told to who asks for a limit.
    """

    version = "none"

    def __init__(self, cause: str, hint: str | None) -> None:
        self.paths: dict[str, str] = {}
        self.cause = cause
        self.hint = hint

    def fd(self) -> int | None:
        """Give none."""
        return None

    def entry_fds(self) -> list[int]:
        """Give none."""
        return []

    def add(self, pid: int) -> None:
        """Do nothing."""

    # --- limits ---------------------------------------------------------------------------------

    def refusal(self, limits: Limits) -> HostError | None:
        """Say which of the limits can't be held, and why; None where none is asked for."""
        asked = [
            f"{what} {value}"
            for name, what in _ASKED.items()
            if (value := getattr(limits, name)) is not None
        ]
        if limits.cpu_quota_us is not None and limits.cpus is not None:
            asked[0] = f"cpu {limits.cpus * 100:g}%"
        if limits.holds_disks and limits.blkio_weight is None:
            asked.append("a disk's limit")
        return self._no(", ".join(asked)) if asked else None

    def _no(self, what: str) -> HostError:
        return HostError(f"{what} can't be set: {self.cause}", hint=self.hint, row="cgroup")

    def place(self, limits: Limits) -> None:
        """Refuse limits, those of :meth:`arm` too: it is called first, before anything runs."""
        if (refusal := self.refusal(limits)) is not None:
            raise refusal

    def arm(self, limits: Limits) -> None:
        """Refuse limits."""
        self.place(limits)

    def hold_disks(self, rules: Mapping[str, blockdev.Rule]) -> None:
        """Refuse limits of disks."""
        if rules:
            raise self._no("a disk's limit")

    def weigh_disks(self, weight: int, disks: tuple[str, ...]) -> None:  # noqa: ARG002
        """Refuse a share."""
        raise self._no(f"blkio-weight {weight}")

    def disarm_cpu(self) -> None:
        """Do nothing."""

    def read_back(self, *, disks: bool = True) -> dict[str, Any]:  # noqa: ARG002 - as Cgroup has it
        """Say that nothing is known of any limit."""
        return dict.fromkeys(_READ_BACK)

    def parents_quota(self) -> float | None:
        """Give none."""
        return None

    # --- figures and processes ------------------------------------------------------------------

    def reset_peak(self) -> None:
        """Do nothing."""

    def reader(self, own_device: str | None = None) -> NoReader:  # noqa: ARG002 - v1's need
        """Give a reader of nothing."""
        return NoReader()

    def pids(self) -> list[int]:
        """List none: only its pid namespace knows them."""
        return []

    def populated(self) -> bool:
        """Tell that nothing is known to be in it."""
        return False

    def kill(self) -> None:
        """Do nothing: with a container's first process Linux kills its pid namespace."""

    def freeze(self) -> None:
        """Refuse.

        Raises
        ------
        HostError
            Only a cgroup can stop processes without their knowing.
        """
        message = f"the container can't be paused: {self.cause}"
        raise HostError(message, hint=self.hint)

    def thaw(self) -> None:
        """Do nothing."""

    def remove(self, timeout_s: float = 2.0, *, parents: bool = True) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
