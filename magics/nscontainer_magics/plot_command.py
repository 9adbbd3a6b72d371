"""``%container plot``: a result or a sweep as a picture, or several results on one clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from nscontainer import options
from nscontainer.errors import SpecError

if TYPE_CHECKING:
    import argparse

    from nscontainer.measure.result import RunResult

USAGE: Final = "[-k net] NAME…, or SWEEP [speed]"
SUMMARY: Final = "draw results on one clock, or a sweep"
KINDS: Final = ("overview", "cpu", "throttling", "memory", "io", "iops", "net", "psi")
SWEEP_KINDS: Final = ("quota", "speed", "throttling", "memory", "ecdf", "heatmap", "scaling")


def plot(words: list[str], variables: Mapping[str, Any]) -> None:
    """Draw what the named variables of the notebook have.

    Raises
    ------
    SpecError
        One has no result, or what was asked can't be drawn.
    """
    parser = options.Parser(prog="%container plot", add_help=False)
    parser.add_argument("names", metavar="NAME", nargs="+")
    parser.add_argument("-k", "--kind", choices=sorted({*KINDS, *SWEEP_KINDS}))
    parser.add_argument("--by")
    parser.add_argument("--metric")
    given = parser.parse_args(words)
    found = [name for name in given.names if _is_sweep(variables.get(name))]
    if found:
        _plot_sweep(found[0], given, variables)
        return
    if given.kind is not None and given.kind not in KINDS:
        message = f"{given.kind!r} is a picture of a sweep, and {given.names[0]!r} has a run"
        raise SpecError(message, hint=f"one of {', '.join(KINDS)}")
    if given.by is not None or given.metric is not None:
        message = f"{'--by' if given.by is not None else '--metric'} is for the picture of a sweep"
        raise SpecError(message, hint="%container plot SWEEP speed")
    results = {name: _result(name, variables) for name in given.names}
    if len(results) == 1:
        (result,) = results.values()
        result.plot(given.kind or "overview")
        return
    from nscontainer.several import Together

    Together(**results).plot(given.kind or "cpu")


def _plot_sweep(name: str, given: argparse.Namespace, variables: Mapping[str, Any]) -> None:
    """Draw a sweep: ``%container plot s speed``."""
    rest = [word for word in given.names if word != name]
    kinds = [*rest, *([] if given.kind is None else [given.kind])]
    if len(kinds) > 1:
        message = f"{kinds[1]!r} is one too many beside the sweep {name!r}"
        raise SpecError(message, hint="one sweep in one picture: %container plot s speed")
    kind = kinds[0] if kinds else None
    if kind is not None and kind not in SWEEP_KINDS:
        message = f"{kind!r} is no picture of a sweep"
        raise SpecError(message, hint=f"one of {', '.join(SWEEP_KINDS)}")
    more = {"by": given.by, "metric": given.metric}
    more = {key: value for key, value in more.items() if value is not None}
    variables[name].plot(*([] if kind is None else [kind]), **more)


def _is_sweep(value: Any) -> bool:
    from nscontainer.experiment.sweep import Sweep
    from nscontainer_magics.sweep_background import BackgroundSweep

    return isinstance(value, (Sweep, BackgroundSweep))


def names(variables: Mapping[str, Any]) -> list[str]:
    """List the variables that have a result or a sweep."""
    shown = {name: value for name, value in variables.items() if not name.startswith("_")}
    return [name for name, value in shown.items() if _is(value) or _is_sweep(value)]


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
