"""Bases whose configuration was written by somebody else, or by nobody in his right mind."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from nscontainer.build import builder, dockerfile
from nscontainer.build.asked import Options
from nscontainer.build.cache import Cache, Record
from nscontainer.errors import HostError, ImageError, SpecError
from nscontainer.image import reconfigure
from nscontainer.image.records import Image
from nscontainer.image.store import Store

TEXT = 'FROM lab\nENV A=1\nLABEL a=b\nVOLUME /v\nEXPOSE 80\nSHELL ["sh"]\nCMD a\nWORKDIR /\nUSER 1'


def built_on(store: Store, settings: Any) -> Image:
    plain = {"architecture": "amd64", "os": "linux", "config": settings}
    store.make_image(plain, [], name="lab")
    file = dockerfile.parse(TEXT)
    return builder.build(file, None, Options(tags=("made",)), store=store, on_event=lambda _: None)


@pytest.mark.parametrize(
    "settings",
    [
        1, "x", ["x"],
        {"Env": 1}, {"Env": "A=1"}, {"Env": [1]}, {"Env": {"A": "1"}},
        {"Labels": ["a"]}, {"Labels": 1}, {"Volumes": ["/v"]}, {"Volumes": 1}, {"ExposedPorts": "80"},
        {"OnBuild": 1}, {"OnBuild": [None]}, {"Shell": 1}, {"Cmd": 1}, {"Cmd": [1]}, {"Entrypoint": {}},
        {"User": 1}, {"WorkingDir": []}, {"StopSignal": 15},
    ],
)  # fmt: skip
def test_a_base_with_odd_settings_is_an_error_of_ours(store: Store, settings: Any) -> None:
    """One line that names the image, where Docker wouldn't have taken it at all; never a traceback."""
    with pytest.raises(ImageError, match="the config of image lab"):
        built_on(store, settings)
    with pytest.raises(ImageError, match="is damaged"):  # what a commit asks
        reconfigure.settings({"config": settings}, "it")


def test_what_is_null_in_a_base_is_not_there(store: Store) -> None:
    """Go writes null for what is empty."""
    keys = (
        "Env",
        "Labels",
        "Volumes",
        "ExposedPorts",
        "OnBuild",
        "Shell",
        "Cmd",
        "Entrypoint",
        "User",
    )
    assert built_on(store, dict.fromkeys(keys)).env[-1] == "A=1"
    assert built_on(store, None).env[-1] == "A=1"


def test_half_a_character_is_an_error_of_ours(store: Store) -> None:
    """JSON can say one, as no UTF-8 can; so can bytes of a command line."""
    with pytest.raises(ImageError, match="UTF-8"):
        built_on(store, {"Env": ["B=\udcff"]})


def test_the_label_of_images_on_host_is_not_to_be_given() -> None:
    """It would make of any image one that is shown this machine's files."""
    with pytest.raises(SpecError, match="nscontainer's own"):
        Options(labels={"org.nscontainer.base": "host"}).check()


def test_a_full_disk_is_said_where_a_record_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everywhere in the store: what was being done, and how to mend it; and no file is left."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match="no space left on the disk while a build's record"):
        Cache(store).add("a" * 64, Record("2026-01-01T00:00:00Z"))
    assert list(Path(store.root, "build-cache").iterdir()) == []
