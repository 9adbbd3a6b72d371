"""A Dockerfile's text, as instructions: lines joined, comments gone, forms told apart, all checked.

What the instructions mean is Docker's: https://docs.docker.com/reference/dockerfile/. Nothing here
looks at files or images, so whatever is wrong with a text is said before anything is made.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from nscontainer.errors import SpecError

_FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "FROM": ("platform",),
    "RUN": ("network",),
    "COPY": ("from", "chown", "chmod"),
    "ADD": ("chown", "chmod"),
}
KEYWORDS: Final = frozenset(
    "FROM RUN COPY ADD ENV WORKDIR USER ENTRYPOINT CMD LABEL ARG EXPOSE VOLUME STOPSIGNAL SHELL "
    "MAINTAINER".split()
)
"""The instructions that can be carried out."""
_NOT_DONE: Final[Mapping[str, str]] = {
    "HEALTHCHECK": "nothing here probes containers: leave it out, and check from outside with exec",
    "ONBUILD": "write the instruction into the Dockerfiles that build on this image",
}
_FLAG_HINTS: Final[Mapping[str, str]] = {
    "RUN --mount": "COPY what the command needs; what it downloads can be removed in the same RUN",
    "RUN --security": "give the container that runs the image its privileges instead",
    "COPY --link": "leave it out: the files are the same without",
    "COPY --parents": "COPY each directory to its own place",
    "COPY --exclude": "name it in .dockerignore",
    "ADD --checksum": "RUN sha256sum -c on the file",
    "ADD --keep-git-dir": "clone in a RUN",
    "ADD --link": "leave it out: the files are the same without",
    "ADD --from": "COPY takes files from another stage or image",
    "ADD --exclude": "name it in .dockerignore",
}
_DIRECTIVE: Final = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC: Final = re.compile(r"\d*<<(-?)(['\"]?)([A-Za-z_]\w*)\2(?=$|[>|;&)])")
_WITH_HEREDOCS: Final = ("RUN", "COPY", "ADD")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """What stands between ``<<NAME`` and ``NAME``."""

    name: str
    content: str
    expand: bool
    """Whether variables in it are replaced: not where the name was quoted."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    ``rest`` is what follows the flags, with continued lines joined; ``text`` is all of it, for people.
    """

    keyword: str
    rest: str
    text: str
    place: str
    """``Dockerfile:7``: the file and the line that it begins in."""
    flags: tuple[tuple[str, str], ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    escape: str = "\\"

    def flag(self, name: str) -> str | None:
        """Give a flag's value, or None where it isn't there."""
        return dict(self.flags).get(name)

    def exec_form(self) -> list[str] | None:
        """Give the words of a JSON array; None where it is none (then it is a shell's line)."""
        return json_words(self.rest)

    def words(self) -> list[str]:
        """Give a JSON array's words, or what white space separates."""
        found = self.exec_form()
        return self.rest.split() if found is None else found

    def pairs(self) -> list[tuple[str, str]]:
        """Give ``NAME=value …`` or the old ``NAME value`` as pairs, quotes and variables still in."""
        parts = quoted_words(self.rest, self.escape)
        if "=" in parts[0]:
            return [(name, value) for name, _, value in (part.partition("=") for part in parts)]
        name, value = self.rest.split(None, 1)
        return [(name, value)]

    def wrong(self, what: str, hint: str | None = None) -> SpecError:
        """Make an error that says where this stands."""
        return SpecError(f"{self.place}: {what}", hint=hint)


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A whole text."""

    name: str
    instructions: tuple[Instruction, ...]


def parse(text: str, name: str = "Dockerfile", first_line: int = 1) -> Dockerfile:
    """Read a Dockerfile.

    Parameters
    ----------
    name
        What errors call it.
    first_line
        The number of the first line, for those of a cell.

    Raises
    ------
    SpecError
        It can't be carried out: the file, the line, what is wrong, what to do instead.
    """
    reader = _Reader(text, name, first_line)
    instructions = tuple(reader.instructions())
    if not instructions:
        raise SpecError(f"{name} has no instructions", hint="begin it with FROM")
    return Dockerfile(name, instructions)


def json_words(text: str) -> list[str] | None:
    """Read a JSON array of strings; None where the text is none."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return None
    return value


def quoted_words(text: str, escape: str = "\\") -> list[str]:
    """Split at white space outside quotes; quotes and escapes stay in the words."""
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            at += 2
            continue
        if not quote and char.isspace():
            if word:
                words.append(word)
            word = ""
        else:
            if char in "'\"" and quote in ("", char):
                quote = "" if quote else char
            word += char
        at += 1
    return [*words, word] if word else words


def heredoc_names(line: str) -> list[tuple[str, bool]]:
    """Give the here-documents that a command begins, and whether each is indented by tabs."""
    found = (_HEREDOC.match(word) for word in quoted_words(line))
    return [(match[3], bool(match[1])) for match in found if match is not None]


class _Reader:
    """Goes through the lines."""

    def __init__(self, text: str, name: str, first_line: int) -> None:
        self._before = first_line - 1
        self._lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
        self._name = name
        self._at = 0
        self._escape = "\\"

    def _next(self) -> str | None:
        if self._at >= len(self._lines):
            return None
        self._at += 1
        return self._lines[self._at - 1]

    def instructions(self) -> Iterator[Instruction]:
        self._directives()
        while (line := self._next()) is not None:
            text = line.strip()
            if text and not text.startswith("#"):
                place = f"{self._name}:{self._before + self._at}"
                yield self._instruction(self._joined(line.lstrip()), place)

    def _directives(self) -> None:
        """Read ``# escape=`` at the top; ``# syntax=`` names a parser for BuildKit to fetch."""
        while (line := self._next()) is not None:
            found = _DIRECTIVE.match(line.strip())
            if found is None or found[1].lower() not in ("escape", "syntax", "check"):
                self._at -= 1
                return
            if found[1].lower() == "escape":
                if found[2] not in ("\\", "`"):
                    message = (
                        f"{self._name}:{self._before + self._at}: escape {found[2]!r} can't be used"
                    )
                    raise SpecError(message, hint="\\ or `")
                self._escape = found[2]

    def _joined(self, line: str) -> str:
        """Join the lines that go on; those between that are empty or a comment are left out."""
        mark = re.escape(self._escape)
        goes_on = re.compile(rf"(?<!{mark}){mark}[ \t]*$")
        text = ""
        while goes_on.search(line):
            text += goes_on.sub("", line)
            following = self._next()
            while following is not None and following.strip()[:1] in ("", "#"):
                following = self._next()
            if following is None:
                return text
            line = following
        return text + line

    def _instruction(self, line: str, place: str) -> Instruction:
        word, _, rest = line.strip().replace("\t", " ", 1).partition(" ")
        keyword = word.upper()
        _check_keyword(word, keyword, place)
        flags, rest = _flags(keyword, rest.strip(), place)
        if not rest:
            raise SpecError(f"{place}: {keyword} needs an argument", hint=_USAGE.get(keyword))
        heredocs: tuple[Heredoc, ...] = ()
        if keyword in _WITH_HEREDOCS and json_words(rest) is None:
            heredocs = tuple(self._heredocs(rest, place))
        text = " ".join([keyword, *(f"--{name}={value}" for name, value in flags), rest])
        made = Instruction(keyword, rest, text, place, flags, heredocs, self._escape)
        _check(made)
        return made

    def _heredocs(self, rest: str, place: str) -> Iterator[Heredoc]:
        for word in quoted_words(rest, self._escape):
            found = _HEREDOC.match(word)
            if found is not None:
                dash, quote, name = found.groups()
                content = self._until(name, place, strip_tabs=bool(dash))
                yield Heredoc(name, content, not quote)

    def _until(self, name: str, place: str, *, strip_tabs: bool) -> str:
        content = ""
        while (line := self._next()) is not None:
            line = line.lstrip("\t") if strip_tabs else line
            if line == name:
                return content
            content += line + "\n"
        message = f"{place}: the text after <<{name} has no end"
        raise SpecError(message, hint=f"a line with {name} and nothing else")


def _check_keyword(word: str, keyword: str, place: str) -> None:
    if keyword in _NOT_DONE:
        raise SpecError(f"{place}: {keyword} isn't supported", hint=_NOT_DONE[keyword])
    if keyword not in KEYWORDS:
        close = difflib.get_close_matches(keyword, KEYWORDS, 1)
        hint = f"did you mean {close[0]}?" if close else "does the line before it lack a backslash?"
        raise SpecError(f"{place}: {word!r} is not an instruction", hint=hint)


def _flags(keyword: str, rest: str, place: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Take ``--name=value`` off the front; a RUN's command may begin with anything else."""
    flags: list[tuple[str, str]] = []
    while keyword in _FLAGS and (found := re.match(r"--([a-z][a-z-]*)(?:=(\S*))?(?:\s+|$)", rest)):
        name, value = found[1], found[2]
        if name not in _FLAGS[keyword]:
            message = f"{place}: {keyword} --{name} isn't supported"
            hint = _FLAG_HINTS.get(f"{keyword} --{name}")
            raise SpecError(message, hint=hint or f"{keyword} takes {_listed(_FLAGS[keyword])}")
        if not value:
            raise SpecError(f"{place}: --{name} has no value", hint=f"write --{name}=VALUE")
        flags.append((name, value))
        rest = rest[found.end() :]
    return tuple(flags), rest.strip()


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"--{name}" for name in names)


_USAGE: Final[Mapping[str, str]] = {
    "FROM": "FROM IMAGE [AS NAME]",
    "RUN": 'RUN COMMAND, or RUN ["PROGRAM", "ARGUMENT"]',
    "COPY": "COPY SOURCE… DESTINATION",
    "ADD": "ADD SOURCE… DESTINATION",
    "ENV": "ENV NAME=value",
    "LABEL": "LABEL NAME=value",
    "ARG": "ARG NAME, or ARG NAME=default",
    "SHELL": 'SHELL ["/bin/bash", "-c"]',
}


def _check(made: Instruction) -> None:
    """Check what can be told without variables' values."""
    if made.keyword in _CHECKS:
        _CHECKS[made.keyword](made)


def _check_from(made: Instruction) -> None:
    words = made.words()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise made.wrong(f"FROM {made.rest!r} can't be read", _USAGE["FROM"])
    if len(words) == 3 and re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.-]*", words[2]) is None:
        raise made.wrong(f"stage name {words[2]!r} can't be used", "begin it with a letter")


def _check_pairs(made: Instruction) -> None:
    parts = quoted_words(made.rest, made.escape)
    if "=" not in parts[0]:
        if len(made.rest.split(None, 1)) < 2:
            usage = _USAGE[made.keyword]
            raise made.wrong(f"{made.keyword} {made.rest} has no value", usage)
        return
    for part in parts:
        if not part.partition("=")[0] or "=" not in part:
            raise made.wrong(f"{part!r} is no NAME=value", "quote a value that has spaces")


def _check_arg(made: Instruction) -> None:
    for part in quoted_words(made.rest, made.escape):
        if re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*(=.*)?", part, re.DOTALL) is None:
            raise made.wrong(f"{part!r} can't be an ARG", _USAGE["ARG"])


def _check_shell(made: Instruction) -> None:
    if not made.exec_form():
        raise made.wrong(f"SHELL {made.rest} is no JSON array of words", _USAGE["SHELL"])


def _check_copy(made: Instruction) -> None:
    words = made.words()
    sources, destination = words[:-1], words[-1] if words else ""
    if not sources:
        raise made.wrong(f"{made.keyword} {made.rest} has no destination", _USAGE[made.keyword])
    if len(sources) > 1 and not destination.endswith("/"):
        message = f"{made.keyword} of several sources to {destination!r}: it must be a directory"
        raise made.wrong(message, f"write {destination}/")
    for source in sources if made.keyword == "ADD" else ():
        if re.match(r"(https?|ftp|git)://|git@", source):
            raise made.wrong(
                f"ADD of a URL isn't supported: {source}",
                "RUN curl -fsSLo FILE URL (or wget), or download it first and COPY it",
            )


def _check_run(made: Instruction) -> None:
    if made.exec_form() == []:
        raise made.wrong("RUN [] names no program", _USAGE["RUN"])
    if (network := made.flag("network")) not in (None, "none", "host", "default"):
        raise made.wrong(f"network {network!r} is not known", "none or host")
    for heredoc in made.heredocs[:1]:
        bare = _HEREDOC.fullmatch(made.rest) is not None
        if bare and heredoc.content.startswith("#!"):
            program = heredoc.content.splitlines()[0].removeprefix("#!").split()[-1]
            raise made.wrong(
                "a script with #! can't be run by itself",
                f"name its program: RUN {program.rpartition('/')[2]} <<{heredoc.name}",
            )


_CHECKS: Final[Mapping[str, Callable[[Instruction], None]]] = {
    "FROM": _check_from,
    "COPY": _check_copy,
    "ADD": _check_copy,
    "ENV": _check_pairs,
    "LABEL": _check_pairs,
    "ARG": _check_arg,
    "SHELL": _check_shell,
    "RUN": _check_run,
}


def script_of(made: Instruction) -> str:
    """Give the line that a RUN hands to the shell, with its here-documents."""
    if not made.heredocs:
        return made.rest
    if _HEREDOC.fullmatch(made.rest):
        return made.heredocs[0].content
    tail = "".join(f"{heredoc.content}{heredoc.name}\n" for heredoc in made.heredocs)
    return f"{made.rest}\n{tail}"
