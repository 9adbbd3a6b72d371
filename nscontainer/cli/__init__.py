"""The command line: ``nscontainer run`` and its siblings, under Docker's names and exit codes.

Only the sub-command that was asked for is loaded: starting a container must not wait for what a
table or a diagnosis needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from nscontainer.errors import CommandError, EngineError, NotFoundError, NsContainerError, SpecError

ENGINE_ERROR: Final = 125
"""Docker's exit code where the command itself never ran: an error of usage, or of the engine."""

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "run": ("run", "run a command in a fresh container"),
    "sweep": ("sweep", "run a command at each level of a limit, compare"),
    "history": ("history", "list the sweeps that are kept; of an IMAGE, what made it"),
    "rerun": ("history", "run an exported sweep again here, show both side by side"),
    "build": ("build", "build an image from a Dockerfile"),
    "create": ("create", "make a session, for notebook cells to run in one after another"),
    "ps": ("manage", "list containers"),
    "exec": ("execute", "run another command in a running container"),
    "cp": ("copy", "copy files into or out of a running container"),
    "logs": ("manage", "print what a detached container printed"),
    "top": ("manage", "list the processes of a container"),
    "stats": ("stats", "show what containers use, live"),
    "update": ("manage", "change limits while it runs"),
    "pause": ("manage", "freeze every process of a container"),
    "resume": ("manage", "let a paused container go on (also: unpause)"),
    "kill": ("manage", "kill a container, or send it a signal"),
    "stop": ("manage", "ask a container to end, kill it after a while"),
    "wait": ("manage", "wait until a container has ended, print its exit code"),
    "rm": ("manage", "remove a container"),
    "rename": ("manage", "give a container another name"),
    "inspect": ("manage", "print all that is known of a container or an image, as JSON"),
    "port": ("networks", "print the ports of the host that lead to a container"),
    "network": ("networks", "make, list, inspect and remove networks: create, ls, inspect, rm"),
    "images": ("images", "list images"),
    "pull": ("image_transfer", "get an image from a registry"),
    "push": ("image_transfer", "send an image to a registry"),
    "load": ("image_transfer", "get images from an archive: docker's or OCI's"),
    "save": ("image_transfer", "write images into an archive: docker's or OCI's"),
    "import": ("image_transfer", "make an image of a root filesystem's tar"),
    "export": ("image_transfer", "write a container's or image's files as one tar"),
    "bootstrap": ("image_transfer", "make an image of a distribution's packages"),
    "commit": ("image_transfer", "make an image of what a container wrote"),
    "diff": ("image_transfer", "list what a container added, changed, deleted"),
    "layers": ("images", "show which layer each file comes from"),
    "tag": ("images", "give an image one more name"),
    "rmi": ("images", "remove names, and images that have none left"),
    "prune": ("images", "remove images that nothing needs"),
    "df": ("images", "show the space that images and containers take"),
    "doctor": ("diagnose", "try what this host can do, and say how to mend what is missing"),
    "setup": ("setup", "give an ordinary user what only root can give: cgroups, ids"),
    "ipython": ("ipython", "have the magics in every notebook, without %load_ext"),
    "gc": ("diagnose", "remove what a crash left"),
    "version": ("diagnose", "print versions"),
}
"""Sub-command: the module that has it, and what it does."""
_ALIASES: Final = {"unpause": "resume", "--version": "version", "-V": "version", "-v": "version"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The arguments after the program's name; ``sys.argv``'s by default.

    Returns
    -------
    int
        The exit code: the command's own for ``run`` and ``exec``, 128+n by signal n, 126 not
        executable, 127 not found; 125 for an error of usage or (``run``) of the engine, else 1.
    """
    _prepare_streams()
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    name = _ALIASES.get(arguments[0], arguments[0])
    try:
        code = _dispatch(name, arguments[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except NsContainerError as error:
        return fail(error, name)
    except BrokenPipeError:
        _silence_stdout()
        return 128 + 13
    except OSError as error:  # another user's state directory, a full disk
        place = f": {error.filename}" if error.filename else ""
        return fail(EngineError(f"{error.strerror or error}{place}"), name)
    except KeyboardInterrupt:
        return 128 + 2
    return code


def _dispatch(name: str, arguments: list[str]) -> int:
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    if name not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, 1)
        message = f"{name!r} is not a command"
        raise SpecError(
            message, hint=f"did you mean {close[0]}?" if close else "nscontainer --help lists them"
        )
    from importlib import import_module

    module = import_module(f"nscontainer.cli.{COMMANDS[name][0]}")
    try:
        return int(getattr(module, f"{name}_command")(arguments))
    except SystemExit as leave:  # argparse, after printing the help
        return leave.code if isinstance(leave.code, int) else 0


def fail(error: NsContainerError, name: str) -> int:
    """Print an error as one line on standard error; give the exit code for it."""
    from nscontainer.cli.text import error_line

    print(error_line(error), file=sys.stderr)
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(error, SpecError) or (name == "run" and not isinstance(error, NotFoundError)):
        return ENGINE_ERROR
    return 1


def overview() -> str:
    """Give the help that names the sub-commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: nscontainer COMMAND [options]",
            "",
            "Run commands in real Linux containers, hold them to limits, see what they used.",
            "",
            *lines,
            "",
            "nscontainer COMMAND --help says more, as nscontainer run --help.",
            "  nscontainer run --cpu 20% --memory 256M -- python3 script.py",
        ]
    )


def _prepare_streams() -> None:
    """Have descriptors 0 to 2 open, and a text that the terminal's encoding lacks escaped.

    A descriptor closed by the caller (``nscontainer run … >&-``) would else become one of the
    engine's sockets, and the container's output would be written into that.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    """Point standard output at nothing, or the interpreter's last flush complains again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
