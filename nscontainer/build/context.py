"""A build's context: the directory that COPY and ADD take files from, less what it ignores."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from nscontainer.build.patterns import Ignored
from nscontainer.build.trees import Node, node_at
from nscontainer.errors import SpecError


@dataclass(frozen=True)
class Context:
    """A directory of this machine as a tree.

    Parameters
    ----------
    root
        Its absolute path.
    ignored
        What isn't in it.
    """

    root: str
    ignored: Ignored = field(default_factory=Ignored)

    @classmethod
    def of(cls, directory: str, dockerfile: str | None = None) -> Context:
        """Take a directory, and the ``.dockerignore`` beside its Dockerfile or in it.

        Raises
        ------
        SpecError
            It is no directory, or the ``.dockerignore`` can't be read.
        """
        if not os.path.isdir(directory):
            remote = "://" in directory or directory.startswith("git@")
            what = "can't be a context" if remote else "is no directory"
            hint = "clone or unpack it first" if remote else "the context is a directory; - is none"
            raise SpecError(f"{directory!r} {what}", hint=hint)
        root = os.path.abspath(directory)
        beside = [] if dockerfile is None else [f"{dockerfile}.dockerignore"]
        for file in (*beside, f"{root}/.dockerignore"):
            try:
                with open(file, encoding="utf-8") as lines:
                    return cls(root, Ignored.parse(lines))
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise SpecError(f"{file} can't be read: {error}") from None
        return cls(root)

    def look(self, path: str) -> Node | None:
        """Give what is there, without following a last symbolic link; None where nothing is."""
        node = node_at(f"{self.root}/{path}" if path else self.root, xattrs=False)
        if node is None or not path or not self.ignored(path):
            return node
        return node if node.kind == "dir" and self._takes_some_of(path) else None

    def names(self, path: str) -> list[str]:
        """Give the names in a directory, sorted."""
        inside = os.listdir(f"{self.root}/{path}" if path else self.root)
        below = f"{path}/" if path else ""
        return sorted(name for name in inside if self.look(below + name) is not None)

    def _takes_some_of(self, path: str) -> bool:
        """Tell whether something below a directory that is ignored is taken after all."""
        if not self.ignored.has_exceptions:
            return False
        return any(self.look(f"{path}/{name}") for name in os.listdir(f"{self.root}/{path}"))
