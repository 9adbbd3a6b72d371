"""``%container plot``: a result as a picture, or several on one clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from nscontainer import options
from nscontainer.errors import SpecError

if TYPE_CHECKING:
    from nscontainer.measure.result import RunResult

USAGE: Final = "[--kind net] NAME…"
SUMMARY: Final = "draw results, several on one clock"
KINDS: Final = ("overview", "cpu", "throttling", "memory", "io", "iops", "net", "psi")


def plot(words: list[str], variables: Mapping[str, Any]) -> None:
    """Draw what the named variables of the notebook have.

    Raises
    ------
    SpecError
        One has no result, or what was asked can't be drawn.
    """
    parser = options.Parser(prog="%container plot", add_help=False)
    parser.add_argument("names", metavar="NAME", nargs="+")
    parser.add_argument("-k", "--kind", choices=KINDS)
    given = parser.parse_args(words)
    results = {name: _result(name, variables) for name in given.names}
    if len(results) == 1:
        (result,) = results.values()
        result.plot(given.kind or "overview")
        return
    from nscontainer.several import Together

    Together(**results).plot(given.kind or "cpu")


def names(variables: Mapping[str, Any]) -> list[str]:
    """List the variables that have a result."""
    return [name for name, value in variables.items() if not name.startswith("_") and _is(value)]


def _is(value: Any) -> bool:
    from nscontainer.measure.result import RunResult
    from nscontainer_magics.background import BackgroundRun

    held = value.result if isinstance(value, BackgroundRun) else value
    return isinstance(held, RunResult)


def _result(name: str, variables: Mapping[str, Any]) -> RunResult:
    from nscontainer.measure.result import RunResult
    from nscontainer_magics.background import BackgroundRun

    value = variables.get(name)
    if isinstance(value, BackgroundRun):
        if value.result is None:
            message = f"{name} isn't over: {value.status}"
            raise SpecError(message, hint=f"{name}.wait() waits for it")
        value = value.result
    if not isinstance(value, RunResult):
        what = "is no variable" if value is None else f"is a {type(value).__name__}, no result"
        raise SpecError(f"{name!r} {what}", hint=f"begin a cell with %%container -o {name}")
    return value
