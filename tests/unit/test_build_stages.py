"""Stages: where each begins, which are needed, what ARGs before FROM give."""

from __future__ import annotations

import pytest

from nscontainer.build import stages
from nscontainer.build.dockerfile import parse
from nscontainer.errors import SpecError, one_line

MANY = """
ARG TAG=12
FROM debian:$TAG AS base
FROM base AS one
RUN 1
FROM base AS two
RUN 2
FROM scratch
COPY --from=one /a /
COPY --from=1 /b /
COPY --from=image:3 /c /
"""


def test_only_what_is_needed_is_built() -> None:
    """A stage that nothing takes from is left out; a name or a number says which."""
    found = stages.split(parse(MANY), {})
    assert [stage.name for stage in found.wanted] == ["base", "one", None]
    assert found.wanted[0].base == "debian:12"
    assert found.wanted[1].base_stage == 0
    assert found.wanted[2].copies_from == {"one": 1, "1": 1}
    assert [s.name for s in stages.split(parse(MANY), {}, "TWO").wanted] == ["base", "two"]
    assert [s.name for s in stages.split(parse(MANY), {}, "0").wanted] == ["base"]


def test_build_args_replace_defaults() -> None:
    """Before FROM too; and the platform's are there."""
    assert stages.split(parse(MANY), {"TAG": "13"}).wanted[0].base == "debian:13"
    found = stages.split(parse("FROM --platform=$BUILDPLATFORM a-$TARGETARCH"), {})
    assert found.wanted[0].base == f"a-{stages.machine()}"


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        ("RUN x\nFROM a", None, "Dockerfile:1: RUN before FROM"),
        ("ARG A", None, "has no FROM"),
        ("ARG A\nFROM $A", None, "$A is empty (give it a default"),
        ("FROM a AS x\nFROM b AS X", None, "Dockerfile:2: there is a stage 'x' already"),
        ("FROM a\nCOPY --from=2 a b", None, "there is no stage '2' before this one"),
        ("FROM a AS x\nCOPY --from=x a b", None, "there is no stage 'x' before this one"),
        ("FROM a AS x", "y", "there is no stage 'y' (stages: x)"),
        ("FROM --platform=windows/amd64 a", None, "platform 'windows/amd64' can't be built here"),
    ],
)
def test_what_is_wrong_is_said(text: str, target: str | None, said: str) -> None:
    """In one line."""
    with pytest.raises(SpecError) as caught:
        stages.split(parse(text), {}, target)
    assert said in one_line(caught.value)
