"""The run options: one table, Docker's names, errors of one line."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

import pytest

from nscontainer import options, spec
from nscontainer.errors import SpecError


def parser(*, magic: bool = False) -> options.Parser:
    made = options.Parser(prog="nscontainer run")
    options.add_to(made, magic=magic)
    return made


def kwargs(*argv: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    return options.to_build_kwargs(parser().parse_args(list(argv)), environ=environ)


def test_every_option_is_an_argument_of_build() -> None:
    """No option of the table is silently dropped: build takes all but the front end's own."""
    known = {*inspect.signature(spec.build).parameters, *spec.LIMIT_OPTIONS}
    translated = {"env_file", "security_opt", "privileged"}
    for option in options.OPTIONS:
        if option.front or option.dest in translated or option.dest.startswith("share_"):
            continue
        assert option.dest in known, option.flags


def test_flags_are_unique_and_help_is_percent_safe() -> None:
    """argparse refuses a flag given twice; formatting the help proves every % is doubled."""
    for magic in (False, True):
        text = parser(magic=magic).format_help()
        assert "20%" in text
        assert "20%%" not in text
        assert "--privileged" not in text
    flags = [flag for option in options.OPTIONS for flag in option.flags]
    assert len(flags) == len(set(flags))


def test_a_magic_has_no_terminal_options() -> None:
    """-t, -d and -i make no sense in a cell and are unknown there."""
    for flag in ("-t", "-d", "-i", "--rm", "--usage"):
        with pytest.raises(SpecError, match="is not an option"):
            parser(magic=True).parse_args([flag])


def test_dockers_forms_build_a_spec() -> None:
    """A docker run habit works unchanged, down to the spec."""
    made = spec.build(
        ["true"],
        **kwargs(
            *"--cpus 1.5 -m 256m --memory-swap -1 --pids-limit 50 --cpuset-cpus 0 -c 512".split(),
            *"--ulimit nofile=64 --ulimit core=0:0 -e A=1 -w /tmp -u 1:1 --hostname box".split(),
            *"--net host --userns host --pid host --cap-add NET_RAW --cap-drop ALL".split(),
            *"--security-opt seccomp=unconfined --read-only -v /usr:/b:ro --tmpfs /x:size=1M".split(),
            *"--init --stop-signal INT --sample 5ms --cpu-time 3s --timeout 1m --image host".split(),
        ),
    )
    assert made.limits.cpus == 1.5
    assert made.limits.memory_bytes == 256 << 20
    assert made.limits.memory_swap_bytes == -1
    assert (made.limits.pids, made.limits.cpu_shares) == (50, 512)
    assert [u.name for u in made.limits.ulimits] == ["nofile", "core"]
    assert made.env == (("A", "1"),)
    assert made.host_namespaces == {"net", "user", "pid"}
    assert made.seccomp == "unconfined"
    assert made.read_only
    assert made.init
    assert [m.type for m in made.mounts] == ["bind", "tmpfs"]
    assert (made.sample_s, made.limits.timeout_s, made.limits.cpu_time_s) == (0.005, 60, 3)


def test_what_is_not_given_is_left_out() -> None:
    """The spec's own defaults hold: nothing is passed that was not asked for."""
    assert kwargs() == {}
    assert kwargs("--name", "x", "-d", "-q") == {}


def test_env_as_docker(tmp_path: Path) -> None:
    """Files first, then -e; a bare NAME is the caller's value, or unset where it has none."""
    file = tmp_path / "env"
    file.write_text("# a comment\n\nA=file\n  B=two words \nC\nGONE\n", encoding="utf-8")
    given = kwargs(
        "--env-file", str(file), "-e", "A=flag", "-e", "D=x=y", "-eE=", "-e", "NOPE",
        environ={"C": "caller"},
    )  # fmt: skip
    assert given["env"] == {"A": "flag", "B": "two words ", "C": "caller", "D": "x=y", "E": ""}


def test_env_file_missing(tmp_path: Path) -> None:
    """A file that isn't there is named in one line."""
    with pytest.raises(SpecError, match=r"env-file .*none.* can't be read: No such file"):
        kwargs("--env-file", str(tmp_path / "none"))


def test_relative_volume(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """./data and ~ are resolved, for a magic has no shell that would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "x").touch()
    assert kwargs("-v", "./data:/data:ro", "-v", "~/x:/x")["volumes"] == [
        f"{tmp_path}/data:/data:ro",
        f"{tmp_path}/x:/x",
    ]
    with pytest.raises(SpecError, match=r"there is no .*/none"):
        kwargs("-v", "./none:/x")


def test_shares_add_up() -> None:
    """--share and Docker's own forms mean the same; private is the default said aloud."""
    given = kwargs("--share", "uts,ipc", "--pid", "host", "--userns", "private")
    assert given == {"share": ["uts", "ipc", "pid"]}


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["--memry", "5"], "--memry is not an option", "did you mean --memory?"),
        (
            ["--gpus", "all"],
            "Docker's option --gpus has no counterpart",
            "a container has Docker's",
        ),
        (["--mem", "1G"], "--mem is not an option", "did you mean --memory?"),
        (["--cpu"], "argument --cpu/--cpus: expected one argument", "see nscontainer run --help"),
        (["--pid", "container:x"], "argument --pid: invalid choice", "see nscontainer run"),
        (["surplus"], "'surplus' is one argument too many", "see nscontainer run --help"),
    ],
)
def test_errors_are_one_line(argv: list[str], message: str, hint: str) -> None:
    """What was wrong, and the closest thing that would not be."""
    with pytest.raises(SpecError) as caught:
        parser().parse_args(argv)
    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize("argv", [["--privileged"], ["--security-opt", "label=disable"]])
def test_what_would_weaken_the_isolation_is_refused(argv: list[str]) -> None:
    """An option that can't be honoured is never ignored."""
    with pytest.raises(SpecError, match="is not supported"):
        kwargs(*argv)


def test_no_new_privileges_is_accepted() -> None:
    """It is always so here, so asking for it changes nothing."""
    assert kwargs("--security-opt", "no-new-privileges:true") == {}


@pytest.mark.parametrize(
    ("argv", "before", "command"),
    [
        ("echo -n --cpu 5", "", "echo -n --cpu 5"),
        ("--cpu 20% echo --cpu", "--cpu 20%", "echo --cpu"),
        ("--cpu=20% --rm -- -odd", "--cpu=20% --rm", "-odd"),
        ("-it -eA=1 -e B=2 -m256M sh -c x", "-it -eA=1 -e B=2 -m256M", "sh -c x"),
        ("-ite A=1 sh", "-ite A=1", "sh"),
        ("--memory-swap -1 sh -- x", "--memory-swap -1", "sh -- x"),
        ("-- sh -- x", "", "sh -- x"),
        ("--rm", "--rm", ""),
        ("- x", "", "- x"),
    ],
)
def test_split_command(argv: str, before: str, command: str) -> None:
    """As in Docker the first non-option starts the command, whose options stay its own."""
    assert parser().split_command(argv.split()) == (before.split(), command.split())


def test_split_command_unknown() -> None:
    """An unknown option before the command is an error, not the command."""
    with pytest.raises(SpecError, match="-Z is not an option"):
        parser().split_command(["-iZ", "sh"])
    with pytest.raises(SpecError, match="--bogus is not an option"):
        parser().split_command(["--bogus=1", "sh"])


def test_only_the_limits() -> None:
    """`update` offers the limits alone."""
    made = options.Parser(prog="update")
    options.add_to(made, magic=False, groups=["limits"])
    assert made.parse_args(["--cpu", "10%"]).cpu == "10%"
    with pytest.raises(SpecError):
        made.parse_args(["--read-only"])


def test_plain_argparse_takes_the_table_too() -> None:
    """IPython's MagicArgumentParser is a plain ArgumentParser: add_to needs no more."""
    plain = argparse.ArgumentParser(allow_abbrev=False)
    options.add_to(plain, magic=True)
    assert plain.parse_args(["--cpu", "10%,20%"]).cpu == "10%,20%"
