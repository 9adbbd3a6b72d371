"""Images: pull and unpack against skopeo and umoci, starts from many layers, what commit reads, listing."""

from __future__ import annotations

import functools
import os
import shutil
import statistics
import sys
from pathlib import Path

from benchmarks import imagemaking, roots, stats
from benchmarks.bench import Bench
from benchmarks.imagemaking import MANY_LAYERS, REGISTRY_IMAGE, Registry
from benchmarks.ours import ROOT, Ours
from benchmarks.peers import need
from benchmarks.report import Report, Row, milliseconds
from benchmarks.start import compare, medians

TITLE = "images: pull and unpack, a start from 30 layers, what commit reads, a list of 500"
PULL_TARGET, START_TARGET, COMMIT_TARGET, LIST_TARGET_S = 1.0, 1.2, 3.0, 0.2
IMAGES = 500
COMMIT_BYTES = 10_000_000
COMPARED = """\
pull: nscontainer pull of an image of 200 MB in 4 gzipped layers from docker-registry on loopback into an
empty store, unpacked too; skopeo copy to an OCI layout, then umoci unpack: whole processes, the page cache
warm. umoci's bundle has an mtree manifest of every file; "raw" is umoci raw unpack, which makes none. Ours
is on disk (fsync) at the end; theirs isn't asked to be.
start: nscontainer.run(["/bin/true"]) of images that differ in nothing but their layers.
commit: what the committing process read (rchar of /proc/PID/io) for each byte that the container wrote: 10 MB, in a
container of an image of 1 GB.
list: the whole process of nscontainer images."""


def run(bench: Bench) -> Report:
    """Measure it."""
    report = Report("images", TITLE)
    for measure in (_pull, _start, _commit, _list):
        measure(bench, report)
    report.details.append(COMPARED)
    return report


def _command(state: Path, *words: str) -> list[str]:
    """Give the command line's words, with a state directory of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    env = ["/usr/bin/env", f"PYTHONPATH={path}", f"NSCONTAINER_STATE_DIR={state}"]
    return [*env, sys.executable, "-m", "nscontainer", *words]


# --- pull --------------------------------------------------------------------------------------


def _pull(bench: Bench, report: Report) -> None:
    top = bench.directory / "pull"
    top.mkdir()
    skopeo, umoci = need("skopeo"), need("umoci")
    with Registry(top / "registry") as registry:
        name = f"{registry.address}/{REGISTRY_IMAGE}"
        size = imagemaking.fill(registry, top / "source", name)
        copy = f"{skopeo} copy -q --src-tls-verify=false docker://{name} oci:$1/oci:lab"
        contenders = {
            "ours": lambda: _pulled(bench, top / "ours", name),
            "skopeo, umoci": lambda: _scripted(
                bench, top / "peer", f"{copy} && {umoci} unpack --image $1/oci:lab $1/bundle"
            ),
            "skopeo, umoci raw": lambda: _scripted(
                bench, top / "raw", f"{copy} && {umoci} raw unpack --image $1/oci:lab $1/root"
            ),
        }
        rounds = stats.interleave(contenders, bench.rounds(20), warm_up=1, label="pull")
    shutil.rmtree(top)
    report.raw["pull_ns"] = dict(rounds.values)
    row = compare(rounds, "ours", "skopeo, umoci", f"pull {size / 1e6:.0f} MB", PULL_TARGET)
    report.rows += [row, compare(rounds, "ours", "skopeo, umoci raw", "pull, umoci raw", None)]
    report.details.append(medians(rounds, "ours"))


def _pulled(bench: Bench, state: Path, name: str) -> float:
    spent = bench.timer.time(_command(state, "pull", "-q", name))
    shutil.rmtree(state)
    return spent


def _scripted(bench: Bench, top: Path, script: str) -> float:
    top.mkdir()
    spent = bench.timer.time(["/bin/sh", "-ec", script, "sh", str(top)])
    shutil.rmtree(top)
    return spent


# --- start -------------------------------------------------------------------------------------


def _start(bench: Bench, report: Report) -> None:
    state = bench.directory / "start"
    imagemaking.layered(state)
    with Ours(state=state) as one, Ours(state=state) as many:
        contenders = {
            "ours 30 layers": functools.partial(many.run, [roots.TRUE], image=MANY_LAYERS[30]),
            "1 layer": functools.partial(one.run, [roots.TRUE], image=MANY_LAYERS[1]),
        }
        rounds = stats.interleave(contenders, bench.rounds(60), label="start from layers")
    shutil.rmtree(state)
    report.raw["start_ns"] = dict(rounds.values)
    report.rows.append(
        compare(rounds, "ours 30 layers", "1 layer", "start from an image,", START_TARGET)
    )


# --- commit ------------------------------------------------------------------------------------


def _commit(bench: Bench, report: Report) -> None:
    state = bench.directory / "commit"
    name = imagemaking.large(state)
    with Ours(state=state) as ours:
        found = [
            ours.ask(op="commit", image=name, bytes=COMMIT_BYTES, name=f"committed:{number}")
            for number in range(bench.rounds(12))
        ]
    shutil.rmtree(state)
    report.raw["commit"] = found
    read = sorted(answer["rchar"] / COMMIT_BYTES for answer in found)
    took = statistics.median(answer["ns"] for answer in found)
    disk = max(answer["read_bytes"] for answer in found)
    report.rows.append(
        Row(
            what="commit 10 MB of a 1 GB image: bytes read",
            ours=f"{statistics.median(read) * COMMIT_BYTES / 1e6:.1f} MB",
            peer="10 MB written",
            value=statistics.median(read),
            low=read[0],
            high=read[-1],
            target=COMMIT_TARGET,
            note=f"takes {milliseconds(took)}; from the disk at most {disk / 1e6:.1f} MB",
        )
    )


# --- list --------------------------------------------------------------------------------------


def _list(bench: Bench, report: Report) -> None:
    state = bench.directory / "list"
    imagemaking.many(state, IMAGES)
    command = _command(state, "images")
    spent = [bench.timer.time(command) / 1e9 for _ in range(bench.rounds(40))][1:]
    bare = [bench.timer.time([sys.executable, "-c", "pass"]) / 1e9 for _ in range(bench.rounds(40))]
    shutil.rmtree(state)
    report.raw["list_s"] = spent
    low, _, high = statistics.quantiles(spent, n=4, method="inclusive")
    report.rows.append(
        Row(
            what=f"nscontainer images, {IMAGES} of them",
            ours=milliseconds(statistics.median(spent) * 1e9),
            peer=f"python -c pass {milliseconds(statistics.median(bare) * 1e9)}",
            value=statistics.median(spent),
            low=low,
            high=high,
            unit="s",
            target=LIST_TARGET_S,
        )
    )
