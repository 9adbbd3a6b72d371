"""Takes values through both ends of their way, in one process and without a container."""

from __future__ import annotations

import json
import os
from typing import Any

from nscontainer.runner.values import Carrier
from nscontainer.values import decode, inputs, memory
from nscontainer.values.outfile import OutFile


def into(**values: Any) -> dict[str, Any]:
    """Take values in, as a cell would find them."""
    with inputs.packed(values) as made:
        description = json.loads(json.dumps(made.description))
        return Carrier({"inputs": description}, [os.dup(made.fd)]).take()


def out_of(
    namespace: dict[str, Any], asked: dict[str, str], *, trust: bool = False
) -> tuple[dict[str, Any], dict[str, str]]:
    """Take values out of a namespace that a cell would have left."""
    with OutFile() as file:
        fd = os.dup(file.fd)
        carrier = Carrier({"out": asked, "trust": trust}, [fd])
        content = json.loads(json.dumps(carrier.give(namespace)))
        os.close(fd)  # the container has ended
        buffers, tree = file.read(content)
    return decode.results(asked, tree, buffers, trust=trust)


def through(value: Any, *, trust: bool = False) -> Any:
    """Take one value out.

    Raises
    ------
    ValueError
        It was refused; the text says why.
    """
    values, refused = out_of({"v": value}, {"r": "v"}, trust=trust)
    if refused:
        raise ValueError(refused["r"])
    return values["r"]


def decoded(node: Any, buffers: bytes = b"", *, trust: bool = False) -> Any:
    """Decode a node that a hostile container has sent.

    Raises
    ------
    ValueError
        It was refused; the text says why.
    """
    tree = json.dumps({"values": {"r": node}, "refused": {}}).encode()
    view = memoryview(bytearray(buffers + b"\0" * (-len(buffers) % memory.ALIGN)))
    values, refused = decode.results({"r": "r"}, memoryview(tree), view, trust=trust)
    if refused:
        raise ValueError(refused["r"])
    return values["r"]
