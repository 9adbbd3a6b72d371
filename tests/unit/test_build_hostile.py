"""Any text at all is read, or refused in one line: never another error."""

from __future__ import annotations

import contextlib

from hypothesis import example, given, settings
from hypothesis import strategies as st

from nscontainer.build import cell, dockerfile, expand, stages
from nscontainer.build.patterns import Ignored, compiled
from nscontainer.errors import SpecError

WORDS = st.sampled_from(
    "FROM RUN COPY ADD ENV ARG LABEL SHELL CMD USER WORKDIR VOLUME a AS b --from=a --chown=1 -- <<EOF "
    "<<-'X' EOF X [ ] [\"a\"] = A=1 A= =1 $A ${A} ${A:-b} ${ } ' \" \\ # # \t".split(" ")
)
TEXTS = st.lists(st.one_of(WORDS, st.just("\n"), st.text(max_size=8)), max_size=40).map(
    " ".join
) | st.text(max_size=200)


@settings(max_examples=500, deadline=None)
@given(TEXTS)
@example("FROM a\nCOPY []")
@example('FROM a\nCOPY ["a"]')
@example("FROM a\nENV ''")
@example("FROM a\nENV \\")
@example("FROM\ta")
@example("FROM []")
@example("FROM a\nVOLUME []")
@example('FROM a\nARG "')
def test_any_dockerfile(text: str) -> None:
    """A text becomes stages, or is refused."""
    with contextlib.suppress(SpecError):
        stages.split(dockerfile.parse(text), {"A": text[:20]})


@settings(max_examples=300, deadline=None)
@given(st.text("aA$ {}'\"\\:-+?_1\n\t", max_size=40))
def test_any_word(text: str) -> None:
    """A word is replaced, or refused."""
    for replace in (expand.word, expand.words, expand.text):
        with contextlib.suppress(SpecError):
            replace(text, {"a": "b c", "A": ""})


@settings(max_examples=300, deadline=None)
@given(st.text("ab*?[]!^-/\\. ", max_size=20), st.text("ab/.", max_size=12))
def test_any_pattern(text: str, path: str) -> None:
    """A pattern matches or not, or is refused."""
    with contextlib.suppress(SpecError):
        compiled(text).fullmatch(path)
        Ignored.parse([text])(path or "a")


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_any_cell(text: str) -> None:
    """A cell becomes instructions, or is refused."""
    with contextlib.suppress(SpecError):
        assert len(cell.parse(text, "base").instructions) > 1
