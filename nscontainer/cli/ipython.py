"""``nscontainer ipython``: the magics in every notebook of an environment, without ``%load_ext``.

IPython loads a magic of ``MagicsManager.lazy_magics`` when it is used for the first time. It reads
that from ``ipython_config.json`` in ``{sys.prefix}/etc/ipython`` and in the user's profile, besides an
``ipython_config.py`` there.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from nscontainer import options
from nscontainer.errors import HostError, StateError

_FILE: Final = "ipython_config.json"
_MAGIC: Final = "container"
_ALSO: Final = "image"
_EXTENSION: Final = "nscontainer"
_NOTE: Final = "nscontainer"
"""Our own key in the file: what ``enable`` made, so that ``disable`` takes away just that."""


def ipython_command(argv: Sequence[str]) -> int:
    """Enable, disable or tell; 0 where it is (or was to be) so, 1 where ``status`` finds nothing."""
    parser = options.Parser(
        prog="nscontainer ipython",
        description="Have %%container and %%%%container in every notebook of this environment, "
        "without %%load_ext: IPython loads them when they are first used.",
    )
    parser.add_argument("action", choices=("enable", "disable", "status"))
    parser.add_argument(
        "--user", action="store_true", help="in your own profile, for every environment of yours"
    )
    given = parser.parse_args(argv)
    places = [_place(user=False), _place(user=True)]
    if given.action == "status":
        found = [path for path in places if _enabled(path)]
        print("\n".join(f"enabled in {path}" for path in found) or "not enabled")
        return 0 if found else 1
    path = places[given.user]
    with _explained(path, given.user):
        print((_enable if given.action == "enable" else _disable)(path))
    return 0


def _place(*, user: bool) -> str:
    if not user:
        return os.path.join(sys.prefix, "etc", "ipython", _FILE)
    directory = os.environ.get("IPYTHONDIR") or os.path.join("~", ".ipython")
    return os.path.join(os.path.expanduser(directory), "profile_default", _FILE)


@contextlib.contextmanager
def _explained(path: str, user: bool) -> Any:  # noqa: FBT001
    try:
        yield
    except OSError as error:
        message = f"{path} can't be written: {error.strerror or error}"
        hint = "nscontainer ipython enable --user is for you alone"
        raise HostError(message, hint="make it writable" if user else hint) from None


def _read(path: str) -> dict[str, Any] | None:
    """Read a configuration; None where there is none.

    Raises
    ------
    StateError
        It is none that IPython could read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        found = None
    magics = found.get("MagicsManager", {}) if isinstance(found, dict) else None
    lazy = magics.get("lazy_magics", {}) if isinstance(magics, dict) else None
    if not isinstance(found, dict) or not isinstance(lazy, dict):
        message = f"{path} is no configuration of IPython"
        raise StateError(message, hint="mend it, or move it away")
    return found


def _lazy(config: dict[str, Any]) -> dict[str, Any]:
    lazy: dict[str, Any] = config.get("MagicsManager", {}).get("lazy_magics", {})
    return lazy


def _enabled(path: str) -> bool:
    with contextlib.suppress(OSError, StateError):
        return _lazy(_read(path) or {}).get(_MAGIC) == _EXTENSION
    return False


def _enable(path: str) -> str:
    path = os.path.realpath(path)
    config = _read(path)
    there = config is not None
    config = config or {}
    other = _lazy(config).get(_MAGIC)
    if other == _EXTENSION and _ALSO in _lazy(config):
        return f"already enabled in {path}"
    if other not in (None, _EXTENSION):
        message = f"{path} has a magic 'container' already: {other!r}"
        raise StateError(message, hint="take it out there, or use %load_ext nscontainer")
    _check_neighbour(path)
    directory = os.path.dirname(path)
    made: list[str] = [] if there else [_FILE]
    while not os.path.isdir(directory):
        made.append(directory)
        directory = os.path.dirname(directory)
    lazy = config.setdefault("MagicsManager", {}).setdefault("lazy_magics", {})
    lazy[_MAGIC] = _EXTENSION
    lazy.setdefault(_ALSO, _EXTENSION)  # another's %%image stays what it is
    if made:
        config[_NOTE] = {"made": made}
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write(path, config)
    except OSError:
        _remove_empty(made)
        raise
    return f"enabled: wrote MagicsManager.lazy_magics.container to {path}"


def _check_neighbour(path: str) -> None:
    """Refuse to write what would hide the lazy magics of the ipython_config.py beside it.

    Of two dictionaries under one name IPython takes the later file's whole.
    """
    neighbour = path.removesuffix(".json") + ".py"
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        with open(neighbour, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("#")[0] for line in file]
        if any("lazy_magics" in line for line in lines):
            message = f"{neighbour} sets lazy_magics itself"
            hint = 'add there: c.MagicsManager.lazy_magics["container"] = "nscontainer"'
            raise StateError(message, hint=hint)


def _disable(path: str) -> str:
    path = os.path.realpath(path)
    config = _read(path) or {}
    if _lazy(config).get(_MAGIC) != _EXTENSION:
        return f"not enabled in {path}"
    note = config.pop(_NOTE, {})
    made = note.get("made", []) if isinstance(note, dict) else []
    del _lazy(config)[_MAGIC]
    if _lazy(config).get(_ALSO) == _EXTENSION:
        del _lazy(config)[_ALSO]
    if not _lazy(config):
        del config["MagicsManager"]["lazy_magics"]
    if not config["MagicsManager"]:
        del config["MagicsManager"]
    if config or _FILE not in made:
        _write(path, config)
    else:
        os.unlink(path)
        parents = [d for d in made if isinstance(d, str) and path.startswith(d + os.sep)]
        _remove_empty(parents)
    return f"disabled in {path}"


def _remove_empty(directories: Sequence[str]) -> None:
    for directory in sorted(directories, key=len, reverse=True):
        if os.path.isabs(directory):
            with contextlib.suppress(OSError):  # something else is in it by now
                os.rmdir(directory)


def _write(path: str, config: dict[str, Any]) -> None:
    """Write the file whole or not at all; one that is there keeps its mode."""
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(config, indent=2) + "\n")
        with contextlib.suppress(FileNotFoundError):
            os.chmod(temporary, os.stat(path).st_mode & 0o7777)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
