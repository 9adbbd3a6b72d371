"""One of several programs that use a store at once: ``busy.py ROOT NUMBER ROUNDS``."""

from __future__ import annotations

import io
import random
import sys

from nscontainer.errors import NotFoundError
from nscontainer.image.store import Store
from tests.images import killed


def main(root: str, number: int, rounds: int) -> None:
    """Add, tag, unpack, remove and prune; what is ours alone must always be there."""
    chance = random.Random(number)
    store = Store(root)
    for at in range(rounds):
        mine = f"mine{number}:{at}"
        with store.holding():
            layers = [
                store.add_layer(io.BytesIO(killed.layer(n)))
                for n in chance.sample(range(10, 18), 2)
            ]
            labels = {"config": {"Labels": {"by": f"{number}-{at}"}}}
            image = store.make_image({"os": "linux", **labels}, layers, name=mine)
        for part in store.unpack(image):
            assert part in {layer.key for layer in layers}
        for layer in layers:
            there = store.layer_dir(layer.diff_id)
            assert there is not None, f"{mine} has lost a layer"
        store.tag(mine, "everybodys:1")
        assert store.get(mine).id == image.id
        assert mine in {name for found in store.images() for name in found.names}
        if at:
            before = f"mine{number}:{at - 1}"
            assert store.remove(before)[0] == f"untagged: {before}"
        if chance.randrange(3) == 0:
            store.prune()
        try:
            store.remove("everybodys:1")
        except NotFoundError:  # another was first
            continue


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
