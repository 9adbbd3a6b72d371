"""Variables in words, as Docker's shell lexer has them."""

from __future__ import annotations

import pytest

from nscontainer.build import expand
from nscontainer.errors import SpecError, one_line

VARIABLES = {"A": "one", "EMPTY": "", "S": "two words", "A_B": "long"}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("$A", "one"),
        ("${A}x", "onex"),
        ("$A_B-$A-", "long-one-"),
        ("$NONE.", "."),
        ("'$A'", "$A"),
        ("\"$A 'x'\"", "one 'x'"),
        (r"\$A", "$A"),
        (r"\\$A", r"\one"),
        (r'"\$A\x\""', r'$A\x"'),
        ("a\\ b", "a b"),
        ("${NONE:-d$A}", "done"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NONE-'a}b'}", "a}b"),
        ("${A:+x}${EMPTY:+y}${EMPTY+z}", "xz"),
        ("${NONE:-${EMPTY:-${A}}}", "one"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$S", "two words"),
    ],
)
def test_word(text: str, made: str) -> None:
    """A word stays one word, whatever its variables hold."""
    assert expand.word(text, VARIABLES) == made


def test_words_split_where_nothing_is_quoted() -> None:
    """EXPOSE splits a variable's value, but for one in quotes."""
    assert expand.words('80 $S "$S" a"b c"', VARIABLES) == [
        *("80", "two", "words"),
        "two words",
        "ab c",
    ]
    assert expand.words("$EMPTY", VARIABLES) == []
    assert expand.words("''", VARIABLES) == [""]


def test_text_has_no_quotes() -> None:
    """In a here-document quotes are characters, and a backslash guards only a dollar and itself."""
    assert expand.text("'$A' \"${A}\" \\$A \\n", VARIABLES) == "'one' \"one\" $A \\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("'a", "a ' isn't closed"),
        ('"a', "isn't closed"),
        ("${A", "${A"),
        ("${A:-b", "isn't closed"),
        ("${}", "has no name"),
        ("${A%x}", "can't be read"),
        ("${NONE?give one}", "NONE: give one"),
        ("${EMPTY:?}", "EMPTY: not set (--build-arg EMPTY=VALUE)"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    """What can't be read is an error, never an empty string."""
    with pytest.raises(SpecError) as caught:
        expand.word(text, VARIABLES)
    assert said in one_line(caught.value)


def test_another_escape() -> None:
    """With # escape=` a backslash is a character."""
    assert expand.word("C:\\$A`$A", VARIABLES, "`") == "C:\\one$A"
