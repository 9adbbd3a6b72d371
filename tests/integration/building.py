"""What tests of builds share: a base image, builds and what they tell, an image's files."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

from nscontainer import api
from nscontainer.build import builder, dockerfile
from nscontainer.build.asked import Options
from nscontainer.build.context import Context
from nscontainer.build.events import Done, Event, Note, Output
from nscontainer.image.records import Image
from nscontainer.image.store import Store

APPLETS = "sh ash cat chmod chown cp echo env false grep id ln ls mkdir mv pwd rm sed sleep stat test touch true wc"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n"


def base_tar() -> bytes:
    """A root filesystem of Debian's static busybox, with /bin and /var/run as links, as Debian's."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(
            name: str, kind: bytes, data: bytes = b"", mode: int = 0o755, link: str = ""
        ) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.size, member.linkname = kind, mode, len(data), link
            member.mtime = 1_700_000_000
            tar.addfile(member, io.BytesIO(data))

        for name in ("etc", "home", "run", "usr", "usr/bin", "usr/local", "var", "root"):
            add(name, tarfile.DIRTYPE)
        add("tmp", tarfile.DIRTYPE, mode=0o1777)
        add("srv", tarfile.DIRTYPE, mode=0o2750)
        add("bin", tarfile.SYMTYPE, link="usr/bin")
        add("var/run", tarfile.SYMTYPE, link="/run")
        add("usr/bin/busybox", tarfile.REGTYPE, Path("/bin/busybox").read_bytes())
        for name in APPLETS.split():
            add(f"usr/bin/{name}", tarfile.SYMTYPE, link="busybox")
        add("etc/passwd", tarfile.REGTYPE, PASSWD.encode(), 0o644)
        add("etc/group", tarfile.REGTYPE, GROUP.encode(), 0o644)
    return written.getvalue()


def make_base(name: str = "base") -> Image:
    """Put it into the store as an image."""
    store = Store()
    with store.holding():
        layer = store.add_layer(io.BytesIO(base_tar()), "none")
        config = {"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["/bin/sh"]}
        plain = {"architecture": "amd64", "os": "linux", "config": config}
        return store.make_image(plain, [layer], name=name)


@dataclasses.dataclass
class Built:
    """A build's image and what was told meanwhile."""

    image: Image | None = None
    events: list[Event] = dataclasses.field(default_factory=list)

    @property
    def steps(self) -> dict[str, str]:
        """``cached`` or ``ran``, by the beginning of each step's text; without FROM."""
        done = [event for event in self.events if isinstance(event, Done)]
        found = {one.step.text.strip(): "cached" if one.cached else "ran" for one in done}
        return {text: how for text, how in found.items() if not text.startswith("FROM")}

    @property
    def said(self) -> str:
        """What the RUNs said."""
        data = [event.data for event in self.events if isinstance(event, Output)]
        return b"".join(data).decode()

    @property
    def notes(self) -> list[str]:
        """What there is to know."""
        return [event.text for event in self.events if isinstance(event, Note)]


def build(
    text: str, context: Path | None = None, *tags: str, into: Built | None = None, **more: Any
) -> Built:
    """Build from a text."""
    built = Built() if into is None else into
    more.setdefault("network", "none")
    options = Options(tags=tags, **more)
    directory = None if context is None else Context.of(str(context))
    built.image = builder.build(
        dockerfile.parse(text),
        directory,
        options,
        store=Store(),
        on_event=built.events.append,
    )
    return built


def shell(image: Image | str, script: str, **more: Any) -> str:
    """Run a script in a container of an image; give what it prints."""
    name = image if isinstance(image, str) else image.id
    result = api.run(["/bin/sh", "-c", script], image=name, entrypoint="", **more)
    assert result.exit_code == 0, result.stderr
    return str(result.stdout)


def write(top: Path, files: dict[str, str]) -> Path:
    """Write files below a directory."""
    for name, text in files.items():
        file = top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return top


def files_of(tar: bytes) -> dict[str, tuple[Any, ...]]:
    """All that a tar of a whole root says but times: kind, mode, owner, size or target, content."""
    found: dict[str, tuple[Any, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        for member in opened:
            file = opened.extractfile(member) if member.isreg() else None
            content = None if file is None else hashlib.sha256(file.read()).hexdigest()
            name = os.path.normpath(member.name)
            what = (member.type, oct(stat.S_IMODE(member.mode)), member.uid, member.gid)
            found[name] = (*what, member.linkname, content)
    return found
