"""Sessions in a real Jupyter kernel: cells by name, ■, two notebooks, a restart."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from nscontainer import Container
from tests.integration.inside import eventually
from tests.notebook import kernel as kernels
from tests.notebook.kernel import Kernel, fail, run

pytestmark = [pytest.mark.notebook, pytest.mark.root]


def test_a_session_from_create_to_rm(kernel: Kernel) -> None:
    """What the README shows: create, cells, update, exec, ps, rm; results, Tab, refusals."""
    assert "session lab" in run(kernel, "%container create lab --cpu 50% --memory 512M")
    run(kernel, "%%container lab -q -o first\nx = 20\nimport os")
    assert (
        run(kernel, "%%container lab -q -o r\nprint(x + 1)\nos.system('echo sub');") == "21\nsub\n"
    )
    assert run(kernel, "print(r.ok, r.start_mode, r.limits.asked.cpus)") == "True session 0.5\n"
    run(kernel, "%container update lab --cpu 100%")
    assert "lab" in kernel.complete("%%container la")
    assert "lab" in kernel.complete("%container stop l")
    assert "create" in kernel.complete("%container cr")
    assert "(session)" in str(kernel.run("%container ps").shown()[0])
    assert run(kernel, "%container exec lab -- cat /etc/hostname").strip()
    line = fail(kernel, "%%container lab --cpu 20%\nx")
    assert line.startswith("SpecError: --cpu is the whole session's, not a cell's")
    assert line.endswith("(%container update lab --cpu AMOUNT)")
    assert "resume lab" in (
        run(kernel, "%container pause lab") or fail(kernel, "%%container lab\nx")
    )
    run(kernel, "%container resume lab")
    run(kernel, "%container rm -f lab")
    assert fail(kernel, "%%container lab\nx").startswith(
        "StateError: session 'lab' has ended: killed"
    )


def test_stop_button(kernel: Kernel) -> None:
    """■ ends the cell, is shown as a KeyboardInterrupt, and the session goes on."""
    run(kernel, "%container create lab")
    run(kernel, "%%container lab -q\nx = 1")
    timer = threading.Timer(1.0, kernel.interrupt)
    timer.start()
    line = fail(kernel, "%%container lab -q\nimport time\ntime.sleep(30)")
    timer.join()
    assert line == "KeyboardInterrupt: interrupted"
    assert run(kernel, "%%container lab -q\nprint(x)") == "1\n"
    run(kernel, "%container rm -f lab")


def test_out_of_memory_is_one_line(kernel: Kernel) -> None:
    """The cell says that the session is gone, and the next one that it is."""
    run(kernel, "%container create small -m 64M")
    line = fail(kernel, "%%container small\nb = bytearray(200 << 20)")
    assert line.startswith("ContainerFailed: killed: out of memory at 64 MiB")
    assert line.endswith("session 'small' is gone")
    line = fail(kernel, "%%container small\n1")
    assert line.startswith("StateError: session 'small' has ended: killed: out of memory")
    assert line.endswith("(%container create small makes another)")


def test_a_detached_session_survives_a_restart(kernel: Kernel, engine: Path) -> None:
    """After a restart %%container NAME attaches by itself; a foreground session has gone."""
    run(kernel, "%container create kept --detach")
    run(kernel, "%container create lost")
    run(kernel, "%%container kept -q\nx = 'kept'")
    kernel.restart()
    assert run(kernel, "%%container kept -q\nprint(x)") == "kept\n"
    assert eventually(lambda: [c.name for c in Container.list(all=True)] == ["kept"])
    assert "no session 'lost'" in fail(kernel, "%%container lost\n1")
    with kernels.start(str(engine)) as other:
        line = fail(other, "%%container kept\n1")
        assert line.startswith(f"StateError: session 'kept' is in use by process {kernel.pid}")
    run(kernel, "%container rm -f kept")


def test_a_kernel_is_killed_in_the_middle_of_a_cell(kernel: Kernel) -> None:
    """The cell goes on to its end, which the next kernel is told of, with its output in the log.

    (A restart may interrupt the cell first: jupyter_client sends SIGINT before it kills a kernel.)
    """
    run(kernel, "%container create kept -d")
    run(kernel, "%%container kept -q\nx = 0")
    code = "%%container kept -q\nprint('go')\nimport time\ntime.sleep(4)\nprint('done')\nx = 1"
    kernel.client.execute(code)
    assert eventually(lambda: _printed(kernel, "go"), 10)
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.restart()
    cell = kernel.run("%%container kept -q\nprint(x)")
    if not cell.ok:  # a quick restart
        assert "still runs the cell of a notebook that went away" in cell.errors()[-1]
    assert eventually(lambda: kernel.run("%%container kept -q\nprint(x)").text() == "1\n", 10)
    assert run(kernel, "%container logs kept") == "done\n"
    run(kernel, "%container rm -f kept")


def _printed(kernel: Kernel, text: str) -> bool:
    message = kernel.client.get_iopub_msg(timeout=5)
    return message["msg_type"] == "stream" and text in message["content"]["text"]
