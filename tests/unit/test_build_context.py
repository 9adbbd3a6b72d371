"""Patterns, ``.dockerignore``, contexts; an image's layers as one tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nscontainer.build import trees
from nscontainer.build.context import Context
from nscontainer.build.patterns import Ignored, compiled
from nscontainer.build.trees import Union
from nscontainer.errors import SpecError


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.py", "a.py", True),
        ("*.py", "d/a.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "d/e/a.py", True),
        ("d/**", "d/e/f", True),
        ("d/**/f", "d/f", True),
        ("?", "é", True),
        ("?", "/", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("a+b(c).d", "a+b(c).d", True),
        ("*", ".hidden", True),
    ],
)
def test_patterns(pattern: str, path: str, *, matches: bool) -> None:
    """They are Go's filepath.Match, and ** across directories."""
    assert (compiled(pattern).fullmatch(path) is not None) == matches


def test_a_bracket_must_be_closed() -> None:
    """A pattern that can't be read is an error."""
    with pytest.raises(SpecError, match="can't be read"):
        compiled("[a")


@pytest.mark.parametrize(
    ("lines", "path", "left_out"),
    [
        (["*.log"], "a.log", True),
        (["*.log"], "d/a.log", False),
        (["**/*.log"], "d/a.log", True),
        (["d"], "d/e/f", True),
        (["/d/"], "d", True),
        (["*", "!keep"], "keep", False),
        (["*", "!keep"], "other", True),
        (["d", "!d/keep"], "d/keep", False),
        (["d", "!d/keep"], "d/other", True),
        (["!keep", "*"], "keep", True),
        (["*.md", "!README*", "README-secret.md"], "README-secret.md", True),
        (["*.md", "!README*", "README-secret.md"], "README.md", False),
        (["# *.log", "", "  a  "], "a", True),
        (["# *.log"], "x.log", False),
        (["./a/../b"], "b", True),
        (["."], "a", False),
    ],
)
def test_what_is_ignored(lines: list[str], path: str, *, left_out: bool) -> None:
    """The last line that matches decides, for a path and for all below it, as in Docker."""
    assert Ignored.parse(lines)(path) == left_out


def test_a_context_shows_what_is_not_ignored(tmp_path: Path) -> None:
    """Also a file in a directory that is ignored but for it; the directory only for its sake."""
    for name in ("a/x", "a/keep/y", "b/z", "c.log", "d.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / ".dockerignore").write_text("a\n!a/keep\nb\n*.log\n")
    context = Context.of(str(tmp_path))
    assert context.names("") == [".dockerignore", "a", "d.txt"]
    assert context.names("a") == ["keep"]
    assert context.look("b") is None
    assert context.look("a/x") is None
    assert context.look("a/keep/y") is not None


def test_the_dockerfiles_own_ignore_file_comes_first(tmp_path: Path) -> None:
    """NAME.dockerignore beside the Dockerfile is taken in place of the context's."""
    (tmp_path / "x").touch()
    (tmp_path / ".dockerignore").write_text("x")
    (tmp_path / "Other.dockerignore").write_text("y")
    assert Context.of(str(tmp_path)).look("x") is None
    assert Context.of(str(tmp_path), str(tmp_path / "Other")).look("x") is not None


@pytest.mark.parametrize("what", ["/nowhere", "https://github.com/a/b.git", "git@host:a"])
def test_a_context_is_a_directory(what: str) -> None:
    """What is none is one clear line."""
    with pytest.raises(SpecError) as caught:
        Context.of(what)
    assert what in caught.value.message
    assert caught.value.hint


def test_links_never_lead_out_of_a_tree(tmp_path: Path) -> None:
    """An absolute one, and one with many .., is followed as if the tree were the root."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "passwd").write_text("mine")
    (tmp_path / "etc").symlink_to("/d")
    (tmp_path / "up").symlink_to("../../../../d/passwd")
    (tmp_path / "loop").symlink_to("loop")
    context = Context.of(str(tmp_path))
    assert trees.resolve(context, "etc/passwd") == "d/passwd"
    assert trees.resolve(context, "up") == "d/passwd"
    assert trees.read(context, "/etc/passwd") == b"mine"
    assert trees.resolve(context, "../../x/../y") == "y"
    with pytest.raises(SpecError, match="circles"):
        trees.resolve(context, "loop")


def layer(top: Path, name: str, files: dict[str, str | None]) -> str:
    """A layer's directory; None is a directory."""
    for path, text in files.items():
        file = top / name / path
        if text is None:
            file.mkdir(parents=True, exist_ok=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return str(top / name)


def test_layers_unite(tmp_path: Path) -> None:
    """The upper file is seen, and what a directory is merged of ends where one isn't a directory."""
    low = layer(tmp_path, "0", {"d/a": "0", "d/b": "0", "f/x": "0", "g": "file"})
    middle = layer(tmp_path, "1", {"d/b": "1", "g/y": "1"})
    top = layer(tmp_path, "2", {"d/c": "2", "f": "now a file"})
    (tmp_path / "1" / "link").symlink_to("/d")
    union = Union([low, middle, top])
    assert union.names("") == ["d", "f", "g", "link"]
    assert union.names("d") == ["a", "b", "c"]
    assert trees.read(union, "d/b") == b"1"
    assert union.look("f/x") is None
    assert union.names("g") == ["y"]
    assert trees.resolve(union, "link/c") == "d/c"
    assert trees.read(union, "link/c") == b"2"


@pytest.mark.root
def test_whiteouts_hide(tmp_path: Path) -> None:
    """A whiteout hides a file, an opaque directory all below it."""
    low = layer(tmp_path, "0", {"d/a": "0", "d/b": "0", "o/a": "0"})
    top = layer(tmp_path, "1", {"d": None, "o/new": "1"})
    os.mknod(tmp_path / "1" / "d" / "a", 0o600 | 0o020000, 0)
    os.setxattr(tmp_path / "1" / "o", "trusted.overlay.opaque", b"y")
    union = Union([low, top])
    assert union.names("d") == ["b"]
    assert union.look("d/a") is None
    assert union.names("o") == ["new"]
    assert union.look("o/a") is None


def test_nothing_is_a_tree_too() -> None:
    """FROM scratch has no layers."""
    union = Union(())
    assert union.look("") is None
    assert union.names("") == []
    assert trees.read(union, "etc/passwd") == b""
