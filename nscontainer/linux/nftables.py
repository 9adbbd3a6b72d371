"""nftables by its own library, libnftables(3): no process is started for a rule.

Loading it takes about 1 ms and a transaction another, which is a fifth of starting nft(8). Each call
has a context of its own, whose socket belongs to the calling thread's network namespace. What stands
in one text is one transaction: all of it is done, or nothing.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from nscontainer.errors import HostError

_LIBRARY: Final = "libnftables.so.1"
_HINT: Final = "apt-get install nftables"


def run(commands: str) -> str:
    """Do what commands in nft's language say, as one transaction; give what they print.

    Raises
    ------
    HostError
        There is no nftables here, or it refused; then with its own first line.
    """
    library = _load()
    if library is None:
        return _by_command(commands)
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    if context.value is None:
        message = "nftables can't be used: nft_ctx_new failed"
        raise HostError(message, hint=_HINT)
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        if library.nft_run_cmd_from_buffer(context, commands.encode()) != 0:
            raise _refused(library.nft_ctx_get_error_buffer(context).decode(errors="replace"))
        printed: bytes = library.nft_ctx_get_output_buffer(context)
        return printed.decode(errors="replace")
    finally:
        library.nft_ctx_free(context)


def tables() -> list[str]:
    """List the tables of family ``ip`` in this network namespace, by name."""
    lines = run("list tables ip").splitlines()
    return [line.split()[2] for line in lines if line.startswith("table ip ")]


def anew(name: str, chains: str) -> str:
    """Write a table of family ``ip`` that takes the place of one of its name, if there is one."""
    return f"{_without(name)}table ip {name} {{\n{chains}}}\n"


def delete_tables(names: list[str]) -> None:
    """Delete tables of family ``ip``; one that isn't there is no error."""
    if names:
        run("".join(map(_without, names)))


def _without(name: str) -> str:
    # Added first: `destroy` is nft 1.0.6's, Linux 6.3's.
    return f"add table ip {name}\ndelete table ip {name}\n"


def _refused(text: str) -> HostError:
    line = next((line for line in text.splitlines() if line.strip()), "no reason given")
    message = f"nftables refused: {line.strip()}"
    if "Operation not permitted" in text:
        return HostError(message, hint="networks need root (CAP_NET_ADMIN)")
    return HostError(message, hint="does this Linux have nf_tables and nf_nat?")


def _load() -> Any:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    return library


def _by_command(commands: str) -> str:
    import shutil
    import subprocess

    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin")
    if nft is None:
        message = "networks need nftables: neither libnftables nor nft is here"
        raise HostError(message, hint=_HINT)
    done = subprocess.run(
        [nft, "-f", "-"], input=commands, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise _refused(done.stderr)
    return done.stdout
