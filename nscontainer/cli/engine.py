"""The way from the command line to the engine."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nscontainer.errors import HostError, NsContainerError, SetupError

if TYPE_CHECKING:
    from nscontainer.engine.container import Container


def container_type(*, to_make: bool = False) -> type[Container]:
    """Load the engine; where there can be none, say so in the doctor's words.

    Parameters
    ----------
    to_make
        Whether a container is to be made: what that takes is looked at too.

    Raises
    ------
    HostError
        What this host lacks, and how to get it.
    """
    if sys.platform != "linux":
        from nscontainer.doctor import require

        require()
    if to_make:
        # The spawner takes as long to start as the rest of the engine to load: start it first.
        from nscontainer.engine.spawner_client import warm

        warm(cells=False)
    from nscontainer.engine.container import Container

    return Container


@contextlib.contextmanager
def explained(*, rungs: bool = False) -> Iterator[None]:
    """Where the host refused something, ask the doctor why before giving up.

    With ``rungs``, name ``--unconfined`` as well: it would do for what is run.
    """
    try:
        yield
    except (HostError, SetupError) as error:
        from nscontainer import ladder
        from nscontainer.doctor import explain

        better: NsContainerError = explain(error)
        if rungs and better is not error and isinstance(better, HostError):
            ladder.naming_the_last_rung(better)
        raise better from None
