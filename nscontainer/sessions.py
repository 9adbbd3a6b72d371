"""Sessions: cell after cell in one interpreter in one container, each with a result of its own."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from nscontainer import api, spec
from nscontainer.errors import NotFoundError, NsContainerError, StateError

if TYPE_CHECKING:
    from collections import deque

    from nscontainer.engine.attached import Attached, Told
    from nscontainer.engine.container import Container
    from nscontainer.engine.following import Follower
    from nscontainer.measure.provenance import Provenance
    from nscontainer.measure.result import RunResult

_END_S: Final = 10.0

_known: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()
"""This process's sessions, by the container's id."""
_ends: dict[str, str] = {}
"""How this process's sessions of these names ended, for whoever asks for one of them afterwards."""


class Session:
    """A live interpreter in a container. Made by :meth:`create`, found by :meth:`find`.

    Variables, files and processes last from cell to cell. As a context manager it ends with its block,
    but for a detached one, which is left to others.

    Attributes
    ----------
    container
        The :class:`~nscontainer.Container`: ``stats()`` has the totals of all cells so far,
        ``update()``, ``exec()``, ``pause()`` … work as of any container.

    Examples
    --------
    >>> with nscontainer.session(cpu="20%") as lab:  # doctest: +SKIP
    ...     lab.run_cell("x = sum(range(10**6))")
    ...     r = lab.run_cell("print(x)")
    """

    def __init__(self, container: Container) -> None:
        self.container = container
        self._attached: Attached | None = None
        facts = container.inspect()
        of_image = ("image", "image_id", "diff_ids", "on_host")
        self._facts = {
            name: facts.get(name) for name in ("spec", "cgroup", "created_unix", *of_image)
        }
        """What of an exit record the provenance of each cell is about."""
        self.over: str | None = None
        """How it ended, where a cell ended it."""
        _known[container.id] = self

    def __repr__(self) -> str:
        return f"<Session {self.name}: {self.container.status}>"

    @property
    def name(self) -> str:
        """The container's name."""
        return self.container.name

    # --- making and finding ------------------------------------------------------------------

    @classmethod
    def create(cls, name: str | None = None, *, detach: bool = False, **options: Any) -> Self:
        """Make a session.

        Parameters
        ----------
        name
            To find it by; its container's id where none is given.
        detach
            Let it outlive this process; :meth:`find` gives it to another. What it leaves is kept until
            it is removed.
        options
            As :func:`nscontainer.spec.build` takes them. The working directory is this process's own
            where none is given, ``sys.path`` as well.

        Raises
        ------
        SpecError, HostError, SetupError, StateError
            A value can't be used; this host can't; the name is taken. Nothing is left.
        """
        container_type = api.engine()
        what = spec.build(None, session=True, **api.as_here(options))
        with api.explained():
            container = container_type.create(
                what, name=name, detach=detach, remove=not detach, start=True
            )
        try:
            made = cls(container)
            made.attach()
        except (NotFoundError, StateError) as error:
            raise _stillborn(container, error) from None
        _ends.pop(made.name, None)
        return made

    @classmethod
    def find(cls, name: str) -> Session:
        """Give a session by name or id: this process's own, or one that lives.

        Raises
        ------
        NotFoundError, StateError
            There is none; it has ended; it is a container of another kind.
        """
        from nscontainer.engine.attached import ended

        at_hand = _at_hand(name)
        if at_hand is not None:
            return at_hand
        try:
            container = api.engine().get(name)
        except NotFoundError:
            _note_ends()
            if name in _ends:
                raise ended(name, _ends[name]) from None
            message = f"no session {name!r}"
            raise NotFoundError(message, hint=f"%container create {name} makes one") from None
        if not container.spec.session:
            message = f"container {name!r} is no session"
            raise StateError(message, hint="%container create NAME makes one")
        if container.status == "exited":
            how = f"{name} is kept until it is removed"
            raise ended(name, _ends.get(name)) if name in _ends else _kept(name, how)
        known = _known.get(container.id)
        if known is None:
            return cls(container)
        known.container.name = container.name  # it may have been renamed
        return known

    # --- using ---------------------------------------------------------------------------------

    def attach(self) -> None:
        """Take hold of it: until this is closed, or this process ends, no other can run cells in it.

        Raises
        ------
        StateError
            Another process has it.
        """
        if self.over is not None:
            from nscontainer.engine.attached import ended

            raise ended(self.name, self.over)
        if self._attached is None or not self._attached.open:
            self._attached = self.container.attach()

    def follow(self) -> Follower:
        """Read the samples of the cell that runs, while they come.

        Raises
        ------
        StateError
            None has begun.
        """
        if self._attached is None or not self._attached.open:
            message = f"no cell runs in session {self.name!r}"
            raise StateError(message)
        return self._attached.follow()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send the cell that runs a message: an ``input_reply``."""
        if self._attached is not None and self._attached.open:
            self._attached.send(dict(message))

    def deliver(self, queue: deque[Told]) -> None:
        """Give the interpreter what waits in a queue: ``comm_msg`` and ``comm_close`` for widgets.

        What their handlers say is heard meanwhile. While a cell runs, or the session is paused, all
        stays in the queue.

        Raises
        ------
        StateError
            A handler takes longer than a minute; it goes on.
        """
        if self._attached is None or not self._attached.open or self.container.status == "paused":
            return
        record = self._attached.deliver(queue)
        if record is not None:
            self._note_record(record)

    @property
    def attached(self) -> bool:
        """Whether this process has it, and cells can run."""
        return self.over is None and self._attached is not None and self._attached.open

    def run_cell(
        self,
        code: str,
        *,
        filename: str | None = None,
        line_offset: int = 0,
        on_message: Callable[[api.Message], None] | None = None,
        on_stdout: api.Sink | None = None,
        on_stderr: api.Sink | None = None,
        on_tick: Callable[[Container], None] | None = None,
        on_start: Callable[[Container], None] | None = None,
        check: bool = False,
        on_interrupt: Literal["raise", "return"] = "raise",
        colors: bool = False,
        width: int = 80,
        inputs: Mapping[str, Any] | None = None,
        out: Mapping[str, str] | None = None,
        trust: bool = False,
    ) -> RunResult:
        """Run a cell in it; parameters as :func:`nscontainer.run_cell` has them.

        Returns
        -------
        RunResult
            What this cell used, from its beginning to its end, and what it said. Where the
            container ended with it, ``describe_exit()`` says why.

        Raises
        ------
        StateError
            The session has ended, is paused, or another process has it.
        """
        from nscontainer.values.transfer import Transfer

        self.attach()
        request = api.cell_request(
            code, filename, line_offset, self.container.spec, colors=colors, width=width
        )
        tick = None if on_tick is None else (lambda: on_tick(self.container))
        with Transfer(inputs, out, trust=trust) as transfer:
            listener = api.Listener(on_stdout, on_stderr, transfer.watch(on_message))
            request |= transfer.request
            result = self._run(request, transfer.fds, listener, tick, on_start)
            return api.judged(result, transfer, check=check, on_interrupt=on_interrupt)

    def _run(
        self,
        request: dict[str, Any],
        fds: Sequence[int],
        listener: api.Listener,
        tick: Callable[[], None] | None,
        on_start: Callable[[Container], None] | None,
    ) -> RunResult:
        from nscontainer.engine.pump import Sinks
        from nscontainer.measure.provenance import collect

        assert self._attached is not None
        surroundings: list[Provenance] = []
        code = str(request["code"])

        def look_around() -> None:
            if on_start is not None:
                on_start(self.container)
            surroundings.append(collect({**self._facts, "released_unix": time.time()}, code))

        sinks = Sinks(listener.stdout, listener.stderr, listener.message, tick)
        end = self._attached.run(request, sinks, fds=fds, meanwhile=look_around)
        result = listener.result(end.record, end.samples, code, provenance=surroundings[0])
        if end.over:
            self._note_end(result.describe_exit())
        return result

    @property
    def lives(self) -> bool:
        """Whether it hasn't ended, as far as can be seen."""
        return self.over is None and self.container.status not in ("exited", "removed")

    def _note_record(self, record: dict[str, Any]) -> None:
        from nscontainer.measure.result import RunResult

        self._note_end(RunResult.from_record(record, self.container.samples()).describe_exit())

    def _note_end(self, how: str) -> None:
        self.over = _ends[self.name] = how
        with contextlib.suppress(NsContainerError, TimeoutError):
            self.container.wait(_END_S)

    # --- letting go ----------------------------------------------------------------------------

    def detach(self) -> None:
        """Let go of it, so that another process can attach; a foreground one still ends with ours."""
        if self._attached is not None:
            self._attached.close()

    def close(self) -> None:
        """End it and remove it; a detached one lives on and is let go."""
        self.detach()
        if self.container.detached:
            return
        with contextlib.suppress(NsContainerError):
            self.container.kill()
        with contextlib.suppress(NsContainerError, TimeoutError):
            self.container.wait(_END_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _at_hand(name: str) -> Session | None:
    """Give a session that is attached here, lives and still has the name.

    The disk is asked as well: a monitor lets go of the container before it tells of the end.
    """
    for one in list(_known.values()):
        if one.name == name and one._attached is not None and one._attached.alive:  # noqa: SLF001
            return one if one.lives and one.container.has_name(name) else None
    return None


def _note_ends() -> None:
    """Find out of this process's sessions that have ended between cells, how."""
    for one in list(_known.values()):
        container = one.container
        if one.over is None and not container.detached and container.status == "removed":
            with contextlib.suppress(NsContainerError, TimeoutError, ValueError):
                one._note_record(container.wait(1.0))  # noqa: SLF001


def _stillborn(container: Container, error: NsContainerError) -> NsContainerError:
    """Give the reason why a session ended before it began: an image's Python may be none for it."""
    record: Mapping[str, Any] = {}
    with contextlib.suppress(NsContainerError, TimeoutError):
        record = container.wait(1.0)
    why = record.get("exec_error")
    if not why and isinstance(error, StateError):
        return error
    return StateError(f"session {container.name!r} can't begin: {why or 'it has ended already'}")


def _kept(name: str, how: str) -> StateError:
    message = f"session {name!r} has ended; {how}"
    return StateError(message, hint=f"%container rm {name}, then create it again")


def session(name: str | None = None, *, detach: bool = False, **options: Any) -> Session:
    """Make a session: :meth:`Session.create` under a name that reads well after ``with``."""
    return Session.create(name, detach=detach, **options)
