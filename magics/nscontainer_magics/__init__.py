"""``%%container``, ``%container`` and ``%%image`` for IPython and Jupyter: ``%load_ext nscontainer``."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load_ipython_extension", "unload_ipython_extension"]

_NAMES = ("container", "image")


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics and their Tab completion, and start the engine's helper meanwhile."""
    from traitlets import TraitError

    from nscontainer.errors import SpecError
    from nscontainer_magics import completion
    from nscontainer_magics.failure import in_one_line
    from nscontainer_magics.image_cell import ImageMagics
    from nscontainer_magics.magics import ContainerMagics

    try:
        shell.register_magics(ContainerMagics(shell), ImageMagics(shell))
    except (SpecError, TraitError) as error:  # a default in a configuration file
        _forget(shell)
        raise in_one_line(SpecError(str(error))) from None
    completion.install(shell)
    if sys.platform == "linux":
        # Without it the first cell would wait for an interpreter to start. What hinders it here is
        # told when a container is asked for.
        from nscontainer.engine import spawner_client

        with contextlib.suppress(Exception):
            spawner_client.warm(cells=True)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magics and the completion away again."""
    from nscontainer_magics import completion

    for kind in ("line", "cell"):
        for name in _NAMES:
            shell.magics_manager.magics[kind].pop(name, None)
    completion.remove(shell)
    for name in ("ContainerMagics", "ImageMagics"):
        shell.magics_manager.registry.pop(name, None)
    _forget(shell)


def _forget(shell: InteractiveShell) -> None:
    """Let %config not find the magics any more."""
    from nscontainer_magics.image_cell import ImageMagics
    from nscontainer_magics.magics import ContainerMagics

    found: list[object] = [*shell.configurables]
    kept = [one for one in found if not isinstance(one, (ContainerMagics, ImageMagics))]
    shell.configurables[:] = kept  # type: ignore[assignment]
