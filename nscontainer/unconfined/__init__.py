"""A run without a container, for where nothing can be isolated: a plain process, accounted, and marked.

What it takes of the system is little, so that it works in an unprivileged pod and on macOS too. The owner
starts a *supervisor* (:mod:`.supervisor`), which is to the process what a monitor is to a container
(docs/adr/0035).
"""

from nscontainer.unconfined.process import Process, create

__all__ = ["Process", "create"]
