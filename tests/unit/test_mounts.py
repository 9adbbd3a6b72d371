"""--volume, --mount and --tmpfs in Docker's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from nscontainer import mounts, spec
from nscontainer.errors import SpecError
from nscontainer.mounts import Mount


def test_mount_of_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every spelling that Docker knows; relative paths and ~ are resolved."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "d").mkdir()
    plain = Mount("bind", "/x", f"{tmp_path}/d")
    for source in (f"{tmp_path}/d", "./d", "d", "~/d"):
        assert mounts.parse_mount(f"type=bind,source={source},target=/x") == plain
    read_only = Mount("bind", "/x", f"{tmp_path}/d", read_only=True)
    for words in ("readonly", "ro", "readonly=true", "ro=1"):
        assert mounts.parse_mount(f"type=bind,src=d,dst=/x,{words}") == read_only
    assert mounts.parse_mount("type=bind,src=d,destination=/x,readonly=false") == plain


def test_mount_of_memory() -> None:
    """A tmpfs with size and mode."""
    asked = "type=tmpfs,target=/x,tmpfs-size=1M,tmpfs-mode=0700"
    assert mounts.parse_mount(asked) == Mount("tmpfs", "/x", size_bytes=1 << 20, mode=0o700)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target=/x", "type volume is not supported"),
        ("type=volume,source=v,target=/x", "type volume is not supported"),
        ("type=bind,source=/", "has no target"),
        ("type=bind,target=/x", "has no source"),
        ("type=bind,source=/no/such,target=/x", "there is no /no/such"),
        ("type=bind,source=/,target=x", "can't be a mount point"),
        ("type=bind,source=/,target=/proc/x", "can't be a mount point"),
        ("type=bind,source=/,target=/x,tmpfs-size=1M", "tmpfs-size is for type=tmpfs"),
        ("type=tmpfs,source=/,target=/x", "a tmpfs has no source"),
        ("type=bind,sorce=/,target=/x", "'sorce' is not known"),
        ("type=bind,source,target=/x", "source has no value"),
        ("type=bind,source=/,target=/x,readonly=maybe", "readonly is true or false"),
        ("type=tmpfs,target=/x,tmpfs-mode=999", "mode '999' is none"),
        ("", "'' is not known"),
    ],
)
def test_a_mount_that_is_none(text: str, message: str) -> None:
    """One line that says what is wrong."""
    with pytest.raises(SpecError) as caught:
        mounts.parse_mount(text)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_tmpfs() -> None:
    """Docker's options; those that are always so are taken and mean nothing."""
    asked = "/x:rw,nosuid,nodev,noexec,size=64k,mode=1750,uid=5,gid=6,ro"
    assert mounts.parse_tmpfs(asked) == Mount(
        "tmpfs", "/x", read_only=True, size_bytes=64 << 10, mode=0o1750, uid=5, gid=6, exec=False
    )
    for wrong in ("/x:suid", "/x:uid=root", "/x:uid=65536", "/x:mode=8", "/x:size=", "x"):
        with pytest.raises(SpecError):
            mounts.parse_tmpfs(wrong)


def test_named_volumes() -> None:
    """There are none, and the hint says what to write instead."""
    with pytest.raises(SpecError, match="there are no named volumes here") as caught:
        mounts.parse_volume("data:/x")
    assert caught.value.hint == "name a directory: ./data:/x, or /… or ~/…"


def test_a_spec_with_mounts_comes_back() -> None:
    """Mounts and entrypoint survive the way over JSON."""
    made = spec.build(
        [], image="x", entrypoint=["a", "b"], mounts=["type=tmpfs,target=/x,tmpfs-mode=0700"]
    )
    assert spec.ContainerSpec.from_dict(made.to_dict()) == made
    assert spec.build(["c"], image="x", entrypoint="").entrypoint == ()


@pytest.mark.parametrize("name", ["", " ", "a b", "-x", "a\n", "x" * 600])
def test_an_image_that_is_no_name(name: str) -> None:
    """Refused at once."""
    with pytest.raises(SpecError, match="can't be a name"):
        spec.build(["true"], image=name)


def test_an_entrypoint_is_for_commands() -> None:
    """A cell has none, and an empty command is for images that have their own."""
    with pytest.raises(SpecError, match="this is a Python cell"):
        spec.build(None, image="x", entrypoint="sh")
    with pytest.raises(SpecError, match=r"command \[\] can't be run"):
        spec.build([])
