"""``nscontainer sweep``: a command at each level of what is varied, and what came of it as a table."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from nscontainer import options, sweep_options
from nscontainer.cli.engine import explained
from nscontainer.cli.run import check_writable, is_here
from nscontainer.cli.text import error_line, printable, shorten, table
from nscontainer.errors import CommandError, SpecError, one_line
from nscontainer.experiment import rows as experiment_rows
from nscontainer.experiment import words
from nscontainer.units import format_seconds

if TYPE_CHECKING:
    from pandas import DataFrame

    from nscontainer.experiment.progress import Progress
    from nscontainer.experiment.sweep import Sweep

KINDS: Final = ("quota", "speed", "throttling", "memory", "ecdf", "heatmap", "scaling")
INTERRUPTED: Final = 128 + 2
_GROUPS: Final[tuple[options.Group, ...]] = (
    "limits", "process", "filesystem", "isolation", "measuring",
)  # fmt: skip
_ENDINGS: Final = {"export": (".zip",), "csv": (".csv",), "plot": (".png", ".svg", ".pdf")}
_NEEDED: Final = {"export": "pyarrow", "csv": "pandas", "plot": "matplotlib"}
_TAIL_LINES: Final = 20
"""So much of a failed run's standard error is shown."""


def sweep_command(argv: Sequence[str]) -> int:
    """Parse, run all of it with a line of progress, print what came of it."""
    given, command = _parse(argv)
    kwargs = sweep_options.to_sweep_kwargs(given, options.to_build_kwargs(given))
    images = kwargs.get("image", "host")
    if "workdir" not in kwargs and all(
        is_here(image) for image in ([images] if isinstance(images, str) else images)
    ):
        with contextlib.suppress(FileNotFoundError):
            kwargs["workdir"] = os.getcwd()
    sweeps = import_module("nscontainer.sweeps")
    plan = sweeps.prepare(command, **kwargs)
    with _progress(shown=os.isatty(2) and not given.quiet) as show:
        try:
            with explained():
                done = sweeps.run_plan(
                    plan, resume=sweep_options.resumes(given), check=True, on_progress=show
                )
        except KeyboardInterrupt as interrupt:
            show(None)
            return _stopped(getattr(interrupt, "sweep", None))
        except CommandError as error:
            show(None)
            return _failed(error)
    _write(done, given)
    print(report(done, quiet=given.quiet))
    return 0


def parser() -> options.Parser:
    """Make the parser of ``sweep``'s options; the command is split off before."""
    made = options.Parser(
        prog="nscontainer sweep",
        usage="nscontainer sweep [options] [--] COMMAND [ARGUMENT…]",
        description="Run a command at each level of what is varied, again and again in random order, "
        "each in a fresh container, and compare. A list or a range in a limit, --image or --network "
        "is varied: --cpu 10%,20%,50% or 10%..100%:10%; --memory 64M..1G:x2; none is without it.",
    )
    sweep_options.add_to(made, magic=False)
    made.add_argument("-o", "--export", metavar="FILE.zip", help="keep all of it in one file")
    made.add_argument("--csv", metavar="FILE.csv", help="write a row a run")
    made.add_argument("--plot", metavar="FILE.png", help="draw it (also .svg, .pdf)")
    made.add_argument("--kind", choices=KINDS, help="what --plot draws (default: quota)")
    made.add_argument("-q", "--quiet", action="store_true", help="no progress, no warnings")
    options.add_to(made, magic=False, groups=_GROUPS)
    return made


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    made = parser()
    before, command = made.split_command(argv)
    given = made.parse_args(before)
    if not command and (given.image or "host") == "host" and not given.entrypoint:
        message = "there is no command to run"
        raise SpecError(message, hint="nscontainer sweep [options] -- COMMAND [ARGUMENT…]")
    if given.tty:
        raise SpecError("a sweep's runs have no terminal", hint="leave -t out")
    if given.kind and not given.plot:
        raise SpecError(
            "--kind says what --plot draws", hint=f"--plot FILE.png --kind {given.kind}"
        )
    for name in _ENDINGS:
        check_file(name, getattr(given, name))
    return given, command


def check_file(name: str, path: str | None) -> None:
    """Refuse a file that can't be written: in the end, after hours of runs, is too late.

    Raises
    ------
    SpecError
        One line.
    """
    if path is None:
        return
    from importlib.util import find_spec

    if os.path.splitext(path)[1].lower() not in _ENDINGS[name]:
        message = f"{name} file {path!r} has an ending of another format"
        raise SpecError(message, hint=f"end it in {' or '.join(_ENDINGS[name])}")
    check_writable(path)
    needed = _NEEDED[name]
    if find_spec(needed) is None:
        message = f"--{name} needs {needed}, which is not installed"
        raise SpecError(message, hint=f"pip install {needed}")


def _write(done: Sweep, given: argparse.Namespace) -> None:
    try:
        if given.export:
            done.export(given.export)
        if given.csv:
            done.summary.to_csv(given.csv)
        if given.plot:
            picture(lambda: done.plot(given.kind or "quota"), given.plot)
    except OSError as error:
        message = f"file {error.filename!r} can't be written: {error.strerror}"
        raise SpecError(
            message, hint=f"the runs are kept: nscontainer history lists {done.id}"
        ) from None


def picture(draw: Callable[[], Any], path: str) -> None:
    """Draw without a display, and write it."""
    import_module("matplotlib").use("Agg")
    axes = draw()
    figure = axes.figure if hasattr(axes, "figure") else next(iter(axes)).figure
    figure.savefig(path, dpi=150, bbox_inches="tight")


# --- while it runs ---------------------------------------------------------------------------


class _Line:
    """One line on standard error, written over again; nothing where nobody sees it."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._open = False

    def __call__(self, progress: Progress | None) -> None:
        """Show how far it is; None clears the line."""
        if not self._shown or (progress is None and not self._open):
            return
        text = "" if progress is None else shorten(printable(progress_text(progress)), _width() - 1)
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
        self._open = progress is not None


def _width() -> int:
    """Give the width of standard error's terminal: standard output may be a file."""
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80


@contextlib.contextmanager
def _progress(*, shown: bool) -> Iterator[_Line]:
    line = _Line(shown=shown)
    try:
        yield line
    finally:
        line(None)


def progress_text(progress: Progress) -> str:
    """Write how far a sweep is, in one line: ``7 of 20 · 12.3 s · 22.9 s left · cpu 20 %``."""
    parts = [f"{progress.done} of {progress.total}"]
    if progress.elapsed_s >= 1:
        parts.append(format_seconds(progress.elapsed_s))
    if progress.left_s:
        parts.append(f"{format_seconds(progress.left_s)} left")
    if progress.what:
        parts.append(progress.what)
    elif progress.point is not None:
        parts.append(experiment_rows.named(progress.sweep.plan, progress.point.index))
    return " · ".join(parts)


def _stopped(done: Sweep | None) -> int:
    if done is not None:
        # With --until there may be more of them than are planned.
        total = max(len(done.plan.points()) * done.plan.repeat, len(done))
        print(
            f"stopped after {len(done)} of {total} runs; the same command goes on from there",
            file=sys.stderr,
        )
    return INTERRUPTED


def _failed(error: CommandError) -> int:
    """Show why the first run failed: the rest would most likely fail alike."""
    result = getattr(error, "result", None)
    if result is not None:
        said = result.stderr_bytes.decode(errors="replace").splitlines()[-_TAIL_LINES:]
        for line in said:
            print(printable(line), file=sys.stderr)
    failed = CommandError(f"the first run failed: {error}", exit_code=error.exit_code)
    print(error_line(failed if result is not None else error), file=sys.stderr)
    return error.exit_code


# --- what came of it -------------------------------------------------------------------------


def report(done: Sweep, *, quiet: bool = False) -> str:
    """Give the tables of the levels, the warnings and where it is kept."""
    parts = [f"{len(done)} run{'s' * (len(done) != 1)}, kept as {done.id}"]
    metric = done.plan.metric
    varied = [factor.name for factor in done.plan.factors if len(factor.levels) > 1]
    try:
        parts += [compare_table(name, metric, done.compare(name)) for name in varied]
        if not varied and metric in done.summary:
            values = done.summary[metric].dropna()
            ends = [words.figure(metric, float(values.quantile(share))) for share in (0, 0.5, 1)]
            parts.append(f"{metric}: median {ends[1]}, from {ends[0]} to {ends[2]}")
    except SpecError as error:  # no run has the metric; they are kept nevertheless
        parts.append(f"nothing to compare: {printable(one_line(error))}")
    if not quiet and done.warnings:
        parts.append("\n".join(f"warning: {printable(w.message)}" for w in done.warnings))
    return "\n\n".join(parts)


def compare_table(factor: str, metric: str, frame: DataFrame) -> str:
    """Lay out a comparison: a row a level, its median and interval, and how it differs."""
    found: list[Any] = list(frame.itertuples())
    rows = [
        [
            str(row.label),
            str(row.n),
            words.figure(metric, row.median),
            words.between(metric, row.low, row.high),
            _times(row.relative),
            _between(row.relative_low, row.relative_high),
            str(row.verdict),
        ]
        for row in found
    ]
    head = [
        factor.upper().replace("_", " "),
        "RUNS",
        metric.upper(),
        "95 %",
        "RELATIVE",
        "95 %",
        "VERDICT",
    ]
    return table(head, rows)


def _times(value: Any) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3g} ×"


def _between(low: Any, high: Any) -> str:
    ends = _times(low), _times(high)
    return "–" if "–" in ends else f"{ends[0].removesuffix(' ×')} – {ends[1]}"
