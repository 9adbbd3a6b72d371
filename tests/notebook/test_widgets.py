"""ipywidgets made in a container, in a real kernel; the test is the front end that moves them."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.inside import private_engine
from tests.notebook import kernel as kernels
from tests.notebook.kernel import TIMEOUT_S, Cell, Kernel

pytestmark = [pytest.mark.notebook, pytest.mark.root]

VIEW = "application/vnd.jupyter.widget-view+json"
Message = dict[str, Any]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel with a session, ``lab``; some tests restart it."""
    with private_engine(), kernels.start(str(tmp_path_factory.mktemp("notebook"))) as started:
        assert started.run("%container create lab").ok
        yield started


def lab(kernel: Kernel, code: str, name: str = "lab") -> Cell:
    """Run a cell in the session."""
    cell = kernel.run(f"%%container {name} -q\n{code}")
    assert cell.ok, cell.errors()
    return cell


def hear(kernel: Kernel, request: str) -> list[Message]:
    """Give what the kernel publishes for a request until it is idle again."""
    heard: list[Message] = []
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        try:
            message = kernel.client.get_iopub_msg(timeout=0.5)
        except queue.Empty:
            continue
        if message["parent_header"].get("msg_id") == request:
            if message["msg_type"] != "status":
                heard.append(message)
            elif message["content"]["execution_state"] == "idle":
                return heard
    raise TimeoutError(request)


def move(kernel: Kernel, comm_id: str, **state: Any) -> list[Message]:
    """Change a widget's state from the front end; give what comes of it."""
    return hear(kernel, kernel.tell(comm_id, state))


def of(heard: list[Message], kind: str) -> list[Message]:
    """Give the contents of the messages of a type."""
    return [message["content"] for message in heard if message["msg_type"] == kind]


def printed(heard: list[Message], name: str = "stdout") -> str:
    """Join a stream's text."""
    return "".join(c["text"] for c in of(heard, "stream") if c["name"] == name)


def show(kernel: Kernel, widget: str, name: str = "lab") -> str:
    """Show a widget of the session; give its comm's id, which its view names."""
    (view,) = lab(kernel, f"display({widget})", name).shown(VIEW)
    assert view["version_major"] == 2
    return str(view["model_id"])


def models(kernel: Kernel, cell: Cell) -> dict[str, str]:
    """Give the comms that a cell opened, by the name of their model."""
    return {c["data"]["state"]["_model_name"]: c["comm_id"] for c in cell.of("comm_open")}


SLIDER = "import ipywidgets as w\ns = w.IntSlider(value=3, max=50)\n"


def test_a_value_goes_round(kernel: Kernel) -> None:
    """Moved in the front end, a slider calls its handlers; the next cell sees its value."""
    opened = lab(kernel, SLIDER + "s.observe(lambda c: print(c['old'], '->', c['new']), 'value')")
    (slider,) = [c for c in opened.of("comm_open") if c["data"]["state"].get("value") == 3]
    assert slider["target_name"] == "jupyter.widget"
    comm_id = show(kernel, "s")
    assert comm_id == slider["comm_id"]
    heard = move(kernel, comm_id, value=7)
    assert printed(heard) == "3 -> 7\n"
    echo = of(heard, "comm_msg")[0]
    assert (echo["data"]["method"], echo["data"]["state"]) == ("echo_update", {"value": 7})
    assert lab(kernel, "print(s.value)").text() == "7\n"
    changed = lab(kernel, "s.value = 9").of("comm_msg")
    assert [(c["comm_id"], c["data"]["state"]) for c in changed] == [(comm_id, {"value": 9})]


def test_what_handlers_do(kernel: Kernel) -> None:
    """They print, show, draw, run commands, change other widgets, ask, and fail, as anywhere."""
    lab(
        kernel,
        "import ipywidgets as w, matplotlib.pyplot as plt\nb, t = w.IntText(), w.Text()\n"
        "def changed(change):\n    print('one')\n    display('two')\n    !echo three\n"
        "    t.value = 'four'\n    plt.plot([1])\n    1 / 0\nb.observe(changed, 'value')",
    )
    comm_id = show(kernel, "b")
    heard = move(kernel, comm_id, value=5)
    assert printed(heard) == "one\nthree\n"
    assert {"value": "four"} in [c["data"]["state"] for c in of(heard, "comm_msg")]
    shown = of(heard, "display_data")
    assert shown[0]["data"]["text/plain"] == "'two'"
    assert "image/png" in shown[-1]["data"]
    (error,) = of(heard, "error")
    assert error["ename"] == "ZeroDivisionError"
    assert lab(kernel, "print(b.value, t.value)").text() == "5 four\n"


def test_buffers_go_both_ways(kernel: Kernel) -> None:
    """An Image widget's bytes come out beside the message, those of the front end get in."""
    code = (
        "import ipywidgets as w\ni = w.Image(value=b'\\x89PNG\\x00\\xff')\n"
        "i.on_msg(lambda _, content, buffers: print(content, [bytes(b) for b in buffers]))"
    )
    request = kernel.client.execute(f"%%container lab -q\n{code}")
    (opened,) = [m for m in hear(kernel, request) if m["msg_type"] == "comm_open" and m["buffers"]]
    kernel.client.get_shell_msg(timeout=TIMEOUT_S)
    assert [bytes(buffer) for buffer in opened["buffers"]] == [b"\x89PNG\x00\xff"]
    assert opened["content"]["data"]["buffer_paths"] == [["value"]]
    comm_id = opened["content"]["comm_id"]
    custom = {"method": "custom", "content": {"event": "x"}}
    heard = hear(kernel, kernel.say(comm_id, custom, b"\0\1", b"two"))
    assert printed(heard) == "{'event': 'x'} [b'\\x00\\x01', b'two']\n"


def test_output_widgets_catch(kernel: Kernel) -> None:
    """Between the two updates of ``msg_id`` is what ``with out:`` catches, under the request's id."""
    code = "%%container -q\nimport ipywidgets as w\no = w.Output()\nprint('a')\nwith o:\n    print('b')\nprint('c')"
    request = kernel.client.execute(code)
    heard = hear(kernel, request)
    kernel.client.get_shell_msg(timeout=TIMEOUT_S)
    said = [
        m["content"]["text"]
        if m["msg_type"] == "stream"
        else m["content"]["data"]["state"]["msg_id"]
        for m in heard
        if m["msg_type"] in ("stream", "comm_msg")
    ]
    assert said == ["a\n", request, "b\n", "", "c\n"]


def test_interact(kernel: Kernel) -> None:
    """interact() calls its function at each move, its output in the Output widget."""
    cell = lab(
        kernel, "from ipywidgets import interact\n@interact(x=4)\ndef f(x):\n    print('x is', x)"
    )
    assert "x is 4" in cell.text()
    comm_id = models(kernel, cell)["IntSliderModel"]
    data = {"method": "update", "state": {"value": 6}, "buffer_paths": []}
    request = kernel.say(comm_id, data)
    heard = hear(kernel, request)
    assert printed(heard) == "x is 6\n"
    caught = [
        c["data"]["state"]["msg_id"]
        for c in of(heard, "comm_msg")
        if "msg_id" in c["data"]["state"]
    ]
    assert caught == [request, ""]
    assert of(heard, "clear_output") == [{"wait": True}]


def test_progress_in_order_with_the_rest(kernel: Kernel) -> None:
    """A bar's updates come between what is printed before and after; so does tqdm.notebook."""
    code = (
        "%%container -q\nimport ipywidgets as w\np = w.FloatProgress(max=2)\n"
        "for i in range(3):\n    p.value = i\n    print(i)\n"
    )
    order = [
        c["text"] if kind == "stream" else c["data"]["state"]["value"]
        for _, kind, c in kernel.run(code).messages
        if kind in ("stream", "comm_msg")
    ]
    assert order == ["0\n", 1.0, "1\n", 2.0, "2\n"]
    cell = kernel.run(
        "%%container -q\nfrom tqdm.notebook import tqdm\nfor i in tqdm(range(5)): pass"
    )
    assert cell.ok, cell.errors()
    (view,) = cell.shown(VIEW)
    assert view["model_id"] == models(kernel, cell)["HBoxModel"]
    bar = models(kernel, cell)["FloatProgressModel"]
    states = [c["data"]["state"] for c in cell.of("comm_msg") if c["comm_id"] == bar]
    assert {"value": 5.0} in states
    assert states[-1] == {"bar_style": "success"}


def test_a_widget_whose_container_has_ended(kernel: Kernel) -> None:
    """It stays as it is shown; moving it does nothing and says nothing; no page is told to ask it."""
    cell = kernel.run("%%container -q\n" + SLIDER + "s")
    (view,) = cell.shown(VIEW)
    assert cell.of("comm_close") == []
    assert move(kernel, view["model_id"], value=5) == []
    kernel.client.comm_info("jupyter.widget")
    listed = kernel.client.get_shell_msg(timeout=TIMEOUT_S)["content"]["comms"]
    assert view["model_id"] not in listed
    assert kernel.run("1").shown() == ["1"]


def test_a_widget_whose_session_has_ended(kernel: Kernel) -> None:
    """Removed, left by exit() in a cell or in a handler: the same."""
    for how in ("%container rm -f other", "%%container other -q\nexit()"):
        assert kernel.run("%container create other").ok
        lab(kernel, SLIDER, "other")
        comm_id = show(kernel, "s", "other")
        kernel.run(how)
        assert move(kernel, comm_id, value=5) == []
    assert kernel.run("%container create other").ok
    lab(kernel, SLIDER + "s.observe(lambda _: exit(3), 'value')", "other")
    comm_id = show(kernel, "s", "other")
    heard = move(kernel, comm_id, value=5)
    assert printed(heard, "stderr") == "session 'other' has ended: exit code 3\n"
    assert move(kernel, comm_id, value=6) == []


def test_closing(kernel: Kernel) -> None:
    """close() in the cell closes it in the front end; what comes for it then is let pass."""
    lab(kernel, SLIDER)
    comm_id = show(kernel, "s")
    assert comm_id in [c["comm_id"] for c in lab(kernel, "s.close()").of("comm_close")]
    lab(kernel, SLIDER)
    comm_id = show(kernel, "s")
    assert hear(kernel, kernel.say(comm_id, {}, kind="comm_close")) == []
    assert (
        lab(
            kernel,
            "import comm\nprint(len([c for c in comm.get_comm_manager().comms if c == s.model_id]))",
        ).text()
        == "0\n"
    )


def test_moved_while_a_cell_runs(kernel: Kernel) -> None:
    """In another thread, as a cell in the background: its end delivers what was moved meanwhile."""
    lab(kernel, SLIDER + "s.observe(lambda c: print('moved', c['new']), 'value')\nimport os, time")
    comm_id = show(kernel, "s")
    code = "while not os.path.exists('/tmp/go'): time.sleep(0.01)\\nprint('value', s.value)"
    run = f"get_ipython().run_cell_magic('container', 'lab -q', {code!r})".replace("\\\\n", "\\n")
    assert kernel.run(f"import threading\nt = threading.Thread(target=lambda: {run})\nt.start()").ok
    assert kernel.run(
        "import time\nfrom nscontainer_magics import session_commands as c\n"
        "one = next(one for one in c._held.values() if one.name == 'lab')\n"
        "while not one._attached._running.locked(): time.sleep(0.01)"
    ).ok
    for value in (10, 20, 30):
        assert move(kernel, comm_id, value=value) == []
    assert kernel.run("%container exec lab -- touch /tmp/go\n").ok
    joined = kernel.run("t.join()")
    assert joined.ok
    assert lab(kernel, "print(s.value)").text() == "30\n"


def test_an_answer_is_to_its_own_question(kernel: Kernel) -> None:
    """Asked while another thread's message is handled, a widget's state comes under its own request.

    Newer kernels get comm messages in threads (subshells), and a page that is loaded anew asks for
    all widgets' states at once: it waits for ever for an answer under another request's name.
    """
    lab(
        kernel,
        SLIDER + "import os, time\ndef wait(_):\n    while not os.path.exists('/tmp/now'):\n"
        "        time.sleep(0.01)\nb = w.IntText()\nb.observe(wait, 'value')",
    )
    slow, asked = show(kernel, "b"), show(kernel, "s")
    data = {"method": "update", "state": {"value": 1}, "buffer_paths": []}
    begun = kernel.run(
        f"import comm, threading, time\nfrom nscontainer_magics import session_commands\n"
        f"double, message = comm.get_comm_manager().comms[{slow!r}], {{'content': {{'data': {data}}}}}\n"
        "t = threading.Thread(target=double.handle_msg, args=(message,))\nt.start()\n"
        "one = next(one for one in session_commands._held.values() if one.name == 'lab')\n"
        "while not one._attached._running.locked(): time.sleep(0.01)"
    )
    assert begun.ok, begun.errors()
    request = kernel.say(asked, {"method": "request_state"})
    assert hear(kernel, request) == []
    kernel.client.execute("%container exec lab -- touch /tmp/now")
    kernel.client.get_shell_msg(timeout=TIMEOUT_S)
    said: list[Message] = []
    while not said or said[-1]["content"]["comm_id"] != asked:
        message = kernel.client.get_iopub_msg(timeout=TIMEOUT_S)
        said += [message] if message["msg_type"] == "comm_msg" else []
    assert said[-1]["parent_header"]["msg_id"] == request
    assert said[-1]["content"]["data"]["state"]["value"] == 3
    assert kernel.run("t.join()").ok


def test_stop_button_in_a_handler(kernel: Kernel) -> None:
    """■ is a KeyboardInterrupt in the handler, and the session goes on."""
    lab(
        kernel,
        "import ipywidgets as w\nb = w.IntText()\ndef loop(_):\n    print('go')\n    while True: pass\n"
        "b.observe(loop, 'value')",
    )
    comm_id = show(kernel, "b")
    data = {"method": "update", "state": {"value": 1}, "buffer_paths": []}
    request = kernel.say(comm_id, data)
    while "go" not in str(kernel.client.get_iopub_msg(timeout=TIMEOUT_S)["content"]):
        pass
    kernel.interrupt()
    (error,) = of(hear(kernel, request), "error")
    assert error["ename"] == "KeyboardInterrupt"
    assert lab(kernel, "print(b.value)").text() == "1\n"


def test_a_handler_that_takes_long(kernel: Kernel) -> None:
    """The notebook doesn't wait for ever: a line says so, and the next cells have the rest."""
    assert kernel.run("from nscontainer.engine import attached\nattached._HANDLER_S = 0.3").ok
    code = (
        "import ipywidgets as w, os, time\nb = w.IntText()\ndef long(_):\n"
        "    while not os.path.exists('/tmp/enough'): time.sleep(0.01)\n    print('through')\n"
        "b.observe(long, 'value')"
    )
    lab(kernel, code)
    comm_id = show(kernel, "b")
    told = printed(move(kernel, comm_id, value=1), "stderr")
    assert told.startswith("session 'lab': a widget's handler takes long and goes on")
    assert move(kernel, comm_id, value=2) == []
    assert kernel.run("attached._HANDLER_S = 60.0").ok
    assert kernel.run("%container exec lab -- touch /tmp/enough").ok
    assert (lab(kernel, "1").text() + lab(kernel, "1").text()).split() == ["through"] * 2
    assert lab(kernel, "print(b.value)").text() == "2\n"


def test_a_thread_of_the_session_goes_on(kernel: Kernel) -> None:
    """What a widget was set to between cells, the front end is told with the next one."""
    lab(
        kernel,
        "import ipywidgets as w, threading\np = w.FloatProgress()\ngo = threading.Event()\n"
        "def work():\n    go.wait()\n    time.sleep(0.3)\n    p.value = 42\n"
        "import time\nworker = threading.Thread(target=work)\nworker.start()",
    )
    comm_id = show(kernel, "p")
    assert lab(kernel, "go.set()").of("comm_msg") == []
    time.sleep(1)
    told = lab(kernel, "worker.join()").of("comm_msg")
    assert [c["data"]["state"]["value"] for c in told if c["comm_id"] == comm_id][-1] == 42.0


HOSTILE = {
    "another target": (
        "comm_open",
        {"comm_id": "x", "data": {}, "target_name": "evil"},
        [],
        "'evil'",
    ),
    "a comm of the notebook's": (
        "comm_open",
        {"comm_id": "mine", "data": {}, "target_name": "jupyter.widget"},
        [],
        "has a comm 'mine' already",
    ),
    "an id": (
        "comm_open",
        {"comm_id": ["x"], "data": {}, "target_name": "jupyter.widget"},
        [],
        "id",
    ),
    "a long id": (
        "comm_open",
        {"comm_id": "x" * 65, "data": {}, "target_name": "jupyter.widget"},
        [],
        "id",
    ),
    "data": (
        "comm_open",
        {"comm_id": "x", "data": 3, "target_name": "jupyter.widget"},
        [],
        "types",
    ),
    "buffers": (
        "comm_open",
        {"comm_id": "x", "data": {}, "target_name": "jupyter.widget"},
        ["*"],
        "base64",
    ),
}


@pytest.mark.parametrize("what", list(HOSTILE))
def test_what_is_refused(kernel: Kernel, what: str) -> None:
    """A line tells why; the cell goes on, and no comm of the notebook's is touched."""
    assert kernel.run("import comm\nmine = comm.create_comm(target_name='test', comm_id='mine')").ok
    kind, content, buffers, why = HOSTILE[what]
    code = f"%%container -q\nget_ipython().outbox.send({kind!r}, {content!r}, buffers={buffers!r})\nprint(1)"
    cell = kernel.run(code)
    assert cell.ok, cell.errors()
    assert cell.text() == "1\n"
    assert cell.text("stderr").startswith("a widget's message is not shown: ")
    assert why in cell.text("stderr")
    assert cell.of("comm_open") == []


def test_a_container_speaks_on_its_own_comms_only(kernel: Kernel) -> None:
    """Messages on the notebook's comms, or another container's, go nowhere."""
    assert kernel.run("import comm\nmine = comm.create_comm(target_name='test', comm_id='mine')").ok
    lab(kernel, SLIDER)
    theirs = show(kernel, "s")
    for comm_id in ("mine", theirs):
        for kind in ("comm_msg", "comm_close"):
            message = f"{{'comm_id': {comm_id!r}, 'data': {{'method': 'update', 'state': {{}}}}}}"
            cell = kernel.run(f"%%container -q\nget_ipython().outbox.send({kind!r}, {message})")
            assert cell.ok
            assert cell.of("comm_msg") == cell.of("comm_close") == []
    assert kernel.run("comm.get_comm_manager().comms['mine'] is mine").shown() == ["True"]
    assert of(move(kernel, theirs, value=8), "comm_msg")


def test_widgets_of_a_session_that_outlived_its_kernel(kernel: Kernel) -> None:
    """The next kernel's first cell in it opens their comms anew; they work as before."""
    assert kernel.run("%container create kept --detach").ok
    lab(kernel, SLIDER + "s.value = 11", "kept")
    before = show(kernel, "s", "kept")
    kernel.restart()
    assert show(kernel, "s", "kept") == before
    assert of(move(kernel, before, value=12), "comm_msg")
    assert lab(kernel, "print(s.value)", "kept").text() == "12\n"
    assert kernel.run("%container rm -f kept").ok
