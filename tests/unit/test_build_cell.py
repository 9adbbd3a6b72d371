"""A cell of shell lines: where a command ends, and which lines are instructions."""

from __future__ import annotations

import pytest

from nscontainer.build import cell
from nscontainer.errors import SpecError, one_line


def steps(text: str) -> list[str]:
    return [made.text for made in cell.parse(text, "base").instructions[1:]]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("one\ntwo", ["RUN one", "RUN two"]),
        ("# no\n\n  one  \n", ["RUN one"]),
        ("one \\\n  two\nthree", ["RUN one \\\n  two", "RUN three"]),
        (
            "for x in 1 2; do\n  echo $x\ndone\nafter",
            ["RUN for x in 1 2; do\n  echo $x\ndone", "RUN after"],
        ),
        ("if a\nthen b\nfi", ["RUN if a\nthen b\nfi"]),
        ("f() {\n a\n}\n", ["RUN f() {\n a\n}"]),
        ("a &&\nb", ["RUN a &&\nb"]),
        ("a |\n\n b", ["RUN a |\n\n b"]),
        ("echo 'x\ny'", ["RUN echo 'x\ny'"]),
        ("cat > f <<EOF\nif x\nEOF\nb", ["RUN cat > f <<EOF\nif x\nEOF", "RUN b"]),
        (
            "for x in 1; do cat <<EOF\n done\nEOF\ndone",
            ["RUN for x in 1; do cat <<EOF\n done\nEOF\ndone"],
        ),
        ("a=(1 2)\nb", ["RUN a=(1 2)", "RUN b"]),
        ("case x in\n*) y;;\nesac", ["RUN case x in\n*) y;;\nesac"]),
        ("ENV A=1 \\\n B=2\nCOPY a \\\n # not\n b", ["ENV A=1  B=2", "COPY a  b"]),
        ("COPY <<X /f\ntext\nX\nrun", ["COPY <<X /f", "RUN run"]),
        ("RUN one", ["RUN one"]),
        ("ENVIRONMENT x", ["RUN ENVIRONMENT x"]),
    ],
)
def test_commands_are_kept_together(text: str, made: list[str]) -> None:
    """A shell says whether a command is whole; what no shell can read is one line."""
    assert steps(text) == made


def test_lines_are_counted_as_the_notebook_does() -> None:
    """The %%image line is the first."""
    found = cell.parse("one\n\nif a\nthen b; fi\nENV A=1", "base").instructions
    assert [made.place for made in found] == ["cell:1", "cell:2", "cell:4", "cell:6"]


def test_options_are_instructions() -> None:
    """-e, --user and --workdir come before the lines; nothing in a value is replaced."""
    found = cell.parse("x", "base", env={"A": 'a "$b" \\'}, user="me", workdir="/w").instructions
    assert [made.keyword for made in found] == ["FROM", "ENV", "USER", "WORKDIR", "RUN"]
    assert found[1].rest == 'A="a \\"\\$b\\" \\\\"'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the cell is empty"),
        ("a\nFROM b", "cell:3: a cell has no FROM (%%image NAME --from IMAGE"),
        ("HEALTHCHECK x", "cell:2: HEALTHCHECK isn't supported"),
        ("a\n\nCOPY x", "cell:4: COPY x has no destination"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    """With the line."""
    with pytest.raises(SpecError) as caught:
        cell.parse(text, "base")
    assert said in one_line(caught.value)
