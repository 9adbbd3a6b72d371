"""The last step of a container's first process: it becomes the user's code."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING, Final, NoReturn

from nscontainer.errors import CommandError, SpecError
from nscontainer.image.host import OWN
from nscontainer.linux import prctl
from nscontainer.linux.syscalls import close_range

if TYPE_CHECKING:
    from nscontainer.engine.init import InitPlan

CHANNEL_FD: Final = 3
RUNNER: Final = f"{OWN}/runner"
IMAGES_PYTHON: Final = "python3"
"""What a cell runs under in an image that is not this machine's system."""


def check_python(image: str, environment: dict[str, str]) -> None:
    """Make sure that a cell has an interpreter to run under, while there is nothing to be undone.

    Raises
    ------
    SpecError
        The image has none in its PATH.
    """
    for directory in environment.get("PATH", os.defpath).split(":"):
        place = f"{directory or '.'}/{IMAGES_PYTHON}"
        if os.access(place, os.X_OK) and os.path.isfile(place):
            return
    message = f"image {image!r} has no python3 to run a cell with"
    raise SpecError(message, hint="--sh runs shell lines in it; or an image as python:3.12-slim")


def become_user_code(plan: InitPlan) -> int:
    """Run the cell and give its exit code, or become the program and never return."""
    python = plan.environment.pop("NSCONTAINER_PYTHON", IMAGES_PYTHON)
    if plan.run_cell is not None:
        os.environ.clear()
        os.environ.update(plan.environment)
        plan.sync.close()
        if plan.spec.init:
            _split_off_command(tty=plan.spec.tty)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as in any Python
            signal.signal(number, signal.SIG_IGN)
        prctl.set_name("python3")
        # The cell's own processes may look at one another, as any user's may.
        prctl.set_dumpable(True)
        assert plan.channel is not None
        return plan.run_cell(socket.socket(fileno=plan.channel))
    argv = list(plan.spec.command or ())
    if not argv:  # a cell's cold start: the runner, read-only in the container
        # Of another image's own interpreter the variables count: PYTHONPATH may be in its ENV.
        isolated = ["-I"] if python != IMAGES_PYTHON else []
        argv = [python, *isolated, RUNNER, str(CHANNEL_FD)]
    if plan.spec.init:
        _split_off_command(tty=plan.spec.tty)
    return execute(argv, plan.environment)


def _split_off_command(*, tty: bool) -> None:
    """With ``--init``: stay as a process that reaps and forwards signals; the child goes on.

    The child has a process group of its own, so that what is sent to the first process's group
    reaches it once; at a terminal it must stay in the foreground, whose Ctrl-C it gets by itself.
    """
    child = os.fork()
    if child == 0:
        if not tty:
            os.setpgid(0, 0)
        return

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
    signal.signal(signal.SIGINT, signal.SIG_IGN if tty else forward)
    close_range(CHANNEL_FD)
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            os._exit(125)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def execute(argv: list[str], environment: dict[str, str]) -> NoReturn:
    """Replace this process by a program, found in the container's PATH.

    Raises
    ------
    CommandError
        Docker's 127 where it is not found, 126 where it can't be executed.
    """
    name = argv[0]
    path = environment.get("PATH", os.defpath)
    candidates = [name] if "/" in name else [f"{d or '.'}/{name}" for d in path.split(":")]
    refused: OSError | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, argv, environment)  # noqa: S606 - what a container is for
        except (FileNotFoundError, NotADirectoryError) as error:
            if "/" in name and os.path.lexists(candidate):
                refused = error  # it is there: what is missing is its interpreter
        except OSError as error:
            refused = error
    if refused is None:
        message = f"command {name!r} not found in the container"
        raise CommandError(message, exit_code=127)
    reason = refused.strerror
    if isinstance(refused, FileNotFoundError):
        reason = "its interpreter is not there"
    message = f"command {name!r} can't be executed: {reason}"
    raise CommandError(message, exit_code=126)
