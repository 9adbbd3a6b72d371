"""From a Dockerfile to an image: stage by stage, step by step, each layer from the cache or made."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nscontainer.build import (
    cache,
    copying,
    dockerfile,
    execute,
    expand,
    keeping,
    owners,
    stages,
    state,
    trees,
)
from nscontainer.build.asked import Options
from nscontainer.build.cache import Cache, Record
from nscontainer.build.dockerfile import Dockerfile, Instruction
from nscontainer.build.events import Done, Event, Note, Step
from nscontainer.build.newlayer import NewLayer, Owner
from nscontainer.build.stages import Stage, expanded
from nscontainer.build.state import State
from nscontainer.build.trees import Node, Tree, Union
from nscontainer.engine.state import state_dir
from nscontainer.errors import NotFoundError, NsContainerError, SpecError
from nscontainer.image import host
from nscontainer.image.below import HostLayer
from nscontainer.image.records import timestamp
from nscontainer.image.tree import remove_tree

if TYPE_CHECKING:
    from nscontainer.image.records import Image, Layer
    from nscontainer.image.store import Store


def build(
    file: Dockerfile,
    context: Tree | None,
    options: Options,
    *,
    store: Store,
    on_event: Callable[[Event], None],
) -> Image:
    """Build an image.

    Parameters
    ----------
    context
        What COPY and ADD take files from; None where there is nothing.
    on_event
        Told each step, what it says, how it went.

    Raises
    ------
    SpecError
        The Dockerfile can't be carried out.
    BuildError
        A RUN failed; what was made before it is in the cache.
    KeyboardInterrupt
        Likewise, where it was interrupted.
    """
    options.check()
    plan = stages.split(file, options.build_args, options.target)
    for name in _unused(file, options.build_args):
        on_event(Note(f"--build-arg {name}: there is no ARG {name}"))
    with contextlib.ExitStack() as stack:
        execute.remove_left(store)
        stack.callback(keeping.drop_what_others_have, store)  # when the store may be swept again
        stack.enter_context(store.holding())
        building = _Building(context, options, plan, store, on_event, stack)
        for stage in plan.wanted:
            building.stage(stage)
        return building.finish(plan.wanted[-1])


def _unused(file: Dockerfile, build_args: Mapping[str, str]) -> list[str]:
    declared = {
        part.partition("=")[0]
        for made in file.instructions
        if made.keyword == "ARG"
        for part in dockerfile.quoted_words(made.rest, made.escape)
    }
    return sorted(set(build_args) - declared - set(stages.PROXIES))


_ATTEMPTS: Final = 5
_Key = tuple[bool, tuple[str, ...], tuple[str, ...]]


@dataclass
class _Building:
    """One build."""

    context: Tree | None
    options: Options
    plan: stages.Stages
    store: Store
    tell: Callable[[Event], None]
    stack: contextlib.ExitStack
    states: dict[int, State] = field(default_factory=dict)
    images: dict[_Key, Image] = field(default_factory=dict)
    """By what a RUN can tell of them: on the host or not, volumes, layers."""
    begun_ns: int = field(default_factory=time.time_ns)

    def __post_init__(self) -> None:
        self.cache = Cache(self.store, use=self.options.use_cache)

    # --- stages ------------------------------------------------------------------------------

    def stage(self, stage: Stage) -> None:
        """Build one stage."""
        name = (stage.name or f"stage-{stage.index}") if len(self.plan.wanted) > 1 else ""
        numbers = iter(range(1, 1 << 30))
        total = 1 + len(stage.instructions)
        begin = stage.begin
        text = f"FROM {stage.base}{f' AS {stage.name}' if stage.name else ''}"
        with self._step(Step(next(numbers), total, text, name)) as done:
            now = self._base(stage)
            triggers = self._triggers(now, begin)
            done.cached = stage.base_stage is None
        total += len(triggers)
        for made in (*triggers, *stage.instructions):
            with self._step(Step(next(numbers), total, made.text, name)) as done:
                self._carry_out(stage, now, made, done)
        self.states[stage.index] = now

    @contextlib.contextmanager
    def _step(self, step: Step) -> Iterator[_How]:
        self.tell(step)
        begin, how = time.monotonic(), _How()
        yield how
        self.tell(Done(step, time.monotonic() - begin, how.cached, how.layer_bytes))

    def _base(self, stage: Stage) -> State:
        if stage.base_stage is not None:
            return self.states[stage.base_stage].copy()
        if stage.base == "scratch":
            return State().with_path()
        if stage.base == "host":
            return State(on_host=True)
        image = self._found(stage.base, stage.begin)
        made = State.of(image)
        self.images[_key(made)] = image
        return made

    def _found(self, name: str, made: Instruction) -> Image:
        """Give an image, from a registry where it isn't here or a newer one is wanted."""
        try:
            if not self.options.pull:
                return self.store.get(name)
        except NotFoundError:
            pass
        except SpecError as error:
            raise made.wrong(error.message, error.hint) from None
        from nscontainer.image.registry.pull import pull

        self.tell(Note(f"pulling {name}"))
        try:
            return pull(name, store=self.store)
        except NsContainerError as error:
            # As it is, but for the place: whatever else its type knows stays with it.
            error.message = f"{made.place}: {error.message}"
            error.args = (error.message, *error.args[1:])
            raise

    def _triggers(self, now: State, begin: Instruction) -> list[Instruction]:
        """Give the instructions that the base has kept for those who build on it (its ONBUILDs)."""
        texts = now.config.pop("OnBuild", None) or []
        if not texts:
            return []
        return list(dockerfile.parse("\n".join(texts), f"{begin.place} (ONBUILD)").instructions)

    # --- steps -------------------------------------------------------------------------------

    def _carry_out(self, stage: Stage, now: State, made: Instruction, done: _How) -> None:
        if made.keyword == "RUN":
            self._run(now, made, done)
        elif made.keyword in ("COPY", "ADD"):
            self._copy(stage, now, made, done)
        else:
            before = now.fingerprint()
            text = state.apply(now, made, self.options.build_args, self.plan.global_args)
            if made.keyword == "WORKDIR" and self._workdir(before, now, made, text, done):
                return
            self._note(now, cache.key(before, text), text, done)

    def _note(self, now: State, key: str, text: str, done: _How) -> None:
        """Put an instruction that made no layer into the history."""
        record = self.cache.find(key)
        if record is None:
            record = Record(timestamp())
            self.cache.add(key, record)
        else:
            done.cached = True
        now.chain = key
        now.history.append({"created": record.created, "created_by": text, "empty_layer": True})

    def _layer(
        self, now: State, key: str, text: str, make: Callable[[], Layer], done: _How
    ) -> None:
        """Put a layer on top: the cache's, or a new one."""
        record = self.cache.find(key)
        done.cached = record is not None and record.layer is not None
        if record is None or record.layer is None:
            record = Record(timestamp(), make())
        layer = record.layer
        assert layer is not None
        done.layer_bytes = layer.descriptor.size
        now.chain = key
        now.layers.append(layer)
        now.history.append({"created": record.created, "created_by": text})
        if not done.cached:
            self._image(now)  # keeps the layer in the store, whatever comes next
            self.cache.add(key, record)

    def _run(self, now: State, made: Instruction, done: _How) -> None:
        words = state.command_of(made, now.shell)
        more, counted = state.run_variables(now, self.options.build_args)
        asked = made.flag("network")
        network = self.options.network if asked in (None, "default") else asked
        command = execute.Command(
            tuple(words), {**now.env, **more}, now.config.get("User") or None, now.workdir, network
        )

        def make() -> Layer:
            for attempt in range(_ATTEMPTS):
                image = self._image(now)
                if image is None and not now.on_host:
                    hint = "begin FROM one, or COPY a program first"
                    raise made.wrong("RUN: the image is empty", hint)
                try:
                    return execute.run(command, image, self.store, made, self.tell)
                except SpecError as error:  # a user, say, that the image doesn't have
                    raise made.wrong(f"RUN: {error.message}", error.hint) from None
                except NotFoundError:
                    # The same build beside this one made the same image, and needs it no more.
                    if self.images.pop(_key(now), None) is None or attempt == _ATTEMPTS - 1:
                        raise
            raise AssertionError

        key = cache.key(now.fingerprint(), "RUN", words, counted)
        self._layer(now, key, state.run_text(words, counted), make, done)

    def _workdir(self, before: str, now: State, made: Instruction, text: str, done: _How) -> bool:
        """Make the working directory where the image has none; tell whether that made a layer."""
        layer = NewLayer(self._tree(now), self.begun_ns)
        try:
            path = trees.resolve(layer, now.workdir)
            layer.make_directory(path, Owner())
        except SpecError as error:
            raise made.wrong(error.message, error.hint) from None
        if layer.below.look(path) is not None or not path:
            return False
        self._layer(now, cache.key(before, text, "made"), text, lambda: self._written(layer), done)
        return True

    def _copy(self, stage: Stage, now: State, made: Instruction, done: _How) -> None:
        try:
            what = self._what(stage, now, made)
            layer = NewLayer(self._tree(now), self.begun_ns)
            copying.plan(what, layer)
        except SpecError as error:
            if error.message.startswith(made.place):
                raise
            raise made.wrong(f"{made.keyword}: {error.message}", error.hint) from None
        flags = "".join(f"--{name}={value} " for name, value in made.flags)
        sources = " ".join(what.sources)
        text = f"{made.keyword} {flags}{sources} {what.destination}"
        key = cache.key(now.fingerprint(), text, layer.digest())
        self._layer(now, key, text, lambda: self._written(layer), done)

    def _what(self, stage: Stage, now: State, made: Instruction) -> copying.Copy:
        words = [expanded(made, word, now.variables) for word in made.words()]
        inline = {h.name: _here(made, h, now.variables) for h in made.heredocs}
        mode = made.flag("chmod")
        if mode is not None and (not mode.isdigit() or set(mode) - set("01234567")):
            raise made.wrong(f"--chmod {mode!r} can't be read", "in octal, as 0755")
        chown = made.flag("chown")
        chown = None if chown is None else expanded(made, chown, now.variables)
        given = None if chown is None else owners.parse(chown, self._tree(now))
        origin = self._origin(stage, made)
        return copying.Copy(
            sources=tuple(_inline_name(word, inline) for word in words[:-1]),
            destination=now.absolute(words[-1]),
            origin=origin,
            owner=given if made.flag("from") is not None else (given or Owner()),
            archive_owner=given,
            mode=None if mode is None else int(mode, 8),
            inline=tuple(inline.items()),
            mtime_ns=self.begun_ns,
            unpacked=self._unpacked if made.keyword == "ADD" else None,
        )

    def _origin(self, stage: Stage, made: Instruction) -> Tree:
        source = made.flag("from")
        if source is None:
            if self.context is None:
                if len(made.heredocs) == len(made.words()) - 1:
                    return Union(())
                raise made.wrong(
                    f"{made.keyword} needs files, and there is no context",
                    "give a directory, as nscontainer build DIRECTORY",
                )
            return self.context
        if source in stage.copies_from:
            return self._tree(self.states[stage.copies_from[source]])
        if source in ("host", "scratch"):
            raise made.wrong(f"{source!r} has no files to copy", "name a stage or an image")
        return self._tree(State.of(self._found(source, made)))

    # --- trees, layers, images ----------------------------------------------------------------

    def _tree(self, now: State) -> Union:
        """Give what an image of these layers shows, as a tree."""
        below = [trees.HOST] if now.on_host else []
        image = self._image(now)
        if image is not None:
            self.store.unpack(image)
        found = [self.store.layer_dir(layer.diff_id) for layer in now.layers]
        whole = [*below, *(directory for directory in found if directory is not None)]
        return Union(whole, _unseen()) if now.on_host else Union(whole)

    def _written(self, layer: NewLayer) -> Layer:
        return self.store.add_layer(layer.write)

    def _unpacked(self, node: Node) -> Tree | None:
        directory = execute.unpacked(node.real, self.store)
        if directory is None:
            return None
        self.stack.callback(remove_tree, directory)
        return Union([directory])

    def _image(self, now: State) -> Image | None:
        """Give an image that has these layers; None for the bare ``host``, or for nothing at all."""
        if not now.layers:
            return None
        key = _key(now)
        if key not in self.images:
            self.images[key] = self.store.make_image(
                now.image_config(_last(now)), now.layers, name=None, annotations=keeping.MARK
            )
        return self.images[key]

    def finish(self, stage: Stage) -> Image:
        """Make the image and give it its names."""
        now = self.states[stage.index]
        if self.options.labels:
            now.config["Labels"] = {**(now.config.get("Labels") or {}), **self.options.labels}
        first, *others = self.options.tags or (None,)
        image = self.store.make_image(now.image_config(_last(now)), now.layers, name=first)
        for name in others:
            assert name is not None
            # By its manifest: an image that is only the cache's may have the same config.
            self.store.tag(image.manifest.digest, name)
        return self.store.get(image.manifest.digest)


def _unseen() -> Callable[[str], bool]:
    """Give what tells that a path of this machine is one that containers of ``host`` don't see."""
    plan = host.plan((), home=os.path.expanduser("~"), hide=[state_dir()])
    layer = HostLayer(plan.views[0])
    return lambda path: layer.stat(path.lstrip("/")) is None


@dataclass
class _How:
    """How a step went."""

    cached: bool = False
    layer_bytes: int | None = None


def _key(now: State) -> _Key:
    volumes = tuple(sorted(now.config.get("Volumes") or ()))
    return now.on_host, volumes, tuple(layer.diff_id for layer in now.layers)


def _last(now: State) -> str | None:
    """Give the time of the last step: the same steps from the cache make the same image."""
    return str(now.history[-1]["created"]) if now.history and "created" in now.history[-1] else None


def _inline_name(word: str, inline: Mapping[str, object]) -> str:
    """Give a source's name; that of a here-document without its ``<<``, its quotes are gone."""
    plain = word.removeprefix("<<").removeprefix("-")
    return plain if word.startswith("<<") and plain in inline else word


def _here(made: Instruction, heredoc: dockerfile.Heredoc, variables: Mapping[str, str]) -> bytes:
    """Give a here-document's bytes, its variables replaced where its name wasn't quoted."""
    if not heredoc.expand:
        return heredoc.content.encode()
    try:
        return expand.text(heredoc.content, variables, made.escape).encode()
    except SpecError as error:
        raise made.wrong(error.message, error.hint) from None
