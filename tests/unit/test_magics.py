"""The magics without containers: the line, scripts, display, completion, failing.

The engine's edge is a fake ``api`` that runs the real cell runner in a process of its own.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from IPython.utils.capture import capture_output

from nscontainer import api, errors
from nscontainer.measure import RunResult
from nscontainer_magics import cell_line, commands, completion, failure, script
from nscontainer_magics.display import Display
from nscontainer_magics.magics import ContainerMagics
from tests.unit import factories
from tests.unit import runner_harness as harness

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

# --- the line --------------------------------------------------------------------------------


def test_a_line_becomes_build_options_and_our_own():
    """Options of the spec and of the magic are told apart; quoting is a shell's."""
    asked = cell_line.parse("--cpu 20% -m 1G -o r -q --name lab -e 'A=b c' --no-raise-error")
    assert asked == cell_line.CellLine(
        build={"cpu": "20%", "memory": "1G", "env": {"A": "b c"}},
        name="lab",
        output="r",
        quiet=True,
        raise_error=False,
    )
    assert cell_line.parse("") == cell_line.CellLine(build={})
    assert cell_line.parse("--help").help


@pytest.mark.parametrize(
    "line", ["--cpuu 1", "-o", "-o for", "-o a.b", "two words", "--cpu '1", "--uts sideways", "-Z"]
)
def test_a_bad_line_is_a_spec_error_of_one_line(line: str):
    """Whatever is wrong, it is one line that says what."""
    with pytest.raises(errors.SpecError) as caught:
        cell_line.parse(line)
    text = errors.one_line(caught.value)
    assert "\n" not in text
    assert caught.value.hint


def test_a_line_may_name_a_session():
    """A word is a session's name; with it go the options of a cell, and none of a container's."""
    assert cell_line.parse("lab -o r -q") == cell_line.CellLine(
        build={}, session="lab", output="r", quiet=True
    )


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("lab --cpu 20%", "--cpu is the whole session's", "%container update lab --cpu AMOUNT"),
        ("-m 1G lab", "--memory is the whole session's", "%container update lab --memory SIZE"),
        ("lab --timeout 9", "--timeout is the", "%container create lab --timeout TIME"),
        ("lab -e A=1", "--env is the", "%container create lab --env NAME[=VALUE]"),
        ("lab --read-only", "--read-only is the", "%container create lab --read-only"),
        ("lab --name x", "--name is the", "%container rename lab NEW"),
        ("lab --sh", "--sh is for a container of its own", "%container exec lab -- COMMAND"),
    ],
)
def test_what_is_a_whole_sessions_is_refused_on_a_cell(line: str, message: str, hint: str):
    """One line that names the command that does it."""
    with pytest.raises(errors.SpecError) as caught:
        cell_line.parse(line)
    assert str(caught.value).startswith(message)
    assert str(caught.value.hint).endswith(hint)


def test_help_shows_per_cent_signs_as_they_are():
    """What argparse needs doubled is single in the help."""
    text = cell_line.help_text()
    assert "usage: %%container [options]" in text
    assert "20%, 0.2" in text
    assert "%%," not in text


# --- scripts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "program"),
    [
        ("#!/bin/sh", ("/bin/sh",)),
        ("#! /usr/bin/perl -w -T ", ("/usr/bin/perl", "-w -T")),
        ("#!/usr/bin/env python3", ("/usr/bin/env", "python3")),
        ("# !/bin/sh", None),
        ("print(1)", None),
        ("", None),
    ],
)
def test_interpreter_lines_are_read_as_linux_does(first: str, program: tuple[str, ...] | None):
    """The program, and what follows as one argument."""
    assert script.interpreter(first + "\nrest") == program


@pytest.mark.parametrize("first", ["#!", "#!  ", "#!python3"])
def test_an_interpreter_line_that_names_none(first: str):
    """An empty or a relative one is refused."""
    with pytest.raises(errors.SpecError, match="names no interpreter"):
        script.interpreter(first)


def test_shells_get_the_cell_as_an_argument():
    """A shell's messages then have the cell's name; a line stands for the magic's."""
    made = script.make("echo 1", ("/bin/bash", "-eu"), name="Cell In[1]")
    assert made == script.Script(("/bin/bash", "-eu", "-c", "#\necho 1", "Cell In[1]"), None)


@pytest.mark.parametrize(
    ("program", "cell", "stdin"),
    [
        (("/bin/sh",), "x" * 200_000, "#\n" + "x" * 200_000),
        (("/usr/bin/perl", "-w"), "print 1", "#\nprint 1"),
        (("/usr/bin/python3.12",), "1", "#\n1"),
        (("/usr/bin/env", "-S node --x"), "1", "1"),
        (("/usr/bin/node",), "1", "1"),
    ],
)
def test_others_get_it_as_a_file_in_memory(program: tuple[str, ...], cell: str, stdin: str):
    """Long shell cells and other languages come by standard input, which is moved aside."""
    made = script.make(cell, program, name="Cell In[1]")
    assert made.stdin == stdin.encode()
    assert made.command[:2] == ("/bin/sh", "-c")
    assert made.command[4:] == program


def test_a_nul_character_is_refused():
    """No argument and no script can have one."""
    with pytest.raises(errors.SpecError, match="NUL"):
        script.make("a\0b", ("/bin/sh",), name="x")


# --- a shell, and the engine's edge faked -----------------------------------------------------


def _result(**changes: Any) -> RunResult:
    record = factories.record(**changes)
    return RunResult.from_record(record, b"", provenance=factories.host())


class FakeApi:
    """Runs the runner in a process of its own where a container would run it."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def run_cell(self, code: str, **options: Any) -> Any:
        """As :func:`nscontainer.api.run_cell`."""
        self.calls.append(options)
        request = {key: options[key] for key in ("filename", "line_offset", "colors", "width")}
        cell = harness.start(code, "zygote", **request)
        options["on_start"](self)
        self._cell = cell
        while (message := cell.read("")) is not None:
            options["on_message"](message)
        cell.finish()
        if cell.raw:
            options["on_stdout"](cell.raw)
        return _result(exit_code=cell.exit_code)

    def send(self, message: dict[str, Any]) -> None:
        """As :meth:`Container.send`."""
        self._cell.send(message["msg_type"], **message["content"])

    def run(self, command: tuple[str, ...], **options: Any) -> Any:
        """As :func:`nscontainer.api.run`."""
        self.calls.append({"command": command, **options})
        options["on_stdout"](b"\xc3")
        options["on_stdout"](b"\xa9\n")
        options["on_stderr"](b"\xff")
        return _result(exit_code=0)


@pytest.fixture
def shell(bare_shell: InteractiveShell) -> Iterator[InteractiveShell]:
    """A shell with the magics."""
    bare_shell.register_magics(ContainerMagics(bare_shell))
    completion.install(bare_shell)
    yield bare_shell
    completion.remove(bare_shell)
    harness.end_all()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """The engine's edge, faked."""
    made = FakeApi()
    monkeypatch.setattr(api, "run_cell", made.run_cell)
    monkeypatch.setattr(api, "run", made.run)
    return made


def _run(shell: InteractiveShell, code: str) -> tuple[Any, str, str, list[Any]]:
    """Run a cell; give its result, what it printed on both streams, and what it displayed."""
    with capture_output() as taken:
        result = shell.run_cell(code, store_history=True)
    return result, taken.stdout, taken.stderr, taken.outputs


def test_a_cell_through_the_real_runner(shell: InteractiveShell, fake: FakeApi):
    """Output, displays and the value of a cell come out in the shell, and then its card."""
    result, out, err, shown = _run(
        shell,
        "%%container --cpu 20% --name lab -o r\n"
        "import sys, os\nprint('out')\nprint('err', file=sys.stderr)\n"
        "os.write(1, b'raw')\ndisplay({'text/html': '<i>'}, raw=True)\n40 + 2",
    )
    assert result.success, result
    assert out.startswith("out\n")
    assert out.endswith("raw")
    assert err == "err\n"
    assert [s.data.get("text/html") or s.data["text/plain"] for s in shown[:2]] == ["<i>", "42"]
    assert len(shown) == 3
    assert "text/html" in shown[2].data
    (call,) = fake.calls
    assert (call["cpu"], call["name"], call["on_interrupt"]) == ("20%", "lab", "return")
    assert call["filename"] == f"Cell In[{shell.execution_count - 1}]"
    assert shell.user_ns["r"].stdout_bytes == b"raw"
    assert shell.run_line_magic("container", "last") is shell.user_ns["r"]


def test_an_error_is_shown_once_and_the_cell_fails(shell: InteractiveShell, fake: FakeApi):
    """The inner traceback with the editor's line numbers, then the one line of the outer error."""
    result, out, _, _ = _run(shell, "%%container -q\nx = 1\n1 / 0")
    assert isinstance(result.error_in_exec, failure.ContainerFailed)
    assert result.error_in_exec.exit_code == 1
    assert out.count("ZeroDivisionError: division by zero") == 1
    assert "line 3" in out
    assert out.rstrip().splitlines()[-1] == "ContainerFailed: exit code 1"


def test_no_raise_error(shell: InteractiveShell, fake: FakeApi):
    """With --no-raise-error the line goes to standard error."""
    result, _, err, _ = _run(shell, "%%container -q --no-raise-error\nimport sys; sys.exit(3)")
    assert result.success
    assert err == "ContainerFailed: exit code 3\n"


def test_input_is_asked_here(shell: InteractiveShell, fake: FakeApi, monkeypatch):
    """A question is asked by the notebook's own input(), and its failure is the cell's EOFError."""
    monkeypatch.setattr("builtins.input", lambda prompt: prompt + "me")
    assert _run(shell, "%%container -q\nprint(input('who? '))")[1] == "who? me\n"

    def nobody(_prompt: str) -> str:
        raise RuntimeError("this front end can't ask")

    monkeypatch.setattr("builtins.input", nobody)
    assert "EOFError: this front end can't ask" in _run(shell, "%%container -q\ninput()")[1]


def test_an_interrupt_while_asking_goes_to_the_engine(shell: InteractiveShell, monkeypatch):
    """An interrupt of the question reaches whoever handles interrupts meanwhile; no answer goes."""
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: noted.append(number))
    try:
        monkeypatch.setattr("builtins.input", lambda _prompt: signal.raise_signal(signal.SIGINT))
        Display(shell).message({"msg_type": "input_request", "content": {"prompt": "?"}})
    finally:
        signal.signal(signal.SIGINT, before)
    assert noted == [signal.SIGINT]


def test_scripts_are_run_as_commands(shell: InteractiveShell, fake: FakeApi):
    """--sh and #! run a command; bytes become text across message boundaries."""
    _, out, err, _ = _run(shell, "%%container --sh -q -o s\necho")
    assert (out, err) == ("é\n", "\ufffd")
    assert shell.user_ns["s"].stderr_bytes == b"\xff"
    _run(shell, "%%container -q\n#!/usr/bin/perl\nprint 1")
    assert [c["command"][0] for c in fake.calls] == ["/bin/sh", "/bin/sh"]
    assert fake.calls[1]["input"] == b"#\n#!/usr/bin/perl\nprint 1\n"
    assert fake.calls[0]["input"] is None
    assert fake.calls[0]["workdir"].startswith("/")


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"msg_type": "stream"},
        {"msg_type": "stream", "content": []},
        {"msg_type": "stream", "content": {"name": None, "text": 5}},
        {"msg_type": "display_data", "content": {"data": "x"}},
        {"msg_type": "display_data", "content": {"data": {}, "metadata": 1, "transient": []}},
        {"msg_type": "error", "content": {"traceback": 1, "ename": "a\0b"}},
        {"msg_type": "error", "content": {}},
        {"msg_type": "clear_output", "content": {}},
        {"msg_type": "__class__", "content": {}},
        {"msg_type": ["x"], "content": {}},
    ],
)
def test_odd_messages_break_nothing(shell: InteractiveShell, message: dict[str, Any]):
    """A container may send anything."""
    with capture_output():
        Display(shell).message(message)


def test_an_engine_error_is_one_line(shell: InteractiveShell, fake: FakeApi, monkeypatch):
    """What the engine raises is shown as one line with its hint."""

    def refuse(*_: Any, **__: Any) -> None:
        raise errors.StateError("the name is taken", hint="choose another")

    monkeypatch.setattr(api, "run_cell", refuse)
    result, out, _, _ = _run(shell, "%%container\n1")
    assert isinstance(result.error_in_exec, errors.StateError)
    assert out == "StateError: the name is taken (choose another)\n"


def test_interrupted_is_a_keyboard_interrupt():
    """An interrupted container is a KeyboardInterrupt of one line."""
    error = failure.Interrupted(_result(exit_code=130, interrupted=1))
    assert isinstance(error, KeyboardInterrupt)
    assert error._render_traceback_() == ["KeyboardInterrupt: interrupted"]


# --- %container and Tab -----------------------------------------------------------------------


def test_sub_commands_have_help_and_suggestions(capsys):
    """Help lists them all; a mistyped one gets a suggestion."""
    text = commands.help_text()
    assert max(map(len, text.splitlines())) <= 105  # what JupyterLab shows on a laptop
    assert all(f"  {name}" in text for name in commands.COMMANDS)
    commands.call([])
    commands.call(["kill", "--help"])
    assert "SIGNAL" in capsys.readouterr().out
    with pytest.raises(errors.SpecError, match="no sub-command") as caught:
        commands.call(["stast"])
    assert caught.value.hint == "did you mean stats?"
    with pytest.raises(errors.SpecError, match="'run' is no sub-command") as caught:
        commands.call(["run", "lab"])
    assert "%%container --image" in str(caught.value.hint)
    commands.call(["pull", "--help"])
    assert "--platform OS/ARCH" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["top"], ["kill"], ["ps", "x"], ["exec", "x"], ["update", "x"], ["rename", "x"], ["rm", "-q"]],
)
def test_sub_commands_say_what_they_lack(words: list[str]):
    """Missing and surplus arguments are one line, before the engine is asked."""
    with pytest.raises(errors.SpecError):
        commands.call(words)


def test_last_before_anything_ran(bare_shell: InteractiveShell):
    """%container last says that there is none yet."""
    with pytest.raises(errors.SpecError, match="no cell has run"):
        ContainerMagics(bare_shell).manage("last")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%%container --mem", {"--memory", "--memory-swap"}),
        ("%%container --cpu 20% --mem", {"--memory", "--memory-swap"}),
        ("%%container --network ", {"none", "host", "slirp4netns", "bridge"}),
        ("%%container --uts ", {"host", "private"}),
        ("%%container --seccomp un", {"unconfined"}),
        ("%container do", {"doctor"}),
        ("%container update x --cpu-q", {"--cpu-quota"}),
        ("%container rm -", {"-f"}),
        ("x = %container las", {"last"}),
        ("%container plo", {"plot"}),
        ("%container plot --kind n", {"net"}),
        ("%%container --volume ./", set()),
        ("%%containers --mem", set()),
        ("%container nosuch x", set()),
        ("print(1)\n%%container --mem", set()),
    ],
)
def test_completion(shell: InteractiveShell, text: str, expected: set[str]):
    """Tab completes what is ours and leaves the rest alone."""
    lines = text.split("\n")
    with_ours = completion.matcher(_context(text, len(lines) - 1, len(lines[-1])))
    assert {c.text for c in with_ours["completions"]} == expected


def test_plot_draws_results_by_their_variables(bare_shell: InteractiveShell):
    """One by itself, several on one clock; what has no result is said."""
    from matplotlib import pyplot as plt

    magics = ContainerMagics(bare_shell)
    bare_shell.user_ns |= {"a": factories.run(1), "b": factories.run(2), "n": 3}
    try:
        magics.manage("plot a")
        assert len(plt.gcf().axes) == 3
        magics.manage("plot a b")
        assert plt.gcf().axes[0].lines[0].get_label() == "a"
        magics.manage("plot --kind memory a b")
        for line, said in (
            ("plot n", "'n' is a int, no result"),
            ("plot nobody", "'nobody' is no variable"),
            ("plot -k psi a b", "'psi' is not known for several"),
            ("plot", "required: NAME"),
        ):
            with pytest.raises(errors.SpecError, match=said):
                magics.manage(line)
    finally:
        plt.close("all")
    text = "%container plot "
    matches = completion.matcher(_context(text, 0, len(text)))["completions"]
    assert {"a", "b", "--kind"} <= {c.text for c in matches} | {"a", "b"}


def _context(text: str, line: int, position: int) -> Any:
    from IPython.core.completer import CompletionContext

    token = text.rsplit(maxsplit=1)[-1]
    return CompletionContext(
        token=token, full_text=text, cursor_position=position, cursor_line=line, limit=None
    )


def test_loading_and_unloading(bare_shell: InteractiveShell, monkeypatch):
    """load_ipython_extension brings the magics once, unload takes all of it away."""
    import nscontainer
    from nscontainer.engine import spawner_client

    warmed: list[bool] = []
    monkeypatch.setattr(spawner_client, "warm", lambda *, cells: warmed.append(cells))
    shell = bare_shell
    matchers = list(shell.Completer.custom_matchers)
    for _ in range(2):
        nscontainer.load_ipython_extension(shell)
    assert len(shell.Completer.custom_matchers) == len(matchers) + 1
    assert shell.find_cell_magic("container") is not None
    nscontainer.unload_ipython_extension(shell)
    assert shell.find_cell_magic("container") is None
    assert shell.Completer.custom_matchers == matchers
    assert warmed == ([True, True] if sys.platform == "linux" else [])
