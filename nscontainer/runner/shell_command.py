"""``!command``: a shell command whose output is the cell's own."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import subprocess
import sys
import termios


def run_shell_command(command: str) -> int:
    """Run a line of shell, writing its output to ``sys.stdout`` as it comes.

    It gets a terminal where there is one to be had, so that programs print line by line.

    Returns
    -------
    int
        The exit code; minus the signal's number where one ended it.
    """
    read, write = _terminal() or os.pipe()
    try:
        child = subprocess.Popen(  # noqa: S602  # a shell is what was asked for
            command, shell=True, stdin=subprocess.DEVNULL, stdout=write, stderr=write
        )
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    try:
        _relay(read)
        code = child.wait()
    except BaseException:  # an interrupt ends the command too, and then the cell
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT)
        try:
            child.wait(0.5)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            child.kill()
            child.wait()
        raise
    finally:
        os.close(read)
    return 128 - code if code > 128 else code


def _relay(fd: int) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:  # EIO: the terminal's last user has gone
            break
        if not data:
            break
        sys.stdout.write(decoder.decode(data))
    sys.stdout.write(decoder.decode(b"", final=True))


def _terminal() -> tuple[int, int] | None:
    """Open a pseudo-terminal that passes output on as it is, where there are any."""
    try:
        master, slave = os.openpty()
    except OSError:
        return None
    settings = termios.tcgetattr(slave)
    settings[1] &= ~termios.OPOST  # no carriage return before each newline
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    return master, slave
