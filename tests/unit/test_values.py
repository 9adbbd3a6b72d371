"""Values through both ends of their way: what comes out is what there was, or is refused by name."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import pathlib
import zoneinfo
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from tests.unit.values_harness import out_of, through

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
DAY = dt.date(2026, 3, 1)

PLAIN: list[Any] = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, -(2**200), 10**6000,
    0.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan"),
    1 + 2j, complex("nan+infj"),
    "", "ä€😀", '\0\n"\\', "\udc80 alone", b"", b"\0\xff" * 100, bytearray(b"x"),
    [], [1, [2, [3.5, None]]], (), (1, ("a",)), set(), {1, "a", (2, 3)}, frozenset({b"x"}),
    {}, {"a": 1, 2: "b", (3, None): {"c": []}, None: 0, True: 1.5}, {"t": "int", "v": "0x1"},
    range(0), range(5, -5, -2),
    decimal.Decimal("1.10"), decimal.Decimal("NaN"), decimal.Decimal("-1e-99"),
    pathlib.Path("/a/ä"), pathlib.Path(),
    DAY, dt.timedelta(-3, 5, 7), dt.time(1, 2, 3, 4), dt.time(1, tzinfo=dt.UTC),
    dt.datetime(2026, 3, 1, 2),  # noqa: DTZ001
    dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
    dt.datetime(2026, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30))),
]  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Whether they are of the same types and values throughout; NaN is NaN, and -0.0 isn't 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, (set, frozenset)):
        return bool(one == other)
    if isinstance(one, dt.datetime):
        return (one.isoformat(), one.fold, str(one.tzinfo)) == (
            other.isoformat(),
            other.fold,
            str(other.tzinfo),
        )
    if isinstance(one, int):
        return bool(one == other)
    return repr(one) == repr(other)


@pytest.mark.parametrize("value", PLAIN, ids=lambda v: type(v).__name__)
def test_plain_data(value: Any) -> None:
    """Plain data comes out as it was, of the same types, alone and within other data."""
    assert same(through(value), value)
    assert same(through({"k": [value, (value,)]}), {"k": [value, (value,)]})


def test_many_and_deep() -> None:
    """A million items; a hundred levels; one more is refused, and so is what contains itself."""
    many = [*range(300_000), *map(str, range(300_000))]
    assert through(many) == many
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert through(deep) == deep
    ring: list[Any] = []
    ring.append(ring)
    for value in ([deep], ring, {"a": ring}):
        with pytest.raises(ValueError, match="nested deeper than 100, or contains itself"):
            through(value)


ARRAYS: list[Any] = [
    np.arange(6).reshape(2, 3),
    np.arange(6).reshape(2, 3).T,
    np.arange(120).reshape(4, 5, 6)[::2, ::-1, 1:5:3],
    np.broadcast_to(np.float32(3), (2, 2)),
    np.array(3.5), np.empty((0, 3)), np.empty((2, 0), "U3"),
    np.array([True, False]), np.array(["a", "€😀"]), np.array([b"a", b"bcd"]),
    np.array(["a"], ">U2"), np.array([1, 2], ">i4"), np.array([1, -2], np.longdouble),
    np.array([1 + 2j], np.complex64), np.array([1, np.nan], np.float16), np.arange(3, dtype=np.uint64),
    np.array(["2026-03-01", "NaT"], "M8[ns]"), np.array([5, 7], "m8[25s]"), np.array(["NaT"], "M8"),
    np.zeros(3, [("a", "i4"), ("t", "U3"), ("b", "?", (2, 2)), ("n", [("x", ">f8")])]),
    np.zeros(2, np.dtype([("a", "i1"), ("b", "i8")], align=True)),
    np.array([(1, 2)], "i8, i1")[["f1"]],
    np.array([b"ab"], "V2"),
    np.array([1, "a", None, [1, 2]], object), np.array([[{"a": 1}], [(1,)]], object),
]  # fmt: skip


@pytest.mark.parametrize("value", ARRAYS, ids=lambda a: f"{a.dtype} {a.shape}"[:30])
def test_arrays(value: Any) -> None:
    """Arrays of every kind of items, however they lie in memory; what comes can be written to."""
    made = through(value)
    assert made.dtype == value.dtype
    assert made.shape == value.shape
    assert made.flags.writeable
    np.testing.assert_array_equal(made, value)
    assert (made.tobytes() == value.tobytes()) or value.dtype.hasobject


@pytest.mark.parametrize(
    "value",
    [np.float64(0.1), np.int8(-3), np.bool_(1), np.str_("ä"), np.bytes_(b"x"),
     np.datetime64("2026-03-01", "D"), np.timedelta64(3, "h"), np.complex64(1j),
     np.void(b"ab"), np.zeros(1, "i4, ?")[0]],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_scalars_of_numpy_keep_their_type(value: Any) -> None:
    """A scalar is no array and no plain number afterwards."""
    made = through(value)
    assert type(made) is type(value)
    assert made.dtype == value.dtype
    assert made == value


def _table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "i": [1, 2, 3],
            "f": [1.5, np.nan, 2.0],
            "s": ["a", None, "ä"],
            "o": pd.Series([1, "x", [2, (3, pd.NaT)]], dtype=object),
            "cat": pd.Categorical(["b", "a", None], categories=["b", "a"], ordered=True),
            "zone": pd.date_range("2026-10-25", periods=3, freq="h", tz="Europe/Berlin"),
            "utc": pd.Series(np.array([0, 1, "NaT"], "M8[s]")).dt.tz_localize("UTC"),
            "fixed": pd.date_range("2026", periods=3, tz=dt.timezone(dt.timedelta(hours=2))),
            "time": np.array(["2026", "NaT", "2027"], "M8[ns]"),
            "delta": pd.to_timedelta([1, 2, None], "s"),
            "n": pd.array([1, None, 3], "Int64"),
            "u": pd.array([1, None, 255], "UInt8"),
            "b": pd.array([True, None, False], "boolean"),
            "F": pd.array([1.5, None, 2], "Float32"),
            "string": pd.array(["a", None, "b"], "string"),
            "python": pd.array(["a", None, "b"], pd.StringDtype("python")),
        }
    )


FRAMES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "all": lambda f: f,
    "one block": lambda f: f[["f", "f"]] * 2,
    "one block of times": lambda f: f[["time"]],
    "every other row": lambda f: f.iloc[::2],
    "no rows": lambda f: f.iloc[:0],
    "no columns": lambda f: f[[]],
    "nothing": lambda _: pd.DataFrame(),
    "turned": lambda f: f.T,
    "wide": lambda _: pd.DataFrame(np.arange(3000.0).reshape(3, 1000)),
    "a name twice": lambda _: pd.DataFrame([[1, "2"]], columns=["a", "a"]),
    "index of texts": lambda f: f.set_index("s"),
    "index of moments": lambda f: f.set_index("zone"),
    "index of categories": lambda f: f.set_index("cat"),
    "index of two": lambda f: f.set_index(["i", "s"]),
    "columns of two": lambda f: f.set_index(["i", "s"])[["f"]].T,
    "a frequency": lambda _: pd.DataFrame(
        {"a": 1}, index=pd.date_range("2026", periods=3, freq="D")
    ),
    "a month's": lambda _: pd.DataFrame(
        {"a": 1}, index=pd.date_range("2026", periods=3, freq="MS")
    ),
    "names": lambda f: f[["i"]].rename_axis(index="rows", columns="things"),
    "attributes": lambda f: f[["i"]].pipe(_with_attributes),
}


def _with_attributes(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    frame.attrs = {"unit": {"i": "ns"}}
    return frame


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str) -> None:
    """Tables of every kind of column and index are equal afterwards, dtypes and all."""
    frame = FRAMES[name](_table())
    made = through(frame)
    pd.testing.assert_frame_equal(made, frame)
    assert made.attrs == frame.attrs
    if made.size:
        made.iloc[0, 0] = made.iloc[0, 0]  # it can be written to


@pytest.mark.parametrize("name", list(_table()))
def test_series_and_what_they_hold(name: str) -> None:
    """A column alone, as an index, and its first item alone."""
    column = _table()[name]
    pd.testing.assert_series_equal(through(column), column)
    renamed = column.rename(("a", 1))
    pd.testing.assert_series_equal(through(renamed), renamed)
    if name != "o":
        index = pd.Index(column)
        pd.testing.assert_index_equal(through(index), index, exact=True)
    for item in column:
        made = through(item)
        assert type(made) is type(item)
        assert str(made) == str(item)


def test_indexes_that_are_ranges_or_many() -> None:
    """A RangeIndex stays one; a MultiIndex keeps its names."""
    for index in (
        pd.RangeIndex(2, 10, 3, name="n"),
        pd.MultiIndex.from_product([[1, 2], ["a"]], names=["x", None]),
    ):
        pd.testing.assert_index_equal(through(index), index, exact=True)


class _Number(int):
    """A number of a class of its own."""


REFUSED: list[tuple[Any, str]] = [
    (object(), "type object"),
    (lambda: 1, "type function"),
    (np, "type module"),
    (_Number(3), r"_Number.*int\(…\)"),
    (collections.OrderedDict(a=1), r"collections.OrderedDict.*dict\(…\)"),
    ([1, {"a": collections.Counter("a")}], "collections.Counter"),
    (cast("Any", collections.namedtuple("P", "x"))(1), r"P.*tuple\(…\)"),  # noqa: PYI024
    (np.ma.array([1]), r"MaskedArray.*asarray"),
    (np.array(["a"], np.dtypes.StringDType()), "items are of type StringDType"),
    (np.array([object()]), "type object"),
    (np.zeros(1, [("a", "O")]), "items are of type object"),
    (pd.Series(pd.interval_range(0, 2)), "interval"),
    (pd.DataFrame({"a": [1], "p": pd.period_range("2026", periods=1)}), "column 'p'.*period"),
    (pd.DataFrame({"a": [1]}, index=pd.period_range("2026", periods=1)), "PeriodIndex"),
    (pd.DataFrame({"a": pd.arrays.SparseArray([1])}), "column 'a'.*Sparse"),
]


@pytest.mark.parametrize(("value", "why"), REFUSED, ids=lambda v: type(v).__name__)
def test_anything_else_is_refused_in_one_line(value: Any, why: str) -> None:
    """The line names what it is, what doesn't fit, and --trust."""
    with pytest.raises(ValueError, match=why) as caught:
        through(value)
    assert "--trust" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_fails_leaves_the_others() -> None:
    """Each expression has its value or its reason; buffers of a refused one are left out."""
    array = np.arange(5)
    half = [np.arange(3), object()]
    values, refused = out_of(
        {"x": array, "half": half},
        {
            "a": "x",
            "b": "half",
            "c": "nope",
            "d": "1 / 0",
            "e": " x[1:] + 1",
            "f": "[i for i in x]",
        },
    )
    assert values["a"].tolist() == [0, 1, 2, 3, 4]
    assert values["e"].tolist() == [2, 3, 4, 5]
    assert values["f"] == list(range(5))
    assert refused.keys() == {"b", "c", "d"}
    assert refused["c"] == "NameError: name 'nope' is not defined"
    assert refused["d"] == "ZeroDivisionError: division by zero"


def test_trusted_everything_comes() -> None:
    """With trust any picklable value comes, arrays without a copy in the pickle."""
    value = {"c": collections.Counter("aab"), "x": np.arange(100_000), "f": _Number(3)}
    made = through(value, trust=True)
    assert type(made["c"]) is collections.Counter
    assert type(made["f"]) is _Number
    np.testing.assert_array_equal(made["x"], value["x"])
    made["x"][0] = 9
    with pytest.raises(ValueError, match="pickle"):
        through(lambda: 1, trust=True)
