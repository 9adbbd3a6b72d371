"""What a hostile container may write where values are expected: each is refused, and nothing runs."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from typing import Any

import numpy as np
import pytest

from nscontainer.values import decode
from nscontainer.values.outfile import BadFileError, OutFile
from tests.unit.values_harness import decoded

PROOF = os.path.join(tempfile.gettempdir(), f"nscontainer-attack-{os.getpid()}")
"""There once code of the container's has run."""


class _Attack:
    def __reduce__(self) -> Any:
        return os.mkdir, (PROOF,)


PICKLE = pickle.dumps(_Attack())


def array(dtype: Any = "<f8", shape: Any = (1,), order: Any = "C") -> dict[str, Any]:
    return {"t": "array", "dtype": dtype, "shape": shape, "order": order}


def index(count: int) -> dict[str, Any]:
    return {"t": "RangeIndex", "v": [0, count, 1], "names": [None]}


def structure(**changes: Any) -> dict[str, Any]:
    fields = {"names": ["a"], "formats": ["<i4"], "offsets": [0], "itemsize": 4}
    return array({**fields, **changes})


def series(values: Any, **changes: Any) -> dict[str, Any]:
    return {"t": "Series", "v": values, "index": index(1), "name": None, "attrs": {}, **changes}


def deep(levels: int, node: Any = None) -> Any:
    for _ in range(levels):
        node = {"t": "tuple", "v": [node]}
    return node


NODES: list[Any] = [
    # no kinds of ours
    {}, {"t": None}, {"t": []}, {"t": {}}, {"t": 1}, {"t": "eval", "v": "1"}, {"t": "__class__"},
    {"t": "tuple"}, {"t": "tuple", "v": "ab"}, {"t": "tuple", "v": {"a": 1}}, {"t": "set", "v": [[]]},
    {"t": "dict", "k": [1], "v": []}, {"t": "dict", "k": [[]], "v": [1]}, {"t": "dict", "k": [{}], "v": [1]},
    {"t": "int", "v": "9" * 10 + "x"}, {"t": "int", "v": 1}, {"t": "float", "v": "1"}, {"t": "float"},
    {"t": "complex", "v": [1.0]}, {"t": "complex", "v": [1.0, "1"]}, {"t": "range", "v": [1, 2, 0]},
    {"t": "range", "v": [True, 2, 3]}, {"t": "Decimal", "v": "x"}, {"t": "Path", "v": 1},
    {"t": "date", "v": "x"}, {"t": "timedelta", "v": [10**10, 0, 0]},
    {"t": "datetime", "v": "2026-01-01", "zone": "../../etc/passwd", "fold": 0},
    {"t": "datetime", "v": "2026-01-01", "zone": "/etc/localtime", "fold": 0},
    {"t": "datetime", "v": "2026-01-01", "zone": "dateutil/UTC", "fold": 0},
    {"t": "datetime", "v": "2026-01-01", "zone": 1e300, "fold": 0},
    {"t": "datetime", "v": "2026-01-01", "zone": None, "fold": 7},
    deep(300), deep(121), [deep(120)],
    # pickles, where none was asked for
    {"t": "pickle", "size": len(PICKLE), "sizes": []},
    [{"t": "pickle", "size": len(PICKLE), "sizes": []}],
    # buffers that aren't there
    {"t": "bytes", "size": 10**12}, {"t": "bytes", "size": -1}, {"t": "bytes", "size": 1.5},
    {"t": "bytes", "size": True}, {"t": "bytes", "size": None}, {"t": "bytearray", "size": 2**63},
    # arrays
    array(shape=[10**6]), array(shape=[-1]), array(shape=[-1, -8]), array(shape=[2**62, 2**62]),
    array(shape=[2.0]), array(shape=[True]), array(shape=3), array(shape=[1] * 70), array(shape=None),
    array(shape=[0, 2**63]), array(order="A"), array(order=None),
    array("O"), array("|O"), array("|O8"), array("<i4,O"), array("i4"), array("float64"), array("<i3"),
    array("|V0"), array("|S0", [2**40]), array("<U0"), array("|S99999999999"), array("|T16"),
    array("<M8[0s]"), array("<M8[xx]"), array("<M8[-1s]"), array("<M8[99999999999s]"), array("<f8\n"),
    array(None), array([["a", "<i4"]]), array({}), array(1),
    array({"base": "|O", "shape": [1]}), array({"base": "<i4", "shape": [-1]}),
    array({"base": "<i4", "shape": [2**31, 2**31]}), array({"base": "<i4", "shape": [0]}),
    structure(formats=["|O"]), structure(offsets=[-4]), structure(offsets=[1]), structure(itemsize=-1),
    structure(itemsize=2**40), structure(names=[]), structure(names=[1]), structure(names=["a", "a"]),
    structure(names=["a", "b"], formats=["<i4", "<i4"], offsets=[0, 2], itemsize=6),
    structure(names=["a", "a"], formats=["<i4", "<i4"], offsets=[0, 4], itemsize=8),
    structure(names=["a"] * 20_000, formats=["|i1"] * 20_000, offsets=[*range(20_000)], itemsize=20_000),
    # bits that aren't there
    array("|b1", [8]), array("<U2", [1]), array(">U2", [1]), array("|b1", []),
    structure(formats=["|b1"], itemsize=1), structure(formats=[{"base": "|b1", "shape": [4]}]),
    {"t": "scalar", "v": array("|b1", [])}, {"t": "scalar", "v": 1},
    {"t": "objects", "shape": [2], "v": [1]}, {"t": "objects", "shape": [-1], "v": [1]},
    {"t": "objects", "shape": [2**40], "v": []},
    # tables
    series({"t": "objects", "shape": [2], "v": [1, 2]}), series(array(), index=index(10**15)),
    series(array(), index={}), series(array(), index=array()), series(array(), name=[]),
    series(array(), attrs=[]), series({"t": "Series"}), series([1]),
    series({"t": "category", "categories": index(1), "v": array("|i1", [1]), "ordered": False}),
    series({"t": "category", "categories": index(1), "v": array("<f8", [1]), "ordered": False}),
    series({"t": "category", "categories": index(100), "v": array("|i1", [1]), "ordered": 1}),
    series({"t": "string", "v": [1], "missing": "nan", "storage": "python"}),
    series({"t": "masked", "mask": array("|b1", [1]), "v": array("<i8", [1])}),
    series({"t": "masked", "mask": array("|u1", [1]), "v": array("|S8", [1])}),
    series({"t": "zoned", "v": array("<i8"), "zone": "Nowhere/There"}),
    series({"t": "zoned", "v": array("<M8[ns]"), "zone": "dateutil//etc/passwd"}),
    {"t": "MultiIndex", "levels": [index(1)], "codes": [array("|i1", [8])], "names": [None]},
    {"t": "MultiIndex", "levels": [index(1)], "codes": [], "names": [None]},
    {"t": "RangeIndex", "v": [0, 1], "names": [None, None]}, {"t": "RangeIndex", "v": [0, 1, 0], "names": [None]},
    {"t": "RangeIndex", "v": ["__import__('os')"], "names": [None]},
    {"t": "Index", "v": array("<M8[ns]"), "names": [None], "freq": "D; import os"},
    {"t": "Index", "v": array("<M8[ns]", [2]), "names": [None], "freq": "D"},
    {"t": "DataFrame", "block": array(shape=[1, 1]), "columns": index(3), "index": index(1), "attrs": {}},
    {"t": "DataFrame", "v": [array()], "columns": index(2), "index": index(1), "attrs": {}},
    {"t": "DataFrame", "v": [array(), array(shape=[2])], "columns": index(2), "index": index(1), "attrs": {}},
    {"t": "Timestamp", "v": array("<i8"), "zone": "x"}, {"t": "Timestamp", "v": array("<M8[ns]"), "zone": None},
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # NumPy's, of some of these
@pytest.mark.parametrize("node", NODES, ids=lambda n: json.dumps(n)[:50])
def test_every_node_that_is_none_of_ours_is_refused(node: Any) -> None:
    """One line; no crash, no memory for what isn't there, and no code of the container's."""
    # Bytes that are no bool, no character, no number of a category; two cache lines of them.
    with pytest.raises(ValueError, match=r"\w") as caught:
        decoded(node, b"\xf7" * 128 if "pickle" not in str(node) else PICKLE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert not os.path.exists(PROOF)


def test_a_mask_of_odd_bools_never_reaches_numpy() -> None:
    """255 is no True: indexing with such a mask writes beyond the memory that NumPy makes for it."""
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        decoded(array("|b1", [1000]), b"\xff" * 1000)
    assert decoded(array("|b1", [2]), b"\1\0").tolist() == [True, False]


def test_buffers_never_overlap() -> None:
    """Each takes the next bytes: what is written to one changes no other."""
    one, other = decoded([array(), array()], bytes(128))
    one[0] = 5
    assert other[0] == 0
    with pytest.raises(ValueError, match="beyond the file"):
        decoded([array()] * 3, bytes(128))


def test_a_pickle_runs_only_with_trust() -> None:
    """The proof that the attack is one: with trust it does what it says."""
    node = {"t": "pickle", "size": len(PICKLE), "sizes": []}
    with pytest.raises(ValueError, match="a pickle, which only --trust allows"):
        decoded(node, PICKLE)
    assert not os.path.exists(PROOF)
    decoded(node, PICKLE, trust=True)
    os.rmdir(PROOF)


def results(tree: bytes, *names: str, buffers: bytes = b"") -> Any:
    asked = dict.fromkeys(names, "x")
    view = memoryview(bytearray(buffers))
    return decode.results(asked, memoryview(tree), view, trust=False)


@pytest.mark.parametrize(
    "tree",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"values": []}', b'{"values": {"b": 1}}', b"[" * 10**6,
     b'{"a":' * 10**5, b'{"values": {"r": ' + b"9" * 5000 + b"}}", b'{"refused": 3}', b'{"values": 3}'],
    ids=lambda t: repr(t[:20]),
)  # fmt: skip
def test_a_tree_that_is_none(tree: bytes) -> None:
    """What was asked for is refused, and no name that wasn't comes."""
    values, refused = results(tree, "r")
    assert values == {}
    assert refused.keys() == {"r"}


def test_names_that_were_not_asked_for() -> None:
    """A container sets no variable but those that were asked for, and its reasons are one line."""
    tree = b'{"values": {"a": 1, "__builtins__": 2}, "refused": {"c": "1\\n2", "d": 3}}'
    assert results(tree, "a", "c") == ({"a": 1}, {"c": "1 2"})


def test_after_one_that_cannot_be_read_the_rest_is_lost_and_said_so() -> None:
    """Where the next buffer would begin can't be known."""
    tree = (
        b'{"values": {"a": 1, "b": {"t": "bytes", "size": 1000}, "c": {"t": "bytes", "size": 1}}}'
    )
    values, refused = results(tree, "a", "b", "c", buffers=bytes(64))
    assert values == {"a": 1}
    assert "beyond the file" in refused["b"]
    assert refused["c"] == "what comes before it, 'b', can't be read"


@pytest.mark.parametrize(
    "content",
    [{}, {"at": 0}, {"at": 0, "size": 0}, {"at": -64, "size": 64}, {"at": 0, "size": 10**9},
     {"at": 10**18, "size": 1}, {"at": "0", "size": "1"}, {"at": 0.0, "size": 1}, {"at": 0, "size": True},
     {"at": 0, "size": 4097}, {"at": None, "size": None}, {"error": "x" * 10_000}],
    ids=str,
)  # fmt: skip
def test_a_description_of_what_is_not_in_the_file(content: dict[str, Any]) -> None:
    """Sizes and places are looked at before anything is mapped."""
    with OutFile() as file:
        os.pwrite(file.fd, b"{}" * 2048, 0)
        with pytest.raises(BadFileError):
            file.read(content)


def test_a_file_of_holes() -> None:
    """A terabyte that was never written isn't mapped: reading it would make it exist."""
    with OutFile() as file:
        os.pwrite(file.fd, b"x" * 4096, 0)
        os.pwrite(file.fd, b"{}", 1 << 40)
        with pytest.raises(BadFileError, match="not all were written"):
            file.read({"at": 1 << 40, "size": 2})


def test_arrays_that_come_are_aligned() -> None:
    """As every array that NumPy itself makes."""
    assert decoded([{"t": "bytes", "size": 1}, array()], bytes(128))[1].flags.aligned
    assert np.__version__
