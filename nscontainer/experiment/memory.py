"""Sweeps kept in this process only: what is interrupted can be gone on with while it lives."""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any, Literal

from nscontainer.errors import NotFoundError
from nscontainer.experiment.plan import Plan, Turn
from nscontainer.experiment.sweep import Run, Sweep
from nscontainer.measure.conditions import Conditions
from nscontainer.measure.result import RunResult


class Memory:
    """A store that ends with this process."""

    def __init__(self) -> None:
        self._sweeps: dict[str, Sweep] = {}
        self._lock = threading.Lock()

    def begin(self, plan: Plan, facts: Mapping[str, Any]) -> str:
        """Begin a sweep; give its id."""
        name = secrets.token_hex(6)
        self._sweeps[name] = Sweep(
            id=name, plan=plan, runs=(), status="running", created_unix=time.time(), facts=facts
        )
        return name

    def unfinished(self, key: str) -> tuple[str, Plan] | None:
        """Claim the newest interrupted sweep of this key."""
        with self._lock:
            for name, sweep in reversed(self._sweeps.items()):
                if sweep.status == "interrupted" and sweep.plan.key == key:
                    self._sweeps[name] = dataclasses.replace(sweep, status="running")
                    return name, sweep.plan
        return None

    def save(
        self,
        id: str,  # noqa: A002 - what it is
        turn: Turn,
        result: RunResult,
        conditions: Conditions,
        host: str,
        cpus: str | None,
    ) -> None:
        """Keep a run."""
        run = Run(turn=turn, conditions=conditions, host=host, cpus=cpus, read=lambda: result)
        sweep = self.load(id)
        before = sweep.warmups if turn.warmup else sweep.runs
        new = [*(r for r in before if r.turn.number != turn.number), run]
        runs = tuple(sorted(new, key=lambda r: r.turn.number))
        self._sweeps[id] = (
            dataclasses.replace(sweep, warmups=runs)
            if turn.warmup
            else dataclasses.replace(sweep, runs=runs)
        )

    def end(self, id: str, status: Literal["complete", "interrupted"]) -> None:  # noqa: A002
        """Say how it ended."""
        self._sweeps[id] = dataclasses.replace(self.load(id), status=status)

    def load(self, id: str) -> Sweep:  # noqa: A002
        """Give the sweep so far.

        Raises
        ------
        NotFoundError
            There is none of that id.
        """
        try:
            return self._sweeps[id]
        except KeyError:
            raise NotFoundError(
                f"no sweep {id!r} is kept", hint="it was another process's"
            ) from None
