"""How isolated a run really was, as its engine found it, not as it was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nscontainer.measure.text import text_of


@dataclass(frozen=True, repr=False)
class Isolation:
    """What stood between the container and its host.

    Attributes
    ----------
    namespaces
        Name → ``private``, ``host`` (shared, as asked) or ``unavailable`` (this host has none).
    user_map
        (id inside, id outside, how many), or None without a user namespace.
    rootfs
        How the root filesystem was made.
    capabilities
        Those that the container's root held.
    confined
        False of a run with ``--unconfined``: there was no container.
    """

    namespaces: Mapping[str, str]
    user_map: tuple[int, ...] | None
    rootfs: str | None
    capabilities: tuple[str, ...] | None
    seccomp: str | None
    no_new_privs: bool | None
    network: str | None
    notes: tuple[str, ...]
    confined: bool = True

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any] | None) -> Isolation:
        """Read an exit record's ``isolation``; what it doesn't say is None, not guessed."""
        values = plain or {}
        user_map, capabilities = values.get("user_map"), values.get("capabilities")
        return cls(
            namespaces={str(k): str(v) for k, v in (values.get("namespaces") or {}).items()},
            user_map=None if user_map is None else tuple(user_map),
            rootfs=values.get("rootfs"),
            capabilities=None if capabilities is None else tuple(map(str, capabilities)),
            seccomp=values.get("seccomp"),
            no_new_privs=values.get("no_new_privs"),
            network=values.get("network"),
            notes=tuple(map(str, values.get("notes") or ())),
            confined=not values.get("unconfined"),
        )

    @property
    def word(self) -> str:
        """``isolated``, ``not isolated``, or ``isolated, but for: net, pid`` where namespaces could not be had."""
        if not self.confined:
            return "not isolated"
        missing = self.missing
        return f"isolated, but for: {', '.join(missing)}" if missing else "isolated"

    @property
    def missing(self) -> list[str]:
        """Name the namespaces that this host could not make."""
        return sorted(name for name, how in self.namespaces.items() if how == "unavailable")

    def rows(self) -> list[tuple[str, str]]:
        """Give it as (what, how) pairs for a table, fit to be shown."""
        if not self.confined:
            privileges = {True: "yes", False: "no", None: "unknown"}[self.no_new_privs]
            rows = [
                ("isolation", "none: a plain process (--unconfined)"),
                ("root filesystem", self.rootfs or "unknown"),
                ("network", self.network or "unknown"),
                ("no_new_privs", privileges),
                *(("note", note) for note in self.notes),
            ]
            return [(text_of(what), text_of(how, 400)) for what, how in rows]
        groups = (("private", "private"), ("host", "shared"), ("unavailable", "unavailable"))
        rows = []
        for state, title in groups:
            names = [name for name, value in self.namespaces.items() if value == state]
            if names:
                rows.append((f"namespaces {title}", ", ".join(names)))
        joined = [value for value in self.namespaces.values() if value.startswith("container:")]
        rows += [("network namespace", f"that of {one}") for one in joined]
        if self.user_map is not None:
            rows.append(
                (
                    "user map",
                    "inside {} is outside {}, {} ids".format(*self.user_map)
                    if len(self.user_map) == 3
                    else str(self.user_map),
                )
            )
        held = self.capabilities
        capabilities = "unknown" if held is None else ", ".join(held) or "none"
        rows += [
            ("root filesystem", self.rootfs or "unknown"),
            ("network", self.network or "unknown"),
            ("capabilities", capabilities),
            ("seccomp", self.seccomp or "unknown"),
            ("no_new_privs", {True: "yes", False: "no", None: "unknown"}[self.no_new_privs]),
        ]
        rows += [("note", note) for note in self.notes]
        return [(text_of(what), text_of(how, 400)) for what, how in rows]

    def __repr__(self) -> str:
        rows = self.rows()
        wide = max(len(what) for what, _ in rows)
        return "\n".join(f"{what:<{wide}}  {how}" for what, how in rows)
