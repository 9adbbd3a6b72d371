"""Tab: flags and their choices, sub-commands, and the names of containers and images."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher
from IPython.core.getipython import get_ipython

from nscontainer import options
from nscontainer.cli import create, network_options
from nscontainer_magics import (
    cell_line,
    commands,
    defaults,
    history_command,
    image_cell,
    plot_command,
    variables,
)

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_CELL: Final = re.compile(r"\s*%%container(?:\s|$)")
_IMAGE_CELL: Final = re.compile(r"\s*%%image(?:\s|$)")
_LINE: Final = re.compile(r"\s*(?:[\w.]+\s*=\s*)?%container(?:\s|$)")
_CHOICES: Final = {
    "--seccomp": ("default", "unconfined"),
    "--cpu": ("10%", "20%", "50%", "100%"),
    "--cpus": ("0.1", "0.2", "0.5", "1"),
    "--memory": ("64M", "128M", "256M", "512M", "1G"),
    "--share": ("uts", "ipc", "pid", "net", "user", "cgroup", "time"),
}


@context_matcher(identifier="nscontainer")  # type: ignore[untyped-decorator]
def matcher(context: CompletionContext) -> dict[str, Any]:
    """Complete the word at the cursor on a line of ours; elsewhere say nothing."""
    before = context.text_until_cursor
    if context.cursor_line == 0 and _CELL.match(before):
        words = _words(before)
        found: Iterable[str] = [*_flags(words, _cell_options()), *_sessions(words)]
    elif context.cursor_line == 0 and _IMAGE_CELL.match(before):
        words = _words(before)
        found = _flags(words, _flags_of(image_cell.parser()))
    elif _LINE.match(before):
        found = _sub_command(_words(before))
    else:
        return {"completions": []}
    word = _words(before)[-1]
    matches = sorted({text for text in found if text.startswith(word)})
    completions = [SimpleCompletion(text, type="container") for text in matches]
    return {
        "completions": completions,
        "matched_fragment": word,
        # Where there is nothing of ours (a path, say) IPython's own may have something.
        "suppress": bool(completions),
    }


def _words(before: str) -> list[str]:
    """Split what follows the magic's name; the last word is the one at the cursor, maybe empty."""
    text = re.split(r"%container|%image", before, maxsplit=1)[-1]
    words = text.split()
    return words if words and not text[-1].isspace() else [*words, ""]


def _cell_options() -> Iterable[str]:
    return _flags_of(cell_line.parser())


def _flags_of(parser: options.Parser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings]  # noqa: SLF001


def _flags(words: list[str], flags: Iterable[str]) -> Iterable[str]:
    previous = words[-2] if len(words) > 1 else ""
    if previous in ("-i", "--in"):
        word = words[-1]
        before = word[: max(word.rfind(","), word.rfind("=")) + 1]
        return [before + name for name in _variables()]
    if previous in ("--image", "--from"):
        return ["host", *_images()]
    if previous in ("--network", "--net"):
        return ["none", "host", "slirp4netns", *_networks()]
    if previous in _CHOICES:
        return _CHOICES[previous]
    for option in options.OPTIONS:
        if previous in option.flags and option.takes_value:
            return option.choices or ()
    return flags if words[-1].startswith("-") or not words[-1] else ()


def _sub_command(words: list[str]) -> Iterable[str]:
    if len(words) == 1:
        return [*commands.COMMANDS, "last", "plot"]
    command = commands.COMMANDS.get(words[0])
    if words[0] == "plot":
        if words[-2] in ("-k", "--kind"):
            return {*plot_command.KINDS, *plot_command.SWEEP_KINDS}
        shell: Any = get_ipython()
        kinds = plot_command.SWEEP_KINDS if len(words) > 2 else ()
        return [*plot_command.names(shell.user_ns), *kinds, "--kind", "--by", "--metric"]
    if command is None:
        return ()
    if words[0] == "defaults":
        return _flags(words, _flags_of(defaults.parser()))
    if words[0] == "history":
        kept: list[str] = []
        with contextlib.suppress(Exception):
            kept = history_command.ids()
        return [*kept, *(["rm", *_images()] if len(words) == 2 else [])]
    if words[0] == "network":
        return _network(words[1:])
    if words[0] in ("update", "create") and (
        words[-1].startswith("-") or words[-2] in (*_CHOICES, "--network", "--net")
    ):
        groups = ("limits",) if words[0] == "update" else create.GROUPS
        flags = [f for o in options.OPTIONS if o.group in groups and o.magic for f in o.flags]
        return _flags(words, flags if words[0] == "update" else [*flags, "--detach"])
    if words[-1].startswith("-"):
        return re.findall(r"(?<=\[)-{1,2}\w+", command.usage)
    names = _names() if command.takes_name else []
    return [*names, *_images()] if command.takes_image else names


def _network(words: list[str]) -> Iterable[str]:
    if len(words) == 1:
        return network_options.ACTIONS
    action = network_options.ACTIONS.get(words[0])
    if action is None:
        return ()
    if words[-1].startswith("-"):
        return _flags_of(network_options.parser(words[0], magic=True))
    return _networks() if action.names else ()


def _networks() -> list[str]:
    """List the names of networks."""
    from nscontainer import networks

    with contextlib.suppress(Exception):
        return [network.name for network in networks.list()]
    return ["bridge"]


def _images() -> list[str]:
    """List the names of the store's images."""
    from nscontainer import images

    with contextlib.suppress(Exception):
        return [name for image in images.list() for name in image.names]
    return []


def _variables() -> list[str]:
    """List the notebook's variables that -i may name."""
    shell: Any = get_ipython()
    return variables.to_take(shell.user_ns, shell.user_ns_hidden)


def _sessions(words: list[str]) -> Iterable[str]:
    """List the sessions that a cell could run in, where its line may name one."""
    first = len(words) == 1 and not words[0].startswith("-")
    return _names(sessions=True) if first else ()


def _names(*, sessions: bool = False) -> list[str]:
    """List the containers' names, or only those of sessions that live."""
    if sys.platform != "linux":
        return []
    from nscontainer.engine.container import Container

    with contextlib.suppress(Exception):
        found = Container.list(all=not sessions)
        return [c.name for c in found if c.spec.session or not sessions]
    return []


def install(shell: InteractiveShell) -> None:
    """Add the matcher to a shell's completer."""
    remove(shell)
    shell.Completer.custom_matchers.append(matcher)


def remove(shell: InteractiveShell) -> None:
    """Take it away again."""
    found = shell.Completer.custom_matchers
    found[:] = [m for m in found if getattr(m, "matcher_identifier", None) != "nscontainer"]
