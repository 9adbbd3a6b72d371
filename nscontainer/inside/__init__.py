"""A function of ours run by a helper process that is root of the user's own user namespace.

What an ordinary user's containers and images have on the disk is owned by subordinate ids (subuid(5)):
only a process in the namespace that maps them sees who owns what, may read what a mode closes, and may
remove it. The owner is no such process and can't become one: it has threads, and unshare(CLONE_NEWUSER)
fails with them (unshare(2)). So the work is handed to a child, which ends with it.

Between the two go pickles: both ends are this program, started by this user, on a socketpair. Nothing
that a container or an archive says is unpickled.

What is here is all that root and the engine load of it; :mod:`nscontainer.inside.owner` is the one side,
:mod:`nscontainer.inside.helper` the other.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

is_helper = False
"""Whether this process is the helper: set at its beginning."""


def needed() -> bool:
    """Tell whether this process isn't the one that sees files as containers do; root's always is.

    Where this user can't start this Python there is no other: what it can do itself is better than nothing.
    """
    return os.geteuid() != 0 and not is_helper and os.access(sys.executable, os.X_OK)


def runs(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function of a module run by :func:`call`; root calls it as it is."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        if not needed():
            return function(*args, **kwargs)
        return call(wrapper, *args, **kwargs)

    return wrapper


def call(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Run a module's function in the user namespace and give what it returns, or raise what it raised.

    Parameters
    ----------
    function
        Found by its module and name there.
    args, kwargs
        What can be pickled. Besides, as arguments themselves: callables that return nothing, which are
        called in this thread; :class:`Stream`, which is read or written here, and a plain one there; and
        events, which make the helper stop as by an interrupt.

    Raises
    ------
    EngineError
        The helper was killed, or could not be started.
    KeyboardInterrupt
        An interrupt goes to the helper, which breaks off as the function does; a second one kills it.
    """
    if not needed():
        args = tuple(arg.plain if isinstance(arg, Stream) else arg for arg in args)
        return function(*args, **kwargs)
    from nscontainer.inside.owner import Run

    with Run() as run:
        return cast("T", run.result(function, args, kwargs))


@dataclass(frozen=True, slots=True)
class Stream:
    """A binary stream among the arguments of :func:`call`, and what is done with it."""

    plain: Any
    way: Literal["read", "write"]
