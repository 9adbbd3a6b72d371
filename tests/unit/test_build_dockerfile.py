"""A Dockerfile's text: what is read, and what is refused in one line that says where."""

from __future__ import annotations

import pytest

from nscontainer.build import dockerfile
from nscontainer.build.dockerfile import parse, script_of
from nscontainer.errors import SpecError, one_line

EVERY = r"""# syntax=docker/dockerfile:1
# escape=\

# a comment
ARG BASE=debian
from $BASE:12 AS Build
RUN apt-get update && \
    # a comment between
    apt-get install -y \

      curl
RUN ["/bin/echo", "a b"]
ENV A=1 B="two words" \
    C=three\ words
ENV OLD the whole rest
COPY --from=build --chown=1:2 --chmod=0644 a b/ c/
COPY ["with space", "/d"]
CMD echo hi
"""


def kinds(text: str) -> list[str]:
    return [made.keyword for made in parse(text).instructions]


def test_every_form_is_read() -> None:
    """Comments and empty lines between continued ones go, forms and flags are told apart."""
    found = parse(EVERY).instructions
    assert [made.keyword for made in found] == [
        *("ARG", "FROM", "RUN", "RUN", "ENV", "ENV", "COPY", "COPY", "CMD")
    ]
    assert found[2].rest.split() == "apt-get update && apt-get install -y curl".split()
    assert found[3].exec_form() == ["/bin/echo", "a b"]
    assert found[4].pairs() == [("A", "1"), ("B", '"two words"'), ("C", r"three\ words")]
    assert found[5].pairs() == [("OLD", "the whole rest")]
    assert dict(found[6].flags) == {"from": "build", "chown": "1:2", "chmod": "0644"}
    assert found[6].words() == ["a", "b/", "c/"]
    assert found[7].words() == ["with space", "/d"]
    assert found[8].exec_form() is None
    assert [made.place for made in found[:3]] == ["Dockerfile:5", "Dockerfile:6", "Dockerfile:7"]


def test_another_escape() -> None:
    """With the directive a backtick joins lines, and a backslash at a line's end is only text."""
    found = parse("# escape=`\nFROM a\nRUN one `\n two\nRUN dir C:\\\n").instructions
    assert found[1].rest == "one  two"
    assert found[2].rest == "dir C:\\"


def test_an_escaped_backslash_joins_nothing() -> None:
    """Two backslashes at a line's end are one backslash of the command's."""
    assert kinds("FROM a\nRUN echo a\\\\\nRUN b") == ["FROM", "RUN", "RUN"]


def test_here_documents() -> None:
    """A bare one is the script, one after a command is its input; a quoted name means no variables."""
    text = (
        "FROM a\nRUN <<EOF\nset -e\necho $x\nEOF\n"
        "RUN cat <<'A' >/x && cat <<-B\n$y\nA\n\t\tz\n\tB\n"
        'RUN echo "<<NOT" $((1<<2))\nCOPY <<one <<"two" /etc/\n1\none\n2\ntwo\n'
    )
    bare, two, none, copy = parse(text).instructions[1:]
    assert script_of(bare) == "set -e\necho $x\n"
    assert [(h.name, h.content, h.expand) for h in two.heredocs] == [
        ("A", "$y\n", False),
        ("B", "z\n", True),
    ]
    assert script_of(two) == "cat <<'A' >/x && cat <<-B\n$y\nA\nz\nB\n"
    assert none.heredocs == ()
    assert [(h.name, h.content, h.expand) for h in copy.heredocs] == [
        ("one", "1\n", True),
        ("two", "2\n", False),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM a\nHEALTHCHECK CMD true", "Dockerfile:2: HEALTHCHECK isn't supported (nothing here"),
        ("FROM a\n\nONBUILD RUN x", "Dockerfile:3: ONBUILD isn't supported (write the instruction"),
        ("FROM a\nRUNN x", "Dockerfile:2: 'RUNN' is not an instruction (did you mean RUN?)"),
        ("FROM a\nRUN --mount=type=cache,target=/c x", "Dockerfile:2: RUN --mount isn't supported"),
        ("FROM a\nCOPY --link a b", "COPY --link isn't supported (leave it out"),
        ("FROM a\nCOPY a", "Dockerfile:2: COPY a has no destination"),
        ("FROM a\nCOPY a b c", "COPY of several sources to 'c': it must be a directory (write c/)"),
        ("FROM a\nADD https://x/y /", "ADD of a URL isn't supported: https://x/y (RUN curl"),
        ("FROM a\nENV A", "ENV A has no value"),
        ("FROM a\nENV A=1 B", "'B' is no NAME=value (quote a value that has spaces)"),
        ("FROM a\nSHELL /bin/bash", "SHELL /bin/bash is no JSON array"),
        ("FROM a b", "FROM 'a b' can't be read"),
        ("FROM a\nRUN", "Dockerfile:2: RUN needs an argument"),
        ("FROM a\nRUN []", "Dockerfile:2: RUN [] names no program"),
        ("FROM a\nRUN <<EOF\nx", "the text after <<EOF has no end"),
        ("FROM a\nRUN <<EOF\n#!/usr/bin/env python3\nEOF", "RUN python3 <<EOF"),
        ("FROM a\nRUN --network=bridge x", "network 'bridge' is not known (none or host)"),
        ("FROM a\nARG 1x", "'1x' can't be an ARG"),
        ("", "Dockerfile has no instructions (begin it with FROM)"),
        ("# escape=x\nFROM a", "escape 'x' can't be used"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, said: str) -> None:
    """Each error names the file, the line, the instruction, and what to do instead."""
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert said in one_line(caught.value)


def test_quoted_words() -> None:
    """White space in quotes or after a backslash splits nothing."""
    assert dockerfile.quoted_words("a 'b c' d\\ e \"f 'g\" ''") == [
        *("a", "'b c'", "d\\ e", '"f \'g"', "''")
    ]
