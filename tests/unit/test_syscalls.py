"""The raw system calls' wrappers."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from nscontainer.linux import syscalls


def test_openat2_asks_again_after_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """EAGAIN (a rename or mount somewhere, while ``..`` was resolved) is no error; another errno is at once."""
    real, answers = syscalls.syscall, [errno.EAGAIN, errno.EAGAIN]

    def raced(number: int, op: str, *args: Any, path: str = "") -> int:
        if answers:
            raise syscalls.KernelError(answers.pop(0), op, path)
        return real(number, op, *args, path=path)

    monkeypatch.setattr(syscalls, "syscall", raced)
    fd = syscalls.openat2(-100, "/", os.O_PATH, 0)
    os.close(fd)
    assert not answers
    answers.extend([errno.EPERM, errno.EPERM])
    with pytest.raises(syscalls.KernelError) as caught:
        syscalls.openat2(-100, "/", os.O_PATH, 0)
    assert (caught.value.errno, len(answers)) == (errno.EPERM, 1)
