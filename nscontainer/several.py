"""Several containers on one clock: started at one instant, or measured side by side.

Every result says when its code was let go by CLOCK_MONOTONIC, which its own monitor reads at the
baseline. So results of one boot of one machine can be laid over each other, however they came about.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from nscontainer import api, spec
from nscontainer.errors import CommandError, NsContainerError, SpecError, TransferError
from nscontainer.measure.records import NS_PER_S

if TYPE_CHECKING:
    from pandas import DataFrame

    from nscontainer.engine.container import Container
    from nscontainer.engine.pump import Interrupts
    from nscontainer.measure.result import RunResult
    from nscontainer.values.transfer import Transfer

_AHEAD_NS: Final = 5_000_000
_AHEAD_EACH_NS: Final = 2_000_000
"""How long before the common instant the monitors are told of it: arming the limits takes them 1 ms."""
_QUEUED_BYTES: Final = 65_536
"""What surely fits into a socket that nobody reads yet (unix(7): 208 KiB by default)."""
STOP_S: Final = 10.0
"""How long a container that is stopped has to end by itself, as ``docker stop``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A container that is to run with others: made by :func:`command` or :func:`cell`, not yet begun."""

    spec: spec.ContainerSpec
    name: str | None
    input: bytes | None = None
    code: str | None = None
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    trust: bool = False


def command(
    command: Iterable[str],
    *,
    name: str | None = None,
    input: bytes | None = None,  # noqa: A002 - as run's
    **options: Any,
) -> Part:
    """Say what a container of :func:`together` is to run: as :func:`nscontainer.run` takes it.

    Raises
    ------
    SpecError
        An option has a value that can't be used.
    """
    return Part(spec=spec.build(command, **options), name=_checked(name), input=input)


def cell(
    code: str,
    *,
    name: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    out: Mapping[str, str] | None = None,
    trust: bool = False,
    **options: Any,
) -> Part:
    """Say what Python code a container of :func:`together` is to run: as :func:`nscontainer.run_cell`.

    Raises
    ------
    SpecError
        An option has a value that can't be used.
    """
    what = spec.build(None, **api.as_here(options))
    return Part(
        spec=what, name=_checked(name), code=code, inputs=inputs or {}, out=out or {}, trust=trust
    )


def _checked(name: str | None) -> str | None:
    return None if name is None else spec.check_id(name)


# --- the results -----------------------------------------------------------------------------


class Together(Mapping[str, "RunResult"]):
    """Results on one clock, by name: what :func:`together` gives, or any that ran on one machine.

    Parameters
    ----------
    results
        Each under its container's name.
    named
        Each under the name given here: ``Together(server=r, client=q)``.

    Attributes
    ----------
    stopped
        The names of those that were stopped, as they were no longer needed.

    Raises
    ------
    SpecError
        There is none, two have one name, or they share no clock: they ran on other machines, or with a
        reboot between them.

    Examples
    --------
    >>> both = nscontainer.Together(server=server, client=client)  # doctest: +SKIP
    >>> both.plot("net")  # doctest: +SKIP
    >>> both.usage.groupby("container")["net.tx_bytes"].max()  # doctest: +SKIP
    """

    def __init__(self, *results: RunResult, **named: RunResult) -> None:
        given = [(run.name or run.id, run) for run in results] + list(named.items())
        # What a cell in the background has in its variable stands for its result once it is over.
        self._runs = {name: getattr(run, "result", None) or run for name, run in given}
        if len(self._runs) < len(given):
            twice = next(n for n, _ in given if [m for m, _ in given].count(n) > 1)
            message = f"two results have the name {twice!r}"
            raise SpecError(message, hint="name them: Together(server=r, client=q)")
        if not self._runs:
            raise SpecError(
                "there is no result to put together", hint="Together(server=r, client=q)"
            )
        _check_clock(self._runs)
        self.stopped: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> RunResult:
        return self._runs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def started_ns(self) -> int:
        """When the first was let go, by CLOCK_MONOTONIC: where the common ``elapsed_s`` is 0."""
        return min(run.started_ns or 0 for run in self.values())

    @property
    def offsets_s(self) -> dict[str, float]:
        """How long after the first each was let go, in s, by name."""
        first = self.started_ns
        return {
            name: ((run.started_ns or 0) - first) / NS_PER_S for name, run in self._runs.items()
        }

    @property
    def spread_s(self) -> float:
        """From the first release to the last, in s."""
        return max(self.offsets_s.values())

    @property
    def wall_s(self) -> float:
        """From the first release to the last end, in s."""
        offsets = self.offsets_s
        return max(offsets[name] + run.wall_s for name, run in self._runs.items())

    @property
    def ok(self) -> bool:
        """Whether each ended by itself with exit code 0, or was stopped as no longer needed."""
        return all(run.ok or name in self.stopped for name, run in self._runs.items())

    @functools.cached_property
    def usage(self) -> DataFrame:
        """The samples of all in one DataFrame, with the column ``container`` first.

        The index is ``elapsed_s``, seconds since the *first* was let go. Otherwise it is as each
        result's ``usage``; rows of one container stand together, in order.
        """
        from nscontainer import frames

        offsets = self.offsets_s
        return frames.together({n: (offsets[n], run.usage) for n, run in self._runs.items()})

    def plot(self, kind: str = "cpu", ax: Any = None) -> Any:
        """Draw all in one picture: each its colour, each limit dashed in the same colour.

        Parameters
        ----------
        kind
            ``cpu``, ``memory``, ``io`` or ``net``.
        ax
            Axes to draw on; None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from nscontainer import several_plot

        return several_plot.plot(self._runs, self.offsets_s, kind, ax)

    def __repr__(self) -> str:
        """Say each in a line, and how exactly they began together."""
        from nscontainer import units
        from nscontainer.measure import headline

        wide = max(map(len, self._runs))
        lines = [
            f"{name:<{wide}}  +{units.format_seconds(self.offsets_s[name])} · "
            + " · ".join(headline.parts(run))
            + (" (stopped: no longer needed)" if name in self.stopped else "")
            for name, run in self._runs.items()
        ]
        return "\n".join(lines)


def _check_clock(runs: Mapping[str, RunResult]) -> None:
    boots = {}
    for name, run in runs.items():
        boot = run.record["boot_id"]
        if run.started_ns is None or boot is None:
            message = f"the result {name!r} doesn't say when it began by the machine's clock"
            raise SpecError(message, hint="it comes of an older nscontainer: run it again")
        boots[boot] = name
    if len(boots) > 1:
        first, second, *_ = boots.values()
        message = f"the results {first!r} and {second!r} share no clock: they are of two boots"
        raise SpecError(message, hint="only what ran on one machine, with no reboot between, does")


# --- running them ----------------------------------------------------------------------------


def together(
    *parts: Part,
    until: str | None = None,
    check: bool = False,
    on_interrupt: Literal["raise", "return"] = "raise",
    **named: Part,
) -> Together:
    """Start several containers at one instant, and wait until they have ended.

    All are made and set up first, with their limits on, and wait; then all are let go at the same
    instant of the clock. Where one can't be made, none runs and nothing is left.

    Parameters
    ----------
    parts, named
        What runs: :func:`command` and :func:`cell`. A part given by keyword has that name, its
        container as well (unless it has one of its own): on one network the others find it by it.
    until
        The name of the one that matters: when it has ended, the others are stopped (a server has no
        end of its own). Without, all are waited for.
    check
        Raise where one failed.
    on_interrupt
        After Ctrl-C has ended the containers (the first interrupts each, the second kills them): raise
        KeyboardInterrupt, or return what was measured.

    Raises
    ------
    SpecError, HostError, SetupError
        Before any has run; nothing is left.
    CommandError
        With ``check``, where one failed; ``error.result`` has the :class:`Together`.
    KeyboardInterrupt
        The :class:`Together` is in its ``result`` attribute.

    Examples
    --------
    >>> both = nscontainer.together(
    ...     server=nscontainer.command(["iperf3", "-s"], network="lab"),
    ...     client=nscontainer.command(["iperf3", "-c", "server"], network="lab", net_rate="10mbit"),
    ...     until="client",
    ... )  # doctest: +SKIP
    >>> both.spread_s  # doctest: +SKIP
    0.0013
    """
    planned = _planned(parts, named)
    if until is not None and until not in planned:
        message = f"until={until!r} is none of them"
        raise SpecError(message, hint=f"one of {', '.join(map(repr, planned))}")
    api.engine()
    with contextlib.ExitStack() as stack:
        runs = [_Run(name, part, stack) for name, part in planned.items()]
        with api.explained():
            for run in runs:
                run.make()
        watch = _Watch(runs, until)
        times = watch.run()
        return _judged(runs, watch, times, check=check, on_interrupt=on_interrupt)


def _planned(parts: Iterable[Part], named: Mapping[str, Part]) -> dict[str, Part]:
    """Give each its name: the keyword's, its own, or its number."""
    given = [(getattr(p, "name", None) or str(i), p) for i, p in enumerate(parts, 1)] + list(
        named.items()
    )
    for name, part in given:
        wrong: object = part
        if not isinstance(wrong, Part):
            message = f"{name!r} is no container to be run: {wrong!r}"
            raise SpecError(
                message, hint='as nscontainer.command(["true"]) or nscontainer.cell("1")'
            )
    names = [name for name, _ in given]
    own = [part.name or (name if name in named else None) for name, part in given]
    for found in (names, [name for name in own if name is not None]):
        twice = [name for name in found if found.count(name) > 1]
        if twice:
            message = f"two of the containers have the name {twice[0]!r}"
            raise SpecError(message, hint="give each its own")
    if not given:
        hint = 'as together(a=nscontainer.command(["true"]), b=nscontainer.cell("1"))'
        raise SpecError("there is nothing to be run", hint=hint)
    return {
        name: dataclasses.replace(part, name=own_name)
        for (name, part), own_name in zip(given, own, strict=True)
    }


class _Run:
    """One of them on its way; a thread of its own relays its output."""

    def __init__(self, name: str, part: Part, stack: contextlib.ExitStack) -> None:
        self.name = name
        self.over = False
        self.result: RunResult | None = None
        self.error: BaseException | None = None
        self.transfer: Transfer | None = None
        self.container: Container
        self._part = part
        self._stack = stack
        self._late: dict[str, Any] | None = None
        if part.code is not None:
            from nscontainer.values.transfer import Transfer

            made = Transfer(part.inputs, part.out, trust=part.trust)
            self.transfer = stack.enter_context(made)

    def make(self) -> None:
        """Make it, waiting to be let go; it is removed at the end of the stack if nobody drove it."""
        part = self._part
        with api.as_stdin(part.input) as stdin:
            self.container = api.engine().create(part.spec, name=part.name, stdin=stdin)
        self._stack.callback(self._discard)
        if self.transfer is None:
            return
        code = part.code or ""
        request = api.cell_request(code, None, 0, self.container.spec, colors=False, width=80)
        message = {
            "msg_type": "execute_request",
            "content": request | self.transfer.request,
        }
        if len(json.dumps(message)) < _QUEUED_BYTES:
            self.container.send(message, self.transfer.fds)  # there when the runner looks
        else:
            self._late = message

    def _discard(self) -> None:
        if self.result is None:
            with contextlib.suppress(NsContainerError, OSError):  # it has gone
                self.container.remove(force=True)

    def work(self, at_ns: int, wake: int) -> None:
        """Let it go at an instant, and relay until it has ended."""
        part = self._part
        try:
            self.container.start(at_ns)
            if self._late is not None and self.transfer is not None:
                self.container.send(self._late, self.transfer.fds)
            watch = None if self.transfer is None else self.transfer.watch(None)
            listener = api.Listener(None, None, watch, whole=part.code is None)
            self.result = api.driven(self.container, listener, None, part.code)
        except BaseException as error:  # noqa: BLE001  # told to who waits
            self.error = error
        self.over = True
        os.write(wake, b".")

    def act(self, how: Callable[[Container], object]) -> None:
        """Do something to it, unless it has ended meanwhile."""
        if not self.over:
            with contextlib.suppress(NsContainerError, OSError):
                how(self.container)


class _Watch:
    """Waits for all of them, and ends those that are not to go on."""

    def __init__(self, runs: list[_Run], until: str | None) -> None:
        self._runs = runs
        self._leader = next((run for run in runs if run.name == until), None)
        self._kill_at: float | None = None
        self._pressed = 0
        self.stopped: set[str] = set()

    def run(self) -> int:
        """Let them go together; give how many interrupts came until all had ended."""
        from nscontainer.engine import pump

        reader, writer = os.pipe()
        at_ns = time.monotonic_ns() + _AHEAD_NS + _AHEAD_EACH_NS * len(self._runs)
        threads = [
            threading.Thread(
                target=run.work, args=(at_ns, writer), name=f"nscontainer {run.name}", daemon=True
            )
            for run in self._runs
        ]
        try:
            with pump.interrupts() as caught:
                for thread in threads:
                    thread.start()
                while not all(run.over for run in self._runs):
                    self._wait(reader, caught)
            for thread in threads:
                thread.join()
        finally:
            if not any(thread.is_alive() for thread in threads):  # else one may yet write
                os.close(reader)
                os.close(writer)
        return min(self._pressed + caught.late, 2)

    def _wait(self, reader: int, caught: Interrupts) -> None:
        left = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
        watched = [reader] if caught.fd is None else [reader, caught.fd]
        ready = select.select(watched, (), (), left)[0]
        if caught.fd in ready and caught.fd is not None:
            pressed = len(os.read(caught.fd, 64))
            if self._pressed >= 2:  # and still no end: the caller is let go
                raise KeyboardInterrupt
            self._pressed = min(2, self._pressed + pressed)
            for run in self._runs:
                run.act(lambda container: container.press(self._pressed))
        if reader in ready:
            os.read(reader, 64)
            self._end_others()
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at = None
            for run in self._runs:
                run.act(lambda container: container.kill())

    def _end_others(self) -> None:
        """Stop those that are no longer needed; kill them where one of all could not be run."""
        if any(run.error is not None for run in self._runs):
            self._kill_at = time.monotonic()
        elif self._leader is not None and self._leader.over and not self.stopped:
            self._kill_at = time.monotonic() + STOP_S
            for run in self._runs:
                if not run.over:
                    self.stopped.add(run.name)
                    run.act(lambda container: container.signal(container.stop_signal))


def _judged(
    runs: list[_Run], watch: _Watch, times: int, *, check: bool, on_interrupt: str
) -> Together:
    """Put the results together, or raise what the caller wants raised."""
    for run in runs:
        if run.error is not None:
            raise run.error
    results: dict[str, RunResult] = {}
    refusal: TransferError | None = None
    for run in runs:
        assert run.result is not None
        record = {**run.result.record, "interrupted": times}
        result = dataclasses.replace(run.result, record=record)
        try:
            result = api.judged(result, run.transfer, check=False, on_interrupt="return")
        except TransferError as error:
            refusal, result = refusal or error, cast("RunResult", error.result)
        results[run.name] = result
    all_ = Together(**results)
    all_.stopped = frozenset(watch.stopped)
    if times and on_interrupt == "raise":
        interrupt = KeyboardInterrupt()
        interrupt.result = all_  # type: ignore[attr-defined]
        raise interrupt
    if check and not all_.ok:
        name, failed = next((n, r) for n, r in all_.items() if not r.ok and n not in all_.stopped)
        failure = CommandError(f"{name}: {failed.describe_exit()}", exit_code=failed.exit_code)
        failure.result = all_  # type: ignore[attr-defined]
        raise failure
    if refusal is not None:
        refusal.result = all_
        raise refusal
    return all_
