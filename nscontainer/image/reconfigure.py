"""``--change``: a Dockerfile's instructions that only change an image's configuration."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from nscontainer.errors import ImageError, SpecError
from nscontainer.spec import parse_signal

_PORT: Final = re.compile(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?")
_NAME: Final = re.compile(r"[^=\s\0]+")

Settings = dict[str, Any]

_TEXTS: Final = ("Env", "OnBuild", "Shell")
_COMMANDS: Final = ("Cmd", "Entrypoint")
_TABLES: Final = ("Labels", "Volumes", "ExposedPorts")
_WORDS: Final = ("User", "WorkingDir", "StopSignal")


def settings(config: Mapping[str, Any], what: str) -> Settings:
    """Give a copy of an image configuration's ``config``, to be changed, without what is null in it.

    Parameters
    ----------
    what
        What errors call the image.

    Raises
    ------
    ImageError
        Something in it is of another kind than OCI says (image-spec: config.md): nothing can be
        built on that. Docker doesn't take such an image at all.
    """
    found = config.get("config") or {}
    if not isinstance(found, dict):
        raise ImageError(f"the config of {what} is damaged: {found!r:.60} is no table of settings")
    made = {key: value for key, value in json.loads(json.dumps(found)).items() if value is not None}
    for key, value in made.items():
        fits = (
            (key not in _TEXTS or _is_texts(value))
            and (key not in _COMMANDS or isinstance(value, str) or _is_texts(value))
            and (key not in _TABLES or isinstance(value, dict))
            and (key not in _WORDS or isinstance(value, str))
        )
        if not fits:
            raise ImageError(f"the config of {what} is damaged: its {key} is {value!r:.60}")
    return made


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def apply(config: Mapping[str, Any], changes: Iterable[str]) -> Settings:
    """Give an image configuration's ``config`` with some instructions carried out on it.

    Parameters
    ----------
    changes
        As ``CMD ["python3"]``, ``ENV A=1 B=2``: CMD ENTRYPOINT ENV EXPOSE LABEL USER WORKDIR VOLUME
        STOPSIGNAL.

    Raises
    ------
    SpecError
        One is unknown, or can't be read.
    """
    made: Settings = json.loads(json.dumps(config))
    told: set[str] = set()
    for text in changes:
        keyword, _, rest = str(text).strip().partition(" ")
        word, rest = keyword.upper(), rest.strip()
        carry_out = _INSTRUCTIONS.get(word)
        if carry_out is None or not rest or "\n" in rest or "\0" in rest:
            why = "is none that changes an image" if carry_out is None else "says nothing"
            message = f"change {text!r}: {keyword or 'it'} {why}"
            raise SpecError(message, hint=f"one of {' '.join(_INSTRUCTIONS)}, as USER nobody")
        told.add(word)
        carry_out(made, rest, str(text))
        if word == "ENTRYPOINT" and "CMD" not in told:
            made.pop("Cmd", None)  # it was the other entrypoint's
    return made


def _argv(rest: str, text: str) -> list[str]:
    """Read ``["a", "b"]``, or a shell's line."""
    if not rest.startswith("["):
        return ["/bin/sh", "-c", rest]
    try:
        words = json.loads(rest)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        message = f"change {text!r} can't be read"
        raise SpecError(message, hint='a list as ["sh", "-c", "ls"], or a shell\'s line')
    return words


def _pairs(rest: str, text: str) -> list[tuple[str, str]]:
    """Read ``A=1 B="2 3"``, or the old ``A text``."""
    try:
        words = shlex.split(rest)
    except ValueError as error:
        message = f"change {text!r} can't be read: {str(error).lower()}"
        raise SpecError(message, hint="close every quote") from None
    if "=" not in words[0]:
        name, _, value = rest.partition(" ")
        pairs = [(name, value.strip())] if value else []
    else:
        pairs = [
            (name, value) for name, equals, value in (w.partition("=") for w in words) if equals
        ]
        pairs = pairs if len(pairs) == len(words) else []
    if not pairs or any(_NAME.fullmatch(name) is None for name, _ in pairs):
        message = f"change {text!r} can't be read"
        raise SpecError(message, hint="write NAME=value")
    return pairs


def _cmd(made: Settings, rest: str, text: str) -> None:
    made["Cmd"] = _argv(rest, text)


def _entrypoint(made: Settings, rest: str, text: str) -> None:
    made["Entrypoint"] = _argv(rest, text)


def _env(made: Settings, rest: str, text: str) -> None:
    known = dict(str(pair).split("=", 1) for pair in made.get("Env") or () if "=" in str(pair))
    known |= dict(_pairs(rest, text))
    made["Env"] = [f"{name}={value}" for name, value in known.items()]


def _label(made: Settings, rest: str, text: str) -> None:
    pairs = dict(_pairs(rest, text))
    if reserved := next((name for name in pairs if name.startswith("org.nscontainer.")), None):
        message = f"change {text!r}: {reserved} is nscontainer's own"
        raise SpecError(message)
    made["Labels"] = {**(made.get("Labels") or {}), **pairs}


def _user(made: Settings, rest: str, _: str) -> None:
    made["User"] = rest


def _workdir(made: Settings, rest: str, _: str) -> None:
    import posixpath

    made["WorkingDir"] = posixpath.normpath(
        posixpath.join("/", made.get("WorkingDir") or "/", rest)
    )


def _volume(made: Settings, rest: str, text: str) -> None:
    paths = _argv(rest, text) if rest.startswith("[") else rest.split()
    if wrong := next((path for path in paths if not path.startswith("/")), None):
        message = f"change {text!r}: {wrong!r} is not absolute"
        raise SpecError(message, hint="begin it with /")
    made["Volumes"] = {**(made.get("Volumes") or {}), **{path: {} for path in paths}}


def _expose(made: Settings, rest: str, text: str) -> None:
    ports: dict[str, Any] = {}
    for port in rest.split():
        if _PORT.fullmatch(port) is None:
            message = f"change {text!r}: {port!r} is no port"
            raise SpecError(message, hint="as 80 or 53/udp")
        ports[port if "/" in port else f"{port}/tcp"] = {}
    made["ExposedPorts"] = {**(made.get("ExposedPorts") or {}), **ports}


def _stop_signal(made: Settings, rest: str, _: str) -> None:
    parse_signal(rest)
    made["StopSignal"] = rest


_INSTRUCTIONS: Final[Mapping[str, Callable[[Settings, str, str], None]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
