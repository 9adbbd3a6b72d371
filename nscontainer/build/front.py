"""What every front end does before a build: the Dockerfile found and read, the context taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from nscontainer import inside
from nscontainer.build import dockerfile
from nscontainer.build.context import Context
from nscontainer.build.dockerfile import Dockerfile
from nscontainer.build.events import Event
from nscontainer.errors import SpecError

if TYPE_CHECKING:
    from nscontainer.build.asked import Options
    from nscontainer.image.records import Image


def from_directory(directory: str, file: str | None = None) -> tuple[Dockerfile, Context]:
    """Take a directory as context, and its ``Dockerfile``, or another file.

    Raises
    ------
    SpecError
        There is no such directory or file, or the Dockerfile can't be carried out.
    """
    path = os.path.join(directory, "Dockerfile") if file is None else file
    context = Context.of(directory, path)
    try:
        with open(path, encoding="utf-8") as opened:
            text = opened.read()
    except FileNotFoundError:
        raise SpecError(f"there is no {path}", hint="-f names another Dockerfile") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} can't be read: {error}") from None
    return dockerfile.parse(text, os.path.basename(path)), context


@inside.runs
def build(
    file: Dockerfile,
    context: Context | None,
    options: Options,
    on_event: Callable[[Event], None] | None = None,
) -> Image:
    """Build in this user's store; see :func:`nscontainer.build.builder.build`."""
    from nscontainer.build import builder
    from nscontainer.image.store import Store

    options.check()
    return builder.build(file, context, options, store=Store(), on_event=on_event or _unheard)


def _unheard(event: Event) -> None:
    """Tell nobody."""


def pairs(texts: list[str] | None, flag: str, *, from_environment: bool = False) -> dict[str, str]:
    """Read ``NAME=VALUE``s; a bare NAME is the environment's, where that may be.

    Raises
    ------
    SpecError
        One is none.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals and from_environment and name in os.environ:
            value, equals = os.environ[name], "="
        if not name or not equals:
            raise SpecError(f"{flag} {text!r} has no value", hint=f"write {flag} NAME=VALUE")
        found[name] = value
    return found
