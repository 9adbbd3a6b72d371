"""Evil and odd layer tars, written by code, each with what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.images.tars import (
    binary,
    device,
    directory,
    file,
    hard_link,
    header,
    long_name,
    octal,
    pad,
    pax,
    record,
    symlink,
    whole,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One tar.

    ``refused`` is what the error must say (a regular expression); None: it is unpacked, and ``tree``
    says what must be there: a file's bytes, ``"dir"``, ``"-> target"``, ``"gone"`` (a whiteout),
    ``"opaque"``, ``"fifo"``, ``"c 1:3"``, ``"= other"`` (the same inode). Nothing else may be there.
    """

    name: str
    tar: bytes
    refused: str | None = None
    tree: dict[str, bytes | str] = field(default_factory=dict)
    notes: str = ""
    root: bool = False  # what it makes takes root; without, it is left out with a remark


def cases(outside: bytes) -> Iterator[Case]:
    """All cases. ``outside`` is an absolute path, next to the directory that is unpacked into.

    It has a directory ``dir`` and a file ``file``: whoever gets there finds something to harm.
    """
    for part in (names, links, kinds, whiteouts, again, extended, sparse, broken):
        yield from part(outside)


def names(outside: bytes) -> Iterator[Case]:
    yield Case("dot-dot", whole(file(b"../outside/file", b"evil")), r"\.\./outside/file: '\.\.'")
    yield Case("dot-dot-inside", whole(file(b"a/../b", b"")), r"'\.\.' in its name")
    yield Case("dot-dot-only", whole(directory(b"..")), r"'\.\.' in its name")
    yield Case("dot-dot-deep", whole(file(b"a/b/../../../outside/file", b"evil")), r"'\.\.'")
    yield Case("dot-dot-pax", whole(pax({b"path": b"../x"}), file(b"fine")), r"\.\./x: '\.\.'")
    yield Case("dot-dot-gnu", whole(long_name(b"../x"), file(b"fine")), r"\.\./x: '\.\.'")
    yield Case("dot-dot-prefix", whole(file(b"x", b"", prefix=b"..")), r"\.\./x: '\.\.'")
    yield Case(
        "absolute", whole(file(outside + b"/file", b"kept in")),
        tree=_inside(outside + b"/file", b"kept in"),
    )  # fmt: skip
    yield Case("slashes", whole(file(b"//a//.//b", b"1")), tree={"a": "dir", "a/b": b"1"})
    yield Case("root", whole(directory(b"./", 0o711), file(b"./a", b"1")), tree={"a": b"1"})
    yield Case("root-no-directory", whole(file(b"./", b"1")), "without a name")
    yield Case("no-name", whole(file(b"", b"1")), "without a name")
    yield Case("part-too-long", whole(long_name(b"a" * 256), file(b"x")), "more than 255 bytes")
    yield Case("part-just-fits", whole(long_name(b"a" * 255), file(b"x")), tree={"a" * 255: b""})
    yield Case("name-too-long", whole(long_name(b"aa/" * 1400), directory(b"x")), "4200 bytes")
    yield Case("too-deep", whole(long_name(b"a/" * 300), directory(b"x")), "300 parts")
    yield Case("nul-in-pax-name", whole(pax({b"path": b"a\0b"}), file(b"x")), "NUL in a name")
    yield Case("nul-in-pax-link", whole(pax({b"linkpath": b"a\0b"}), symlink(b"x", b"y")), "NUL in")
    yield Case("not-utf-8", whole(file(b"\xff\xfe", b"1")), tree={"\udcff\udcfe": b"1"})
    yield Case(
        "not-utf-8-pax", whole(pax({b"path": b"\xff"}), file(b"x", b"1")), tree={"\udcff": b"1"}
    )
    yield Case("newline", whole(file(b"a\nb", b"1")), tree={"a\nb": b"1"})
    yield Case("implicit-parents", whole(file(b"a/b/c", b"1")),
               tree={"a": "dir", "a/b": "dir", "a/b/c": b"1"})  # fmt: skip
    yield Case("file-as-parent", whole(file(b"a"), file(b"a/b")), "a: is not a directory")
    yield Case("prefix", whole(file(b"b", b"1", prefix=b"a")), tree={"a": "dir", "a/b": b"1"})
    yield Case("old-directory", whole(header(b"a/", b"\0", magic=b"")), tree={"a": "dir"})


def _inside(path: bytes, content: bytes) -> dict[str, bytes | str]:
    parts = path.decode().strip("/").split("/")
    found: dict[str, bytes | str] = {"/".join(parts[:n]): "dir" for n in range(1, len(parts))}
    return found | {"/".join(parts): content}


def links(outside: bytes) -> Iterator[Case]:
    up = b"../" * 9
    for what, target in (("absolute", outside + b"/dir"), ("relative", up + outside[1:] + b"/dir")):
        yield Case(
            f"write-through-{what}-link", whole(symlink(b"a", target), file(b"a/x", b"1")),
            tree=_inside(outside + b"/dir/x", b"1") | {"a": f"-> {target.decode()}"},
        )  # fmt: skip
        yield Case(
            f"whiteout-through-{what}-link", whole(symlink(b"a", target), file(b"a/.wh.x")),
            tree=_inside(outside + b"/dir/x", b"") | {
                "a": f"-> {target.decode()}", (outside[1:] + b"/dir/x").decode(): "gone"
            },
        )  # fmt: skip
        yield Case(
            f"overwrite-{what}-link",
            whole(symlink(b"a", outside + b"/file"), file(b"a", b"mine")), tree={"a": b"mine"},
        )  # fmt: skip
    yield Case("directory-over-link", whole(symlink(b"a", outside + b"/dir"), directory(b"a")),
               tree={"a": "dir"})  # fmt: skip
    yield Case(
        "link-to-root", whole(symlink(b"a", b"/"), file(b"a/b", b"1")),
        tree={"a": "-> /", "b": b"1"},
    )  # fmt: skip
    yield Case(
        "link-up", whole(symlink(b"d/a", b"../../../e"), file(b"d/a/b", b"1")),
        tree={"d": "dir", "d/a": "-> ../../../e", "e": "dir", "e/b": b"1"},
    )  # fmt: skip
    yield Case("link-loop", whole(symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x")),
               "too many symbolic links")  # fmt: skip
    yield Case("link-to-itself", whole(symlink(b"a", b"a"), file(b"a/x")), "too many symbolic")
    yield Case(
        "links-piled-up",
        whole(
            *(
                symlink(b"l%d" % n, b"l%d/" % (n - 1) + b"d/" * 40 if n else b"d/" * 40)
                for n in range(30)
            ),
            file(b"l29/x"),
        ),
        "more than 256 directories deep|256 parts",
    )
    yield Case("empty-link", whole(symlink(b"a", b"")), "symbolic link to nothing")
    yield Case("link-too-long", whole(long_name(b"x" * 5000, b"K"), symlink(b"a", b"")),
               "a: file name too long")  # fmt: skip
    yield Case("hard-link-out", whole(hard_link(b"a", b"../outside/file")), r"'\.\.'")
    yield Case("hard-link-absolute", whole(hard_link(b"a", outside + b"/file")), "not before it")
    yield Case(
        "hard-link-through-link",
        whole(symlink(b"s", outside), hard_link(b"a", b"s/file"), file(b"a", b"evil")),
        "not before it",
    )
    yield Case(
        "hard-link-to-link",
        whole(symlink(b"s", outside + b"/file"), hard_link(b"a", b"s"), file(b"a", b"mine")),
        tree={"s": f"-> {outside.decode()}/file", "a": b"mine"},
    )
    yield Case(
        "hard-link-to-link-kept", whole(symlink(b"a", outside + b"/file"), hard_link(b"b", b"a")),
        tree={"a": f"-> {outside.decode()}/file", "b": "= a"},
    )  # fmt: skip
    yield Case(
        "hard-link-chain", whole(file(b"a", b"1"), hard_link(b"b", b"a"), hard_link(b"d/c", b"/b")),
        tree={"a": b"1", "b": "= a", "d": "dir", "d/c": "= a"},
    )  # fmt: skip
    yield Case("hard-link-to-itself", whole(file(b"a", b"1"), hard_link(b"a", b"a")),
               tree={"a": b"1"})  # fmt: skip
    yield Case("hard-link-forward", whole(hard_link(b"b", b"a"), file(b"a")), "not before it")
    yield Case("hard-link-to-directory", whole(directory(b"a"), hard_link(b"b", b"a")), "no file")
    yield Case("hard-link-to-parent", whole(file(b"a/x"), hard_link(b"a", b"a/x")), "not before it")
    yield Case("hard-link-to-root", whole(hard_link(b"a", b"/")), "hard link to nothing")
    yield Case("hard-link-to-whiteout", whole(file(b".wh.a"), hard_link(b"b", b"a")), "no file")  # fmt: skip
    yield Case(
        "hard-link-with-size", whole(file(b"a", b"1"), header(b"b", b"1", link=b"a", size=999)),
        tree={"a": b"1", "b": "= a"},
    )  # fmt: skip


def kinds(outside: bytes) -> Iterator[Case]:
    yield Case("fifo", whole(header(b"a", b"6")), tree={"a": "fifo"})
    yield Case("device", whole(device(b"a", b"3", 1, 3)), tree={"a": "c 1:3"}, root=True)
    yield Case("block-device", whole(device(b"a", b"4", 7, 300)), tree={"a": "b 7:300"}, root=True)
    yield Case("device-0-0", whole(device(b"a", b"3", 0, 0)), "take for a whiteout")
    yield Case("block-device-0-0", whole(device(b"a", b"4", 0, 0)), tree={"a": "b 0:0"}, root=True)
    yield Case("device-too-large", whole(device(b"a", b"3", 0o777777, 0)), "no device 262143:0")
    yield Case("device-negative", whole(header(b"a", b"3", major=binary(-1, 8))), "no device -1:0")
    yield Case("continuous", whole(header(b"a", b"7", size=1) + pad(b"1")), tree={"a": b"1"})
    for kind in (b"A", b"D", b"M", b"N", b"V", b"X", b"\xff"):
        yield Case(f"kind-{kind!r}", whole(header(b"a", kind)), "a: an entry of a kind not known")
    yield Case("link-with-data", whole(header(b"a", b"2", link=b"b", size=5), file(b"c", b"1")),
               tree={"a": "-> b", "c": b"1"})  # fmt: skip
    yield Case("directory-with-data", whole(header(b"a", b"5", size=5), file(b"c", b"1")),
               tree={"a": "dir", "c": b"1"})  # fmt: skip
    yield Case("into-a-device", whole(header(b"a", b"6"), file(b"a/b")), "a: is not a directory")


def whiteouts(outside: bytes) -> Iterator[Case]:
    yield Case("whiteout", whole(file(b".wh.a")), tree={"a": "gone"})
    yield Case("whiteout-deep", whole(file(b"d/.wh.a")), tree={"d": "dir", "d/a": "gone"})
    yield Case("whiteout-with-data", whole(file(b".wh.a", b"data"), file(b"b", b"1")),
               tree={"a": "gone", "b": b"1"})  # fmt: skip
    yield Case("opaque", whole(file(b"d/.wh..wh..opq"), file(b"d/x", b"1")),
               tree={"d": "opaque", "d/x": b"1"})  # fmt: skip
    yield Case("opaque-after", whole(file(b"d/x", b"1"), file(b"d/.wh..wh..opq")),
               tree={"d": "opaque", "d/x": b"1"})  # fmt: skip
    for name in (b".wh.", b".wh..", b".wh...", b".wh..wh.", b".wh..wh.x", b".wh..wh..opq2"):
        yield Case(f"whiteout-{name.decode()}", whole(file(name)), "no whiteout that is known")
        yield Case(f"whiteout-deep-{name.decode()}", whole(file(b"d/" + name)), "no whiteout that")
    for name in (b".wh..wh.plnk", b".wh..wh.aufs"):
        yield Case(f"aufs-{name.decode()}", whole(directory(name + b"/"), file(b"a", b"1")),
                   tree={"a": b"1"})  # fmt: skip
    yield Case(
        "whiteout-as-parent", whole(file(b".wh.a/b")), "directory with the name of a whiteout"
    )
    yield Case("whiteout-then-file", whole(file(b".wh.a"), file(b"a", b"1")), tree={"a": b"1"})
    yield Case("whiteout-then-directory", whole(file(b".wh.a"), file(b"a/b", b"1")),
               "is not a directory")  # fmt: skip
    yield Case("whiteout-then-directory-said", whole(file(b".wh.a"), directory(b"a"), file(b"a/b")),
               tree={"a": "opaque", "a/b": b""})  # fmt: skip
    yield Case("file-then-whiteout", whole(file(b"a", b"1"), file(b".wh.a")), tree={"a": b"1"})
    yield Case("directory-then-whiteout", whole(file(b"a/b", b"1"), file(b".wh.a")),
               tree={"a": "opaque", "a/b": b"1"})  # fmt: skip
    yield Case("whiteout-twice", whole(file(b".wh.a"), file(b".wh.a")), tree={"a": "gone"})  # fmt: skip


def again(outside: bytes) -> Iterator[Case]:
    yield Case("file-again", whole(file(b"a", b"first"), file(b"a", b"2")), tree={"a": b"2"})
    yield Case("directory-again", whole(directory(b"a"), file(b"a/b", b"1"), directory(b"a", 0o700)),
               tree={"a": "dir", "a/b": b"1"})  # fmt: skip
    yield Case("file-over-directory", whole(file(b"a/b/c"), file(b"a", b"1")), tree={"a": b"1"})
    yield Case(
        "there-and-back",
        whole(file(b"a/b/c", b"1"), file(b"a", b"2"), directory(b"a"), file(b"a/b/d", b"3")),
        tree={"a": "dir", "a/b": "dir", "a/b/d": b"3"},
    )
    yield Case("directory-over-file", whole(file(b"a"), directory(b"a"), file(b"a/b", b"1")),
               tree={"a": "dir", "a/b": b"1"})  # fmt: skip
    yield Case("link-over-directory", whole(file(b"a/b"), symlink(b"a", outside + b"/dir")),
               tree={"a": f"-> {outside.decode()}/dir"})  # fmt: skip
    yield Case(
        "link-over-directory-then-into",
        whole(file(b"a/b"), symlink(b"a", outside + b"/dir"), file(b"a/c", b"1")),
        tree=_inside(outside + b"/dir/c", b"1") | {"a": f"-> {outside.decode()}/dir"},
    )
    yield Case("hard-link-over-file", whole(file(b"a", b"1"), file(b"b"), hard_link(b"b", b"a")),
               tree={"a": b"1", "b": "= a"})  # fmt: skip
    yield Case(
        "file-over-hard-link",
        whole(file(b"a", b"1"), hard_link(b"b", b"a"), file(b"b", b"2")),
        tree={"a": b"1", "b": b"2"},
    )
    yield Case("replaced-too-often",
               whole(*[directory(b"a"), file(b"a")] * 1001), "replaces more than 1000")  # fmt: skip


def extended(outside: bytes) -> Iterator[Case]:
    for what, text in {
        "no-number": b"x path=a\n", "zero": b"0 path=a\n", "too-short": b"5 path=a\n",
        "too-long": b"99 path=a\n", "huge": b"99999999999999999999999999 path=a\n",
        "negative": b"-9 path=a\n", "no-newline": b"9 path=ab", "no-key": b"7 =abc\n",
        "no-equals": b"7 path\n", "empty-lines": b"\n\n", "just-length": b"2\n",
        "unicode-digits": "\u0669 path=a\n".encode(), "spaces": b"  9 path=a\n",
    }.items():  # fmt: skip
        yield Case(f"pax-{what}", whole(pax(text), file(b"x")), "a PAX header is broken")
    yield Case(
        "pax-size-wrong", whole(pax({b"size": b"-1"}), file(b"x")), "size b'-1' is no number"
    )
    yield Case("pax-size-words", whole(pax({b"size": b"1e3"}), file(b"x")), "is no number")
    yield Case("pax-size", whole(pax({b"size": b"3"}), header(b"x") + pad(b"abc")),
               tree={"x": b"abc"})  # fmt: skip
    for text in (b"abc", b"1.2.3", b"nan", b"inf", b"1e9", b"", b"--1", b"9" * 30, b"\xd9\xa1"):
        if text:
            yield Case(
                f"pax-mtime-{text!r}",
                whole(pax({b"mtime": text}), file(b"x")),
                "its time|a time of",
            )
    yield Case("mtime-huge", whole(file(b"x", mtime=binary(1 << 60, 12))), "a time of")
    yield Case("pax-uid-huge", whole(pax({b"uid": b"4294967295"}), file(b"x")), "no user or group")
    yield Case("uid-negative", whole(file(b"x", uid=binary(-2, 8))), "no user or group -2")
    yield Case("pax-global", whole(pax({b"path": b"evil", b"comment": b"x"}, b"g"), file(b"x", b"1")),
               tree={"x": b"1"})  # fmt: skip
    yield Case("pax-then-nothing", whole(pax({b"path": b"a"})), "ends after an extended header")
    yield Case("long-name-then-nothing", whole(long_name(b"a")), "ends after an extended header")
    yield Case("pax-too-large", whole(pax({b"comment": b"x" * (2 << 20)}), file(b"x")),
               "more than 1048576 bytes")  # fmt: skip
    yield Case("pax-size-a-lie", header(b"p", b"x", size=1 << 40), "more than 1048576 bytes")
    yield Case("pax-many", whole(*[pax({b"comment": b"x" * 60_000})] * 20, file(b"x")),
               "more than 1048576 bytes")  # fmt: skip
    yield Case("pax-size-negative", whole(header(b"p", b"x", size=0)[:124] + binary(-512, 12)
               + bytes(376)), "checksum is wrong")  # fmt: skip
    overlay = {b"SCHILY.xattr.trusted.overlay." + name: b"y" for name in (b"opaque", b"redirect")}
    yield Case("overlay-attributes", whole(pax(overlay), directory(b"a")), tree={"a": "dir"},
               notes="overlayfs' own")  # fmt: skip
    yield Case("overlay-metacopy", whole(pax({b"SCHILY.xattr.trusted.overlay.metacopy": b""}),
               file(b"a", b"1")), tree={"a": b"1"}, notes="overlayfs' own")  # fmt: skip
    yield Case("user-overlay", whole(pax({b"SCHILY.xattr.user.overlay.opaque": b"y"}),
               directory(b"a")), tree={"a": "dir"}, notes="overlayfs' own")  # fmt: skip
    yield Case("xattr-no-name", whole(pax({b"SCHILY.xattr.": b"y"}), file(b"a")), "proper name")
    yield Case(
        "xattr-nul", whole(pax({b"SCHILY.xattr.user.a\0b": b"y"}), file(b"a")), "proper name"
    )
    yield Case("xattr-odd", whole(pax({b"SCHILY.xattr.nonsense": b"y"}), file(b"a", b"1")),
               tree={"a": b"1"}, notes="nonsense are left out")  # fmt: skip
    yield Case("xattr-too-large", whole(pax({b"SCHILY.xattr.user.a": b"y" * 70_000}), file(b"a")),
               "user.a of 70000 bytes is too large")  # fmt: skip
    yield Case("many-ids", whole(pax({b"uid": b"2147483648"}), file(b"a", b"1")), tree={"a": b"1"},
               notes="owners above 65535")  # fmt: skip


def sparse(outside: bytes) -> Iterator[Case]:
    hole = bytes(100_000)
    old = bytes(386 - 345) + octal(100_000, 12) + octal(4, 12)
    old_header = header(b"a", b"S", size=4, magic=b"ustar  \0", prefix=old)
    tail = bytes(96 - 24) + b"\0" + octal(100_004, 12)
    block = old_header[:386] + (octal(100_000, 12) + octal(4, 12) + tail).ljust(126, b"\0")
    yield Case("sparse-old", whole(_summed(block) + pad(b"data")), tree={"a": hole + b"data"})
    cut = (octal(100_000, 12) + octal(4, 12)).ljust(96, b"\0") + b"\0" + octal(50, 12)
    yield Case("sparse-old-outside", whole(_summed(old_header[:386] + cut.ljust(126, b"\0"))
               + pad(b"data")), "sparse map is broken")  # fmt: skip
    head = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"a",
            b"GNU.sparse.realsize": b"100004"}  # fmt: skip
    good = pad(b"1\n100000\n4\n")
    yield Case("sparse-1.0", whole(pax(head), file(b"x", good + b"data")),
               tree={"a": hole + b"data"})  # fmt: skip
    yield Case("sparse-1.0-end", whole(pax(head), file(b"x", pad(b"2\n0\n4\n100004\n0\n") + b"data")),
               tree={"a": b"data" + hole})  # fmt: skip
    for what, table in {
        "backwards": b"2\n9\n2\n0\n2\n", "overlapping": b"2\n0\n3\n2\n1\n", "outside": b"1\n100001\n4\n",
        "too-little": b"1\n0\n3\n", "too-much": b"1\n0\n5\n", "words": b"x\n0\n4\n", "negative": b"1\n-4\n4\n",
        "endless": b"9999999\n0\n4\n", "count-huge": b"9" * 40 + b"\n", "no-lines": b"1" * 512,
        "huge": b"1\n9223372036854775807\n4\n",
    }.items():  # fmt: skip
        yield Case(f"sparse-1.0-{what}", whole(pax(head), file(b"x", pad(table) + b"data")),
                   "sparse (map|size)|a size of")  # fmt: skip
    evil = head | {b"GNU.sparse.name": b"../outside/file"}
    yield Case("sparse-name", whole(pax(evil), file(b"x", good + b"data")), r"'\.\.'")
    evil = head | {b"GNU.sparse.name": b"a\0b"}
    yield Case("sparse-name-nul", whole(pax(evil), file(b"x", good + b"data")), "NUL in")
    evil = head | {b"GNU.sparse.realsize": b"9223372036854775808"}
    yield Case("sparse-size-huge", whole(pax(evil), file(b"x", good + b"data")), "a size of")
    evil = head | {b"GNU.sparse.realsize": b"4611686018427387904"}
    yield Case(
        "sparse-size-large", whole(pax(evil), file(b"x", good + b"data")), "a: file too large"
    )
    yield Case("sparse-version", whole(pax({b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0"}),
               file(b"x")), "sparse format not known")  # fmt: skip
    one = {b"GNU.sparse.size": b"100004", b"GNU.sparse.numblocks": b"1", b"GNU.sparse.name": b"a",
           b"GNU.sparse.map": b"100000,4"}  # fmt: skip
    yield Case("sparse-0.1", whole(pax(one), file(b"x", b"data")), tree={"a": hole + b"data"})
    yield Case("sparse-0.1-odd", whole(pax(one | {b"GNU.sparse.map": b"100000,4,1"}),
               file(b"x", b"data")), "sparse map is not its data's")  # fmt: skip
    pairs = (record(b"GNU.sparse.size", b"100004") + record(b"GNU.sparse.offset", b"0")
             + record(b"GNU.sparse.numbytes", b"2") + record(b"GNU.sparse.offset", b"100002")
             + record(b"GNU.sparse.numbytes", b"2"))  # fmt: skip
    yield Case("sparse-0.0", whole(pax(pairs), file(b"a", b"data")),
               tree={"a": b"da" + hole + b"ta"})  # fmt: skip


def _summed(block: bytes) -> bytes:
    """A header block with its checksum put right."""
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def broken(outside: bytes) -> Iterator[Case]:
    yield Case("empty", b"", tree={})
    yield Case("only-end", whole(), tree={})
    yield Case("no-end", file(b"a", b"1"), tree={"a": b"1"})
    yield Case("after-the-end", whole(file(b"a", b"1")) + file(b"../evil"), tree={"a": b"1"})
    yield Case("no-tar", b"this is no tar at all" * 100, "no tar|octal")
    yield Case("short", b"short", "middle of a header")
    yield Case("header-cut", file(b"a")[:300], "middle of a header")
    yield Case("data-cut", file(b"a", b"x" * 600)[:700], "middle of an entry")
    yield Case("padding-cut", file(b"a", b"x" * 600)[:1120], "middle of an entry")
    yield Case("checksum", whole(file(b"a", check=b"0000000\0")), "checksum is wrong")
    yield Case("checksum-words", whole(file(b"a", check=b"nonsense")), "checksum is wrong")
    yield Case("size-no-octal", whole(file(b"a", raw_size=b"00000000009\0")), "no octal number")
    yield Case("size-underscore", whole(file(b"a", raw_size=b"0000_000000\0")), "no octal number")
    yield Case("size-negative", whole(file(b"a", raw_size=binary(-1, 12))), "a size of -1")
    yield Case("size-huge", file(b"a", raw_size=binary(1 << 62, 12)), "tar has more than")
    yield Case("size-a-lie", whole(file(b"a", raw_size=octal(1 << 30, 12))), "middle of an entry")
    yield Case("size-beyond-64-bits", file(b"a", raw_size=binary(1 << 80, 12)), "tar has more than")
    yield Case("mode-no-octal", whole(file(b"a", mode=b"rwxr-xr\0")), "mode .* no octal")


def by_name(outside: bytes) -> dict[str, Case]:
    found: dict[str, Case] = {}
    for case in cases(outside):
        assert case.name not in found, case.name
        found[case.name] = case
    return found


NAMES = tuple(by_name(b"/outside"))
Build = Callable[[bytes], Iterator[Case]]
