"""The corpus unpacked by an ordinary user: ``nobody.py DIR``, started by root, becomes uid 65534."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
import zlib
from pathlib import Path

from nscontainer.errors import LayerError
from nscontainer.image import compression, extract, tree
from nscontainer.image.store import Store
from tests.images import corpus, looks, tars


def main(top: Path) -> None:
    """Everything is as root has it, but for owners and devices; what is closed can be removed again."""
    outside = top / "outside"
    (outside / "dir").mkdir(parents=True)
    (outside / "dir" / "x").write_text("canary")
    (outside / "file").write_text("canary")
    before = looks.everything(outside)
    for case in corpus.cases(os.fsencode(outside)):
        root = top / "root"
        root.mkdir()
        try:
            result = extract.extract(io.BytesIO(case.tar), str(root))
        except LayerError as error:
            said = str(error)
        else:
            said = ""
        if case.refused is not None:
            assert re.search(case.refused, said), (case.name, said)
        else:
            assert not said, (case.name, said)
            assert looks.short(root) == ({} if case.root else case.tree), case.name
            assert ("devices are left out" if case.root else case.notes) in " ".join(result.notes)
        assert looks.everything(outside) == before, case.name
        tree.remove_tree(str(root))
    (top / "state").mkdir(mode=0o700)
    store = Store(str(top / "state" / "images"))
    closed = tars.whole(
        tars.directory(b"closed", 0), tars.directory(b"closed/too", 0), tars.file(b"closed/too/x"),
        tars.file(b"others", uid=tars.octal(5, 8)),
    )  # fmt: skip
    image = store.make_image({}, [store.add_layer(io.BytesIO(closed))], name="closed")
    assert len(store.unpack(image)) == 1
    store.remove("closed")
    assert os.listdir(f"{store.root}/layers") == []
    print("done")


if __name__ == "__main__":
    # What is imported late, while this Python can still be read.
    print(compression.__name__, codecs.lookup("ascii"), zlib.__name__, file=sys.stderr)
    os.chown(sys.argv[1], 65534, 65534)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    main(Path(sys.argv[1]))
