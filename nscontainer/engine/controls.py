"""What a container's limits hold by: its cgroup, its disks, and a read-write layer of its own size."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass, field, replace
from typing import Any, Final

from nscontainer import errors, ladder
from nscontainer.engine import diskrate, diskserver, storage
from nscontainer.engine.besteffort import BestEffort
from nscontainer.engine.request import Request
from nscontainer.ladder import asked
from nscontainer.limits import DISK_LIMITS
from nscontainer.linux import cgroup, userns
from nscontainer.linux.accounts import Accounts
from nscontainer.linux.cgroup import Reader
from nscontainer.linux.cgroup1 import Cgroup1
from nscontainer.linux.cgroup_none import NoCgroup
from nscontainer.spec import Limits

PRIMING: Final = Limits(cpu_quota_us=1_000_000, cpu_period_us=1_000)


@dataclass(slots=True)
class Controls:
    """Made in the monitor, step by step; what is asked of the disks is found out before all else.

    Raises
    ------
    SpecError, HostError
        A disk isn't there, or can't be limited.
    """

    request: Request
    directory: str
    cgroup: cgroup.Cgroup = field(init=False)
    disks: diskrate.Plan = field(init=False, default_factory=diskrate.Plan)
    """The limits of disks, found out."""
    storage: storage.Storage | None = field(init=False, default=None)
    """The read-write layer's own filesystem, where it has one."""
    disk_server: diskserver.DiskServer | None = field(init=False, default=None)
    """Who does its I/O in its name, on cgroup v1."""
    accounts: Accounts | None = field(init=False, default=None)
    """What stands for a cgroup's account where there is none."""
    ladder: BestEffort = field(init=False)
    """What it goes on without."""

    def __post_init__(self) -> None:
        limits = self.request.spec.limits
        self.ladder = BestEffort(self.request.spec.best_effort)
        if limits.holds_disks:
            with self.ladder.without(*asked(limits, DISK_LIMITS)):
                self.disks = diskrate.plan(limits, self.places())
            self.request.images.notes += self.disks.notes

    @property
    def limits(self) -> Limits:
        """The limits that were asked for, less those that it goes on without."""
        return self.ladder.held(self.request.spec.limits)

    def adopt(self, request: Request) -> None:
        """Serve a request that came after it was made."""
        self.request = request
        self.ladder.allowed = request.spec.best_effort

    def places(self) -> list[str]:
        """List where the container's storage is on the host."""
        image = self.request.image
        on_host = image is None or image["on_host"]
        views = [lower.view.path for lower in self.request.lowers] if on_host else []
        binds = [
            m.source for m in self.request.spec.mounts if m.type == "bind" and m.source is not None
        ]
        return [self.request.top, *views, *binds]

    # --- making ------------------------------------------------------------------------------

    def make_cgroup(self, cleanup: contextlib.ExitStack) -> dict[str, Any]:
        """Make the cgroup, for others to put the container into; give the facts for the state file."""
        request = self.request
        want = cgroup.default_want(request.layout)
        self.cgroup = cgroup.create(request.layout, request.id, want=want)
        cleanup.callback(self.cgroup.close)
        self._check_without_cgroup()
        return {"version": self.cgroup.version, "paths": dict(self.cgroup.paths)}

    def _check_without_cgroup(self) -> None:
        """Refuse at once what nothing could hold, or end, where there is no cgroup."""
        made = self.cgroup
        if not isinstance(made, NoCgroup):
            return
        limits = self.request.spec.limits
        for group in (*ladder.GROUPS, DISK_LIMITS) if self.ladder.allowed else (Limits.__slots__,):
            refusal = made.refusal(ladder.only(limits, group))
            with self.ladder.without(*asked(limits, group)):
                if refusal is not None:
                    raise refusal
        self.ladder.unheld["accounting"] = made.cause
        if "pid" in self.request.spec.host_namespaces:
            message = f"its processes could not be ended in the host's pid namespace: {made.cause}"
            raise errors.HostError(message, hint=made.hint)

    def limit(self, limits: Limits) -> None:
        """Set what holds from the set-up on."""
        self.ladder.each(limits, self.cgroup.place)
        if self.ladder.held(limits).cpus is not None:
            self._prime_quota()

    def _prime_quota(self) -> None:
        """Have the quota's period begin when the code is let go, and not anywhere.

        Linux gives each cgroup's period timer a random phase (kernel/sched/fair.c,
        init_cfs_bandwidth), so a first period of any length would get a whole quota: up to 2 % too
        much over 5 s. The timer keeps the phase of its last expiry, so let it run with a period of
        1 ms during the set-up, under a quota that nothing reaches.
        """
        try:
            self.cgroup.arm(PRIMING)
        except (OSError, errors.NsContainerError):  # as where a parent has a quota of its own
            with contextlib.suppress(OSError, errors.NsContainerError):
                self.cgroup.disarm_cpu()

    def make_storage(self, cleanup: contextlib.ExitStack) -> dict[str, Any]:
        """Give the read-write layer a filesystem of its own where it needs one: facts for the state file."""
        with self.ladder.without(*asked(self.limits, ("storage_bytes",))):
            return self._make_storage(cleanup)
        if self.disk_server is not None:
            self.disk_server.release()
            self.disk_server = None
        return {}

    def _make_storage(self, cleanup: contextlib.ExitStack) -> dict[str, Any]:
        limits = self.limits
        size = limits.storage_bytes
        # An ordinary user has no loop device to put its filesystem on.
        served = userns.privileged() and diskserver.can_serve(limits)
        if served and isinstance(self.cgroup, Cgroup1):
            self.disk_server = diskserver.DiskServer(self.cgroup)
        elif size is None:
            return {}
        made = storage.make(
            self.directory,
            size,
            cache=f"{self.request.top}/cache",
            through=self.disk_server.through if self.disk_server is not None else None,
        )
        self.storage = made
        if self.disk_server is not None:
            self.disk_server.device = made.device
        cleanup.callback(made.drop)
        return {"storage": made.to_dict()}

    @property
    def layer_fd(self) -> int | None:
        """The mount of the read-write layer's own filesystem."""
        return None if self.storage is None else self.storage.mount_fd

    # --- its life ----------------------------------------------------------------------------

    def reader(self, pid: int) -> Reader:
        """Open the accounting files; where there is no cgroup, /proc has to do, of the first process's."""
        if isinstance(self.cgroup, NoCgroup):
            self.accounts = Accounts(pid)
            return self.accounts
        own = None if self.storage is None or self.disk_server else self.storage.device
        return self.cgroup.reader(own)

    def let_go(self) -> None:
        """Count from here on: the next reading is of the user's code."""
        if self.accounts is not None:
            self.accounts.executed = True

    def waited_for(self, used: resource.struct_rusage) -> None:
        """Take what the first process and all that it waited for used."""
        if self.accounts is not None:
            self.accounts.ended.add(used)
            self.accounts.over = True

    def hold_disks(self, limits: Limits, change: diskrate.Plan | None = None) -> None:
        """Set the limits of disks; of a change, only what is in it."""
        if self.disk_server is not None:
            if change is None and self.storage is not None:
                self.disk_server.sync(self.storage.fd)  # what the set-up wrote is not the user's
            self.disk_server.bound(self.disks)
        rates, weight = ladder.without(limits, ("blkio_weight",)), limits.blkio_weight
        made = change or self.disks
        with self._leaving(change, *asked(rates, DISK_LIMITS)):
            diskrate.arm(self.cgroup, rates, made)
        if weight is not None:
            with self._leaving(change, "blkio_weight"):
                diskrate.arm(self.cgroup, Limits(blkio_weight=weight), replace(made, rules={}))

    def _leaving(
        self, change: diskrate.Plan | None, *names: str
    ) -> contextlib.AbstractContextManager[None, bool | None]:
        """Go on without what is refused; of a change, which somebody waits for, that is an error."""
        return self.ladder.without(*names) if change is None else contextlib.nullcontext()

    def arm(self, limits: Limits) -> None:
        """Set the limits of the cgroup, as the code is let go."""
        self.ladder.each(limits, self.cgroup.arm)

    def settle(self) -> None:
        """Have its last writes reach the disk and its account, without its limits: it has ended."""
        if self.disk_server is not None and self.storage is not None:
            self.disk_server.settle(self.disks, self.storage.fd)

    def escaped_writes(self) -> str | None:
        """Say which buffered writes its limits don't hold: ``all``, those to ``volumes``, or none."""
        held = any(rule.writes for rule in self.disks.rules.values())
        if self.cgroup.version == "v2" or not held:
            return None
        volumes = any(m.type == "bind" and not m.read_only for m in self.request.spec.mounts)
        return "all" if self.disk_server is None else "volumes" if volumes else None

    def read_back(self) -> dict[str, Any]:
        """Give the limits of all but the network as Linux has them."""
        limits = self.cgroup.read_back(disks=bool(self.disks.paths)) | self.disks.facts()
        if self.storage is not None and self.storage.size_bytes is not None:
            limits["storage_bytes"] = self.storage.measured()["holds_bytes"]
        return limits

    def measured_storage(self) -> dict[str, Any] | None:
        """Say how full the read-write layer's own filesystem is; None where it has none."""
        if self.storage is None:
            return None
        facts = self.storage.measured()
        if self.disk_server is not None and self.disk_server.died():
            facts["errors"] += 1
        return facts

    def remove_cgroup(self, *, parents: bool) -> None:
        """Remove the cgroup, and with ``parents`` those above that are empty then."""
        if self.disk_server is not None:
            self.disk_server.release()
        self.cgroup.remove(parents=parents)
