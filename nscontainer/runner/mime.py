"""Representations of objects as Jupyter's messages carry them."""

from __future__ import annotations

import base64
import contextlib
import io
import numbers
import sys
from typing import TYPE_CHECKING, Any

from . import frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .wire import Message

_METHODS = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "text/latex": "_repr_latex_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
    "application/json": "_repr_json_",
    "application/javascript": "_repr_javascript_",
    "application/pdf": "_repr_pdf_",
}


def bundle(value: Any) -> Message | None:
    """Give ``{"data": …, "metadata": …}`` by an object's ``_repr_*_`` methods, as IPython does.

    None for an object that showed itself (``_ipython_display_``).
    """
    if isinstance(value, type):  # a class has the methods, but they are for its instances
        return {"data": {"text/plain": repr(value)}, "metadata": {}}
    show = getattr(value, "_ipython_display_", None)
    if callable(show):
        show()
        return None
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    with _told():
        whole = getattr(value, "_repr_mimebundle_", None)
        if callable(whole):
            _merge(whole(include=None, exclude=None), data, metadata)
    for mime, method in _METHODS.items():
        if mime not in data:
            with _told():
                _add(mime, getattr(value, method, None), data, metadata)
    if _is_figure(value):
        with _told():
            data["image/png"] = _png_of(value)
    data.setdefault("text/plain", repr(value))
    return dict(clean({"data": data, "metadata": metadata}))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Show what is wrong with one representation, and go on with the others, as IPython does."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # whatever an object's own method does
        print("\n".join(frames.plain(error)), file=sys.stderr)


def _add(mime: str, render: Any, data: dict[str, Any], metadata: dict[str, Any]) -> None:
    shown = render() if callable(render) else None
    if isinstance(shown, tuple) and len(shown) == 2:
        shown, metadata[mime] = shown
    if shown is not None:
        data[mime] = shown


def _merge(whole: Any, data: dict[str, Any], metadata: dict[str, Any]) -> None:
    if isinstance(whole, tuple):
        whole, more = whole
        metadata.update(more)
    data.update(whole or {})


def _is_figure(value: Any) -> bool:
    """Tell whether it is a figure of matplotlib's, which can't show itself: IPython does it for it."""
    figures = sys.modules.get("matplotlib.figure")
    return figures is not None and isinstance(value, figures.Figure)


def _png_of(figure: Any) -> bytes:
    """Draw a figure of matplotlib's, as its inline backend does."""
    png = io.BytesIO()
    figure.savefig(png, format="png", bbox_inches="tight")
    return png.getvalue()


def clean(value: Any) -> Any:
    """Make JSON of it: bytes as base64, what is unknown by its repr."""
    if isinstance(value, dict):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, numbers.Integral):  # NumPy's
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return repr(value)


def text_of(error: BaseException) -> str:
    """Give an error's text, whatever its ``__str__`` does."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001
        return f"<unprintable {type(error).__name__} object>"
