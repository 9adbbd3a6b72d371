"""What holds where a line says nothing: traits of ``ContainerMagics``, and ``%container defaults``.

``%config ContainerMagics.cpu = "50%"``, ``c.ContainerMagics.cpu`` in an ipython_config.py and
``%container defaults --cpu 50%`` all set the same trait. There is one for each option, by its name.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import shlex
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from IPython.core.getipython import get_ipython
from IPython.core.magic import Magics
from traitlets import Bool, TraitType

from nscontainer import options, spec, units
from nscontainer.errors import SpecError, one_line
from nscontainer.experiment import levels
from nscontainer.options import Option

_NOT_FOR_SESSIONS: Final = frozenset({"timeout", "cpu_time", "init", "unconfined"})
"""Of a session, these would be about all its cells together: it would end under the second one; or it has none."""
_SETTLED_BY: Final[Mapping[str, frozenset[str]]] = {
    "cpu": frozenset({"cpu_quota"}),
    "cpu_quota": frozenset({"cpu"}),
    "cpu_burst": frozenset({"cpu", "cpu_quota"}),
    "memory_swap": frozenset({"memory"}),
    "seccomp": frozenset({"security_opt"}),
    "security_opt": frozenset({"seccomp"}),
}
"""Besides itself, what on a line makes a default meaningless."""
_OF_A_NETWORK: Final = (
    "ip", "dns", "publish", "net_rate", "net_rx", "net_tx", "net_delay", "net_loss",
)  # fmt: skip
_NEEDS: Final[Mapping[str, Mapping[str, str]]] = {
    "cpu_burst": {"cpu": "8192", "cpu_period": "1000000"},
    "memory_swap": {"memory": "1M"},
    **{name: {"network": "bridge"} for name in _OF_A_NETWORK},
}
"""With what a value is checked that says nothing alone; it may be set before those are."""


def _name(option: Option) -> str:
    """Give an option's trait: its long name, with underscores."""
    return option.flag.removeprefix("--").replace("-", "_")


OPTIONS: Final[Mapping[str, Option]] = {
    _name(option): option
    for option in options.OPTIONS
    if option.magic and option.dest not in ("name", "privileged")
}
"""The options that have a default, by their traits' names."""


class OptionText(TraitType[Any, Any]):
    """An option's default as one writes it on a line; empty is none."""

    default_value = ""
    info_text = "a text, as on a %%container line"

    def __init__(self, option: Option) -> None:
        several = " (several: as one line, separated by spaces)"
        text = option.help.replace("%%", "%").replace(" (repeat)", several)
        super().__init__(help=text)
        self._option = option

    def validate(self, obj: object, value: Any) -> str:
        """Check as the line does, so that a wrong value is refused here and not by the next cell."""
        del obj
        if not isinstance(value, (str, int, float, type(None))):
            example = "A=1 B=2" if self._option.action == "append" else "50%"
            message = (
                f"ContainerMagics.{self.name}: {value!r} is not a text (write one, as {example!r})"
            )
            raise SpecError(message)
        text = "" if value is None else str(value).strip()
        if text:
            with _named(self.name):
                _check(self._option, text)
        return text


class Size(TraitType[Any, Any]):
    """How much a cell shows."""

    info_text = "a size, as 8M, or 0 or unlimited"

    def validate(self, obj: object, value: Any) -> str:
        """Check that it is a size."""
        del obj
        text = str(value).strip()
        with _named(self.name):
            units.parse_size(text, unlimited=True)
        return text


@contextlib.contextmanager
def _named(name: str | None) -> Iterator[None]:
    """Have an error say which trait it is about, and all in its text: %config shows no hint."""
    try:
        yield
    except SpecError as error:
        message = f"ContainerMagics.{name}: {one_line(error)}"
        raise SpecError(message) from None


def _traits(body: dict[str, Any]) -> None:
    for name, option in OPTIONS.items():
        flag = functools.partial(Bool, default_value=False, help=option.help.replace("%%", "%"))
        trait = OptionText(option) if option.takes_value else flag()
        body[name] = trait.tag(config=True)


if TYPE_CHECKING:
    _Options = Magics
else:
    _Options = types.new_class("_Options", (Magics,), exec_body=_traits)


class Settings(_Options):
    """The defaults, and what is about the notebook rather than the container."""

    if TYPE_CHECKING:
        quiet: bool

    shown_output = Size(
        "8M",
        help="how much a cell shows of each stream, but for its end; 0 or unlimited shows all",
    ).tag(config=True)
    live = Bool(
        default_value=True,
        help="show a live view of cells that run longer than two seconds",
    ).tag(config=True)

    @property
    def shown_bytes(self) -> int | None:
        """How many bytes of each stream a cell shows; None is all."""
        size = units.parse_size(self.shown_output, unlimited=True)
        return size if size > 0 else None

    def fill(self, given: argparse.Namespace, *, session: bool = False) -> None:
        """Put the defaults under what a line gave."""
        on_line = {dest for dest, value in vars(given).items() if value not in (None, False, [])}
        used: dict[str, Any] = {}
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            over = {option.dest} | _SETTLED_BY.get(option.dest, frozenset())
            if not value or over & on_line or (session and option.dest in _NOT_FOR_SESSIONS):
                continue
            used[name] = value
            setattr(given, option.dest, _value(option, value, on_line))
        if len(used) > 1:  # %config sets one after the other, and can't check them together
            try:
                _check_together(used)
            except SpecError as error:
                message = f"the defaults contradict each other: {one_line(error)}"
                raise SpecError(message, hint="%container defaults shows them") from None

    def shown(self) -> dict[str, Any]:
        """Give the defaults that are set, and the settings."""
        found = {name: getattr(self, name) for name in OPTIONS}
        found = {name: value for name, value in found.items() if value}
        return found | {"shown_output": self.shown_output, "live": self.live}

    def reset(self) -> None:
        """Take every default away, those of configuration files too."""
        for name in (*OPTIONS, "shown_output", "live"):
            setattr(self, name, self.traits()[name].default_value)


def _value(option: Option, value: Any, on_line: Iterable[str]) -> Any:
    """Give a default as the line's parser would have."""
    if option.action != "append":
        return value
    words = shlex.split(value)
    if option.dest == "share":  # --uts private on the line is about one of them
        names = [name for word in words for name in word.split(",")]
        return [name for name in names if f"share_{name}" not in on_line]
    return words


@functools.cache
def _line_parser() -> options.Parser:
    made = options.Parser(prog="%%container", add_help=False)
    options.add_to(made, magic=True)
    return made


def _check(option: Option, text: str) -> None:
    """Refuse what a line would refuse."""
    flag = option.flag
    if levels.is_list(option.dest, text):
        message = f"{flag} {text!r} is a list, and a default is one value"
        raise SpecError(message, hint="a list on a cell's own line makes it a sweep")
    try:
        words = shlex.split(text) if option.action == "append" else [text]
    except ValueError as error:
        message = f"{flag} {text!r} can't be read: {str(error).lower()}"
        raise SpecError(message, hint="close every quote") from None
    given = _line_parser().parse_args([f"{flag}={word}" for word in words])
    needs = _NEEDS.get(option.dest, {})
    spec.build(None, **{**needs, **options.to_build_kwargs(given)})


def _check_together(values: Mapping[str, Any]) -> None:
    """Refuse defaults that would have every cell refused, as memory_swap without memory."""
    set_ = {name: values[name] for name in OPTIONS if values.get(name)}
    given = {OPTIONS[name].dest: _value(OPTIONS[name], value, ()) for name, value in set_.items()}
    spec.build(None, **options.to_build_kwargs(argparse.Namespace(**given)))


def active() -> Settings | None:
    """Give the magics of the shell that runs, where they are loaded."""
    shell: Any = get_ipython()
    found = None if shell is None else shell.magics_manager.registry.get("ContainerMagics")
    return found if isinstance(found, Settings) else None


# --- %container defaults -----------------------------------------------------------------------


@functools.cache
def parser() -> options.Parser:
    """Make the parser of ``%container defaults``."""
    made = options.Parser(prog="%container defaults", add_help=False)
    made.add_argument("--reset", action="store_true")
    made.add_argument("--shown-output", metavar="SIZE")
    made.add_argument("--live", action=argparse.BooleanOptionalAction)
    options.add_to(made, magic=True)
    return made


def command(words: list[str]) -> dict[str, Any]:
    """Show the defaults, after setting those that are given: all of them, or where one is wrong none.

    Raises
    ------
    SpecError
        One line: the option, the value, how to mend it.
    """
    settings = active()
    if settings is None:
        message = "the magics aren't loaded here"
        raise SpecError(message, hint="%load_ext nscontainer")
    given = vars(parser().parse_args(words))
    if given["name"] is not None or given["privileged"]:
        flag = "--name" if given["name"] is not None else "--privileged"
        message = f"{flag} can't be a default"
        raise SpecError(message, hint="%container defaults? names what can")
    new: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        value = given[option.dest]
        if value not in (None, False, []):
            new[name] = shlex.join(value) if option.action == "append" else value
            if option.takes_value and new[name]:
                _check(option, new[name])
    if given["shown_output"] is not None:
        units.parse_size(given["shown_output"], unlimited=True)
    new |= {n: given[n] for n in ("shown_output", "live") if given[n] is not None}
    old = {} if given["reset"] else {name: getattr(settings, name) for name in OPTIONS}
    for one, other in (("cpu", "cpu_quota"), ("cpu_quota", "cpu")):
        if one in new and other not in new and old.get(other):
            new[other] = ""  # the newer of the two ways to say it
    if new:
        _check_together(old | new)
    if given["reset"]:
        settings.reset()
    for name, value in new.items():
        setattr(settings, name, value)
    return settings.shown()
