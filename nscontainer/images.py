"""Images from Python: ``nscontainer.images.pull("python:3.12-slim")`` and its siblings.

Thin functions over :mod:`nscontainer.image`; each loads what it needs when it is called.
"""

from __future__ import annotations
