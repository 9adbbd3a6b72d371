"""What a stage is like after each of its instructions: an image's config in the making."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nscontainer import spec
from nscontainer.build import expand
from nscontainer.build.dockerfile import Instruction, script_of
from nscontainer.build.stages import PROXIES, args, expanded, machine
from nscontainer.errors import SpecError
from nscontainer.image import reconfigure
from nscontainer.image.records import BASE_LABEL, Image, Layer

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the base sets none: Docker's own."""
SHELL: Final = ("/bin/sh", "-c")
_KEPT: Final = ("architecture", "variant", "os", "os.version", "os.features")
_PORT: Final = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)


@dataclass
class State:
    """A stage, as far as it has come.

    Parameters
    ----------
    config
        What a container of it is to be like: the ``config`` of an OCI image configuration.
    layers, history
        As the image's, the base's first.
    on_host
        Whether the layers are on top of this machine's own system.
    """

    config: dict[str, Any] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    """The rest of the image configuration: architecture, os …"""
    on_host: bool = False
    args: dict[str, str] = field(default_factory=dict)
    """What ARG has declared in this stage and has a value."""
    cmd_set: bool = False
    chain: str = ""
    """The cache's key of the last instruction: with one that changes all that follow are carried out
    again, as in Docker, even where it has changed no file."""

    def copy(self) -> State:
        """Give another stage that begins where this one is; ARGs and CMD's mark are a stage's own."""
        made = copy.deepcopy(self)
        made.args, made.cmd_set = {}, False
        return made

    @classmethod
    def of(cls, image: Image) -> State:
        """Begin with an image."""
        config = reconfigure.settings(image.config, f"image {(*image.names, image.id)[0]}")
        labels = dict(config.get("Labels") or {})
        on_host = labels.pop(BASE_LABEL, None) == "host"
        if "Labels" in config:
            config["Labels"] = labels
        kept = {key: image.config[key] for key in _KEPT if key in image.config}
        history = [dict(entry) for entry in image.history]
        return cls(config, list(image.layers), history, kept, on_host).with_path()

    def with_path(self) -> State:
        """Have a PATH in the environment, as Docker has; the image ``host`` shows its user's."""
        if not self.on_host and "PATH" not in self.env:
            self.config["Env"] = [*(self.config.get("Env") or ()), f"PATH={PATH}"]
        return self

    # --- what instructions ask for ----------------------------------------------------------

    @property
    def env(self) -> dict[str, str]:
        """The environment variables."""
        pairs = (text.partition("=") for text in self.config.get("Env") or ())
        return {name: value for name, _, value in pairs}

    @property
    def variables(self) -> dict[str, str]:
        """What a word may name: ARGs, and ENVs, which win; on the image ``host``, the PATH it shows."""
        path = {"PATH": os.environ.get("PATH", PATH)} if self.on_host else {}
        return {**path, **self.args, **self.env}

    @property
    def workdir(self) -> str:
        """The working directory, absolute."""
        return self.config.get("WorkingDir") or "/"

    @property
    def shell(self) -> tuple[str, ...]:
        """What a line is given to."""
        return tuple(self.config.get("Shell") or SHELL)

    def absolute(self, path: str) -> str:
        """Give a path below the working directory; a slash at the end stays."""
        whole = path if path.startswith("/") else f"{self.workdir.rstrip('/')}/{path}"
        slash = "/" if path.endswith("/") or path.rpartition("/")[2] in (".", "..") else ""
        return (spec_path(whole) + slash).replace("//", "/")

    def fingerprint(self) -> str:
        """Give what the next layer depends on: what came before, what is below, the config; no times."""
        what = [self.chain, self.on_host, [layer.diff_id for layer in self.layers], self.config]
        what += [self.more.get("architecture")]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def image_config(self, created: str | None) -> dict[str, Any]:
        """Give the OCI image configuration."""
        config = copy.deepcopy(self.config)
        if self.on_host:
            config["Labels"] = {**(config.get("Labels") or {}), BASE_LABEL: "host"}
        made = {"architecture": machine(), "os": "linux", **self.more, "config": config}
        made |= {"created": created} if created else {}
        made["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]}
        made["history"] = copy.deepcopy(self.history)
        return made


def spec_path(path: str) -> str:
    """Clean an absolute path."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def command_of(made: Instruction, shell: Sequence[str]) -> list[str]:
    """Give a RUN's, CMD's or ENTRYPOINT's argument vector; a shell's line becomes the shell's."""
    words = made.exec_form()
    return [*shell, script_of(made)] if words is None else words


# --- the instructions that only change the config ---------------------------------------------


def apply(
    state: State, made: Instruction, build_args: Mapping[str, str], global_args: Mapping[str, str]
) -> str:
    """Carry out an instruction that makes no layer; give it with its variables replaced.

    Raises
    ------
    SpecError
        Its value can't be used: the file, the line, why.
    """
    if made.keyword == "ARG":
        return _arg(state, made, build_args, global_args)
    return _APPLY[made.keyword](state, made)


def _arg(
    state: State, made: Instruction, build_args: Mapping[str, str], global_args: Mapping[str, str]
) -> str:
    told = []
    for name, own in args(made, state.variables, build_args):
        value = global_args.get(name) if own is None else own
        if value is not None:
            state.args[name] = value
        told.append(name if value is None else f"{name}={value}")
    return f"ARG {' '.join(told)}"


def _env(state: State, made: Instruction) -> str:
    variables, env, told = state.variables, state.env, []
    for name, value in made.pairs():
        key = expanded(made, name, variables)
        env[key] = expanded(made, value, variables)
        told.append(f"{key}={env[key]}")
    state.config["Env"] = [f"{name}={value}" for name, value in env.items()]
    return f"ENV {' '.join(told)}"


def _label(state: State, made: Instruction) -> str:
    labels = dict(state.config.get("Labels") or {})
    told = []
    for name, value in made.pairs():
        key, text = (expanded(made, part, state.variables) for part in (name, value))
        if key == BASE_LABEL:
            raise made.wrong(f"label {BASE_LABEL} is nscontainer's own", "choose another name")
        labels[key] = text
        told.append(f"{key}={text}")
    state.config["Labels"] = labels
    return f"LABEL {' '.join(told)}"


def _maintainer(state: State, made: Instruction) -> str:
    state.more["author"] = made.rest
    return f"MAINTAINER {made.rest}"


def _user(state: State, made: Instruction) -> str:
    user = expanded(made, made.rest, state.variables)
    if not user or user.startswith(":"):
        raise made.wrong(f"USER {made.rest} is empty", "write a name or a number")
    state.config["User"] = user
    return f"USER {user}"


def _workdir(state: State, made: Instruction) -> str:
    path = expanded(made, made.rest, state.variables)
    if not path:
        raise made.wrong(f"WORKDIR {made.rest} is empty", "write a path")
    state.config["WorkingDir"] = state.absolute(path).rstrip("/") or "/"
    return f"WORKDIR {state.config['WorkingDir']}"


def _command(state: State, made: Instruction) -> str:
    words = command_of(made, state.shell)
    if made.keyword == "CMD":
        state.config["Cmd"] = words
        state.cmd_set = True
    else:
        state.config["Entrypoint"] = words or None
        if not state.cmd_set:  # the base's CMD was meant for the base's ENTRYPOINT
            state.config.pop("Cmd", None)
    return f"{made.keyword} {json.dumps(words)}"


def _expose(state: State, made: Instruction) -> str:
    ports = dict(state.config.get("ExposedPorts") or {})
    found = _words(state, made)
    for text in found:
        match = _PORT.fullmatch(text)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not first <= last <= 65535:
            raise made.wrong(f"port {text!r} can't be read", "as 80, 53/udp or 8000-8010")
        for port in range(first, last + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
    state.config["ExposedPorts"] = ports
    return f"EXPOSE {' '.join(found)}"


def _words(state: State, made: Instruction) -> list[str]:
    try:
        return expand.words(made.rest, state.variables, made.escape)
    except SpecError as error:
        raise made.wrong(error.message, error.hint) from None


def _volume(state: State, made: Instruction) -> str:
    volumes = dict(state.config.get("Volumes") or {})
    found = [expanded(made, word, state.variables) for word in made.words()]
    if not found or not all(found):
        raise made.wrong(f"VOLUME {made.rest} is empty", "write a path")
    state.config["Volumes"] = volumes | {path: {} for path in found}
    return f"VOLUME {' '.join(found)}"


def _stopsignal(state: State, made: Instruction) -> str:
    text = expanded(made, made.rest, state.variables)
    try:
        spec.parse_signal(text)
    except SpecError as error:
        raise made.wrong(error.message, error.hint) from None
    state.config["StopSignal"] = text
    return f"STOPSIGNAL {text}"


def _shell(state: State, made: Instruction) -> str:
    state.config["Shell"] = made.exec_form()
    return f"SHELL {made.rest}"


_APPLY: Final[Mapping[str, Callable[[State, Instruction], str]]] = {
    "ENV": _env,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "USER": _user,
    "WORKDIR": _workdir,
    "CMD": _command,
    "ENTRYPOINT": _command,
    "EXPOSE": _expose,
    "VOLUME": _volume,
    "STOPSIGNAL": _stopsignal,
    "SHELL": _shell,
}


# --- RUN -------------------------------------------------------------------------------------


def run_variables(state: State, build_args: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Give what a RUN has in its environment beyond the image's, and the part that its layer is of.

    A proxy needs no ARG, and doesn't count: the same packages come through another one.
    """
    declared = {name: value for name, value in state.args.items() if name not in state.env}
    proxies = {name: build_args[name] for name in PROXIES if name in build_args}
    counted = sorted(f"{n}={v}" for n, v in declared.items() if n not in proxies)
    return {**proxies, **declared}, counted


def run_text(words: Sequence[str], counted: Sequence[str]) -> str:
    """Give a RUN as a history has it: Docker's ``|2 A=1 B=2 /bin/sh -c …`` where ARGs are in effect."""
    arguments = f"|{len(counted)} {' '.join(counted)} " if counted else ""
    text = " ".join(words) if list(words[:-1]) == list(SHELL) else shlex.join(words)
    return f"RUN {arguments}{text}"
