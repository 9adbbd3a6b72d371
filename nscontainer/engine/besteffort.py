"""What a container goes on without on this host, where ``--best-effort`` lets it (docs/adr/0035)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nscontainer import ladder
from nscontainer.errors import HostError
from nscontainer.limits import Limits


@dataclass(slots=True)
class BestEffort:
    """Keeps what could not be had, and why.

    Attributes
    ----------
    allowed
        Whether anything may be left out: without ``--best-effort`` every refusal is an error.
    unheld
        The causes, by the limits' fields and the names of :data:`nscontainer.ladder.EXTRAS`.
    """

    allowed: bool
    unheld: dict[str, str] = field(default_factory=dict)

    def without(self, *names: str) -> Attempt:
        """Give a context to try something in; what the host refuses of it is left out, if it may be.

        Then these names are not held; where there are none, nothing of it was asked for, and the
        refusal is an error all the same.
        """
        return Attempt(self, names)

    def each(
        self,
        limits: Limits,
        hold: Callable[[Limits], None],
        groups: Iterable[tuple[str, ...]] = ladder.GROUPS,
    ) -> None:
        """Have limits held: all at once where nothing may be left out, else each by itself."""
        if not self.allowed:
            hold(limits)
            return
        limits = self.held(limits)
        for group in groups:
            if asked := ladder.asked(limits, group):
                with self.without(*asked):
                    hold(ladder.only(limits, group))

    def held(self, limits: Limits) -> Limits:
        """Give limits without those that are not held."""
        return ladder.without(limits, self.unheld)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What may be left out: the context of :meth:`BestEffort.without`."""

    ladder: BestEffort
    names: tuple[str, ...]

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> bool:
        """Take a refusal for an answer."""
        if not isinstance(error, (HostError, OSError)) or not (self.ladder.allowed and self.names):
            return False
        why = error.message if isinstance(error, HostError) else error.strerror or str(error)
        for name in self.names:
            self.ladder.unheld.setdefault(name, why)
        return True
