"""``python3 -m nscontainer``: the command line."""

from __future__ import annotations

import sys

from nscontainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
