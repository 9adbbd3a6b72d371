"""The stages of a Dockerfile: where each begins, and which are needed for what is wanted."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from nscontainer.build import expand
from nscontainer.build.dockerfile import Dockerfile, Instruction, quoted_words
from nscontainer.errors import SpecError

PROXIES: Final = tuple(
    name
    for lower in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (lower, lower.upper())
)
"""ARGs that a RUN may be given without declaring them, and that make no other layer."""
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM and what follows it."""

    index: int
    name: str | None
    begin: Instruction
    base: str
    """What it stands on: an image's name, ``scratch``, ``host``; or the stage's, see below."""
    base_stage: int | None
    instructions: tuple[Instruction, ...]
    copies_from: Mapping[str, int] = field(default_factory=dict)
    """The stages that its COPYs take files from, by how they name them."""

    @property
    def needs(self) -> set[int]:
        """The stages that it can't be built without."""
        return {*self.copies_from.values(), *({self.base_stage} - {None})}  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Stages:
    """What is to be built, in order, and what ARGs before the first FROM have given."""

    wanted: tuple[Stage, ...]
    global_args: Mapping[str, str]


def machine() -> str:
    """Give this machine's architecture in the images' words: ``amd64``, ``arm64``."""
    return _MACHINES.get(platform.machine(), platform.machine())


def platform_args() -> dict[str, str]:
    """Give the ARGs that tell what is built for: this machine, as nothing else can be."""
    about = {"PLATFORM": f"linux/{machine()}", "OS": "linux", "ARCH": machine(), "VARIANT": ""}
    return {f"{who}{what}": text for who in ("TARGET", "BUILD") for what, text in about.items()}


def split(file: Dockerfile, build_args: Mapping[str, str], target: str | None = None) -> Stages:
    """Split into stages, and leave out those that the wanted one does without.

    Parameters
    ----------
    build_args
        As given with ``--build-arg``.
    target
        The stage that is wanted, by name or number; the last one by default.

    Raises
    ------
    SpecError
        There is no such stage, or a FROM can't be read.
    """
    global_args = platform_args()
    stages: list[Stage] = []
    current: list[Instruction] = []
    for instruction in file.instructions:
        if instruction.keyword == "FROM":
            current = []
            stages.append(_begin(instruction, global_args, stages))
        elif stages:
            current.append(instruction)
            stages[-1] = _with(stages, tuple(current))
        elif instruction.keyword == "ARG":
            for name, value in args(instruction, global_args, build_args):
                if value is not None:
                    global_args[name] = value
        else:
            raise instruction.wrong(f"{instruction.keyword} before FROM", "begin with FROM IMAGE")
    if not stages:
        raise SpecError(f"{file.name} has no FROM", hint="begin it with FROM IMAGE")
    return Stages(_needed(stages, _target(stages, target)), global_args)


def args(
    instruction: Instruction, variables: Mapping[str, str], build_args: Mapping[str, str]
) -> list[tuple[str, str | None]]:
    """Give the names that an ARG declares, each with its value; None where it has none."""
    found: list[tuple[str, str | None]] = []
    for part in quoted_words(instruction.rest, instruction.escape):
        name, equals, default = part.partition("=")
        value = expanded(instruction, default, {**variables, **_known(found)}) if equals else None
        found.append((name, build_args.get(name, value)))
    return found


def _known(found: Sequence[tuple[str, str | None]]) -> dict[str, str]:
    return {name: value for name, value in found if value is not None}


def expanded(instruction: Instruction, text: str, variables: Mapping[str, str]) -> str:
    """Replace variables; an error says where.

    Raises
    ------
    SpecError
        It can't be done.
    """
    try:
        return expand.word(text, variables, instruction.escape)
    except SpecError as error:
        raise instruction.wrong(error.message, error.hint) from None


def _begin(
    instruction: Instruction, global_args: Mapping[str, str], before: Sequence[Stage]
) -> Stage:
    words = instruction.words()
    base = expanded(instruction, words[0], global_args)
    name = words[2].lower() if len(words) == 3 else None
    if not base:
        raise instruction.wrong(
            f"{words[0]} is empty", "give it a default: ARG NAME=value before FROM"
        )
    if name is not None and any(stage.name == name for stage in before):
        raise instruction.wrong(f"there is a stage {name!r} already", "give it another name")
    wanted = instruction.flag("platform")
    wanted = None if wanted is None else expanded(instruction, wanted, global_args)
    own = f"linux/{machine()}"
    if wanted not in (None, own) and not f"{wanted}/".startswith(f"{own}/"):
        raise instruction.wrong(f"platform {wanted!r} can't be built here", f"this is {own}")
    found = [stage.index for stage in before if stage.name == base.lower()]
    return Stage(len(before), name, instruction, base, found[0] if found else None, ())


def _with(stages: Sequence[Stage], instructions: tuple[Instruction, ...]) -> Stage:
    """Give the last stage these instructions; a COPY may name a stage before it."""
    stage = stages[-1]
    copies = dict(stage.copies_from)
    source = instructions[-1].flag("from")
    if source is not None:
        for earlier in stages[:-1]:
            if source.lower() == earlier.name or source == str(earlier.index):
                copies[source] = earlier.index
        if source not in copies and (source.isdigit() or source.lower() == stage.name):
            message = f"there is no stage {source!r} before this one"
            raise instructions[-1].wrong(message, "stages count from 0")
    return Stage(
        stage.index, stage.name, stage.begin, stage.base, stage.base_stage, instructions, copies
    )


def _target(stages: Sequence[Stage], target: str | None) -> Stage:
    if target is None:
        return stages[-1]
    for stage in stages:
        if target.lower() == stage.name or target == str(stage.index):
            return stage
    named = ", ".join(stage.name for stage in stages if stage.name) or "none has a name"
    raise SpecError(f"there is no stage {target!r}", hint=f"stages: {named}")


def _needed(stages: Sequence[Stage], wanted: Stage) -> tuple[Stage, ...]:
    found, todo = {wanted.index}, [wanted]
    while todo:
        for index in todo.pop().needs - found:
            found.add(index)
            todo.append(stages[index])
    return tuple(stages[index] for index in sorted(found))
