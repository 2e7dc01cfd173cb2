"""The door to the container engine: images in and out, containers run to their end.

Everything goes through the Docker API, so that any engine that serves it will do. The SDK is imported
at first use: it costs as much as all the rest of a command's start.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from runner.errors import OutsideError
from runner.state.spec import Image, ImageConfig
from runner.tools import engine_answers, podman
from runner.tools.attached import TICK_S, Attached, Stopping, Watch
from runner.tools.container_request import (
    ContainerRequest,
    Ended,
    container_config,
    deadline_of,
    lifespan,
    program_of,
    stopped_late,
)
from runner.tools.docker_context import context_host
from runner.tools.engine_errors import (
    TIMEOUT,
    UnseenError,
    create_error,
    ended_from_outside,
    is_timeout,
    left_open,
    not_started,
    patience_s,
    plain_words,
    start_error,
    transport_errors,
    words_of,
)
from runner.tools.interrupts import Interrupts, readable

if TYPE_CHECKING:
    from docker import APIClient

LABEL_STORE = "replay.store"
LABEL_RUN = "replay.run"
SILENCE_S = 10.0
BULK_S = 600.0
# What the engine's init process, tini or catatonit, says when it cannot start the program, and its exit codes then.
_NOT_STARTED = re.compile(
    rb"(?:\[FATAL tini \(\d+\)\] exec .+ failed|ERROR \(catatonit:\d+\): failed to exec pid1): (.+)\n"
)
# What podman says, at times instead of all that the container did, when nobody takes the container's input.
_NOT_TAKEN = re.compile(rb"Error: write unixpacket .+: (broken pipe)\n?")
_NOT_STARTED_CODES = (1, 126, 127)
_MOST_SAID = 4096
_OVER = ("exited", "dead", "stopped", "removing")
_KILLED_CODES = (128 + signal.SIGKILL, 128 + signal.SIGTERM)
_NOTED_S = 0.3
_START_ENGINE = "start it (`systemctl start docker`, Docker Desktop, or `make engine` here); `replay doctor` tells more"


class EngineImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image as the engine shows it: its id there, its identity, the names it goes by."""

    id: str
    identity: Image
    entrypoint: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    repo_tags: tuple[str, ...] = ()


class OutputSink(Protocol):
    def write(self, stream: int, data: bytes, /) -> None: ...


def refusal_in(said: bytes) -> str | None:
    """Why a program was not started, in words of the engine's own, if those are all that the container said."""
    first, end, rest = said.partition(b"\n")
    if rest and _NOT_TAKEN.fullmatch(rest):
        said = first + end
    match = _NOT_STARTED.fullmatch(said) or _NOT_TAKEN.fullmatch(said)
    return match[1].decode(errors="replace") if match else None


class Engine:
    """One container engine. Methods raise `OutsideError` when the engine cannot be reached or fails.

    `say` is told when files must be sent to an engine that does not see this machine's. Whatever runs is labelled
    with the store that it is for, so that what a killed command left is found.
    """

    def __init__(
        self, client: APIClient, where: str, say: Callable[[str], None] = lambda _text: None, store_id: str = ""
    ) -> None:
        self._client = client
        self._say = say
        self._labels = {LABEL_STORE: store_id} if store_id else {}
        self._is_mute = False
        self._sees_files: bool | None = True if where.startswith(("unix:", "npipe:")) else None
        self._info: dict[str, Any] | None = None
        self.where = where

    def close(self) -> None:
        """End its connections; it must not be asked any more."""
        self._client.close()

    # --- facts

    def version(self) -> dict[str, Any]:
        with self._errors("ask the engine for its version"):
            return engine_answers.read(self._client.version(api_version=False), dict[str, Any])

    def is_podman(self) -> bool:
        return podman.is_podman(self.version())

    def info(self) -> dict[str, Any]:
        """Asked once. Whether the engine is rootless, and what it can limit."""
        if self._info is None:
            with self._errors("ask the engine about itself"):
                self._info = dict(self._client.info())
        return self._info

    # --- images

    def image(self, reference: str) -> EngineImage | None:
        """The image of that name or id, or None when the engine has none."""
        from docker.errors import ImageNotFound

        with self._errors(f"look at image {reference}"):
            try:
                return _engine_image(self._client.inspect_image(reference))
            except ImageNotFound:
                return None

    def images(self) -> Iterator[EngineImage]:
        """Every image of the engine; one request each."""
        with self._errors("list the images"):
            ids = [entry.id for entry in engine_answers.read(self._client.images(), list[engine_answers.Listed])]
        for image_id in ids:
            found = self.image(image_id)
            if found:
                yield found

    def pull(self, reference: str, platform: str | None = None) -> EngineImage:
        """Pull from the registry that the reference names. Raises `OutsideError` with the registry's word."""
        from docker.utils import parse_repository_tag

        repository, tag = parse_repository_tag(reference)
        with self._errors(f"pull {reference}"), self._in_bulk():
            pull = functools.partial(self._client.pull, stream=True, decode=True, platform=platform)
            for line in _not_stalled(lambda: pull(repository, tag or "latest"), f"pull {reference}"):
                if error := engine_answers.error_in(line):
                    raise OutsideError(f"cannot pull {reference}", error)
        found = self.image(reference)
        if found is None:
            raise OutsideError(f"cannot pull {reference}", "the engine does not show it after the pull")
        return found

    def registry_has(self, repo_digest: str) -> bool:
        """Whether the registry can serve that digest now; False when it cannot be reached."""
        from docker.errors import APIError

        try:
            self._client.inspect_distribution(repo_digest)
        except (APIError, OSError, *transport_errors()):
            return False
        return True

    def registry_knows(self, repo_digest: str) -> bool | None:
        """Whether the registry has that digest; None when it does not say, or this engine cannot ask."""
        from docker.errors import APIError, NotFound

        try:
            self._client.inspect_distribution(repo_digest)
        except NotFound:
            return None if self.is_podman() else False
        except (APIError, OSError, *transport_errors()):
            return None
        return True

    def save(self, image_id: str) -> Iterator[bytes]:
        """The image as a tar stream in docker-archive or OCI layout, as the engine gives it."""
        with self._errors(f"save image {image_id}"), self._in_bulk():
            yield from self._client.get_image(image_id)

    def load(self, archive: Iterable[bytes]) -> None:
        with self._errors("load an archived image"), self._in_bulk():
            for line in self._client.load_image(archive) or ():
                if error := engine_answers.error_in(line):
                    raise OutsideError("the engine refused an archived image", error)

    def import_tar(self, tar: Path, tag: str, changes: list[str]) -> EngineImage:
        """A one-layer image from a file system tar."""
        with self._errors(f"import {tar}"), self._in_bulk():
            # podman has no eyes for a tag of its own
            answer = self._client.import_image_from_file(str(tar), repository=tag, changes=changes)
        for line in answer.splitlines():
            if error := engine_answers.error_in(engine_answers.read_json(line)):
                raise OutsideError(f"the engine refused {tar}", error)
        found = self.image(tag)
        if found is None:
            raise OutsideError(f"cannot import {tar}", "the engine does not show it afterwards")
        return found

    def build(self, folder: Path, tag: str) -> EngineImage:
        """Build a Dockerfile through the docker client (BuildKit is not in the API that the SDK speaks)."""
        command = ["docker", "build", "-q", "-t", tag, str(folder)]
        try:
            done = subprocess.run(command, env=self._client_environment(), capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise OutsideError("cannot build a Dockerfile", "there is no docker client on PATH") from None
        found = self.image(tag) if done.returncode == 0 else None
        if found is None:
            why = [line for line in done.stderr.splitlines() if line.strip()][-1:]
            raise OutsideError(
                f"cannot build {folder / 'Dockerfile'}", why[0].strip() if why else "docker build failed"
            )
        return found

    # --- containers

    def run(
        self,
        request: ContainerRequest,
        sink: OutputSink,
        interrupts: Interrupts,
        watch: Watch = lambda: None,
    ) -> Ended:
        """Run a container to its end; it is removed whatever happens. Output goes to `sink` as it comes.

        A signal or `watch` ends it: TERM, then KILL after 10 s, or at once at the second signal. An engine
        that does not see this machine's files gets copies, and what the container wrote is brought back.
        """
        request = msgspec.structs.replace(request, labels=self._labels | request.labels)
        with interrupts.held():
            if self._sees(request):
                try:
                    return self._run_here(request, sink, interrupts, watch)
                except UnseenError:
                    if not all(mount.source.exists() for mount in request.mounts):
                        raise
                    self._sees_files = False
            return self._run_elsewhere(request, sink, interrupts, watch)

    def layers_of(self, store_id: str) -> dict[str, int]:
        """Images made for containers of that store because the engine does not see its files: id to size."""
        from runner.tools import elsewhere

        with self._errors("list the images"):
            return elsewhere.layers_of(self._client, store_id)

    def remove_image(self, image_id: str) -> None:
        """An image that is gone or in use is no error."""
        from docker.errors import APIError

        with contextlib.suppress(APIError), self._errors(f"remove image {image_id}"):
            self._client.remove_image(image_id)

    def _sees(self, request: ContainerRequest) -> bool:
        """Whether mounts work. A local engine is believed until it refuses one; another is asked once, as it may
        have files of its own at the same paths."""
        if self._sees_files is None and request.mounts:
            from runner.tools import elsewhere

            with self._errors("find out whether the engine sees this machine's files"):
                self._sees_files = elsewhere.sees(self._client, request)
        return self._sees_files is not False

    def _run_here(self, request: ContainerRequest, sink: OutputSink, interrupts: Interrupts, watch: Watch) -> Ended:
        container = self._create(request)
        try:
            return self._run_created(container, request, sink, interrupts, watch)
        finally:
            self.remove(container)

    def _run_elsewhere(
        self, request: ContainerRequest, sink: OutputSink, interrupts: Interrupts, watch: Watch
    ) -> Ended:
        from runner.tools import elsewhere

        with self._errors("send files to the engine"), self._in_bulk():
            placed = elsewhere.place(self._client, request, interrupts, self._say)
        try:
            ended = self._run_here(placed.request, sink, interrupts, watch)
            with self._errors("bring files back from the engine"), self._in_bulk():
                stopped = elsewhere.bring_back(self._client, placed, request, interrupts, watch)
        finally:
            self.remove(placed.holder)
        return msgspec.structs.replace(ended, stopped=ended.stopped or stopped)

    def containers_of(self, store_id: str) -> dict[str, str]:
        """Containers of commands on that store: container id to run-id, which is empty where none belongs to it, as
        for probing and locking."""
        with self._errors("list the containers"):
            listed = self._client.containers(all=True, filters={"label": f"{LABEL_STORE}={store_id}"})
        found = engine_answers.read(listed, list[engine_answers.Listed])
        return {entry.id: (entry.labels or {}).get(LABEL_RUN, "") for entry in found}

    def remove(self, container: str) -> None:
        """Kill and remove; a container that is gone already, or an engine that is, is no error. One that fell silent
        is not asked: the next command sweeps."""
        from docker.errors import APIError

        if self._is_mute:
            return
        with contextlib.suppress(APIError, OSError, *transport_errors()):
            self._client.remove_container(container, force=True, v=True)

    def _create(self, request: ContainerRequest) -> str:
        from docker.errors import APIError

        config = container_config(self._client, request)
        if self.is_podman():
            podman.refuse_ignored(request.limits, self.info())
            config = podman.adapted(config, self.info())
        with self._errors("create a container"):
            try:
                created = self._client.create_container_from_config(config)
            except APIError as error:
                raise create_error(error) from error
        return str(created["Id"])

    def _run_created(
        self,
        container: str,
        request: ContainerRequest,
        sink: OutputSink,
        interrupts: Interrupts,
        watch: Watch,
    ) -> Ended:
        from docker.errors import APIError, NotFound

        with self._errors("run a container"):
            stream = Attached(self._client, container, bool(request.stdin))
            with contextlib.closing(stream):
                started = time.monotonic()
                try:
                    self._client.start(container)
                except APIError as error:
                    raise start_error(error, program_of(request)) from error
                running = time.monotonic()
                if request.stdin is not None:
                    stream.send(request.stdin)
                stopping = Stopping(
                    functools.partial(self._signal, container), interrupts, watch, deadline_of(running, request)
                )
                refusal = self._follow(container, stream, sink, interrupts, stopping)
            try:
                exit_code = self._wait(container, stopping)
                duration = time.monotonic() - started
                state = None if stopping.reason else self._state_of_ended(container, exit_code, duration)
            except NotFound as error:
                raise ended_from_outside() from error
            memory = exit_code != 0 and state is not None and bool(state.get("OOMKilled"))
            stopped = stopped_late(state, duration, request) if state else stopping.reason
        if refusal and exit_code in _NOT_STARTED_CODES:
            raise not_started(program_of(request), refusal)
        return Ended(exit_code=exit_code, duration_s=round(duration, 3), out_of_memory=memory, stopped=stopped)

    def _follow(
        self, container: str, stream: Attached, sink: OutputSink, interrupts: Interrupts, stopping: Stopping
    ) -> str | None:
        """Pass output on until the stream ends; what the engine said if it could not start the program. Raises
        `OutsideError` for an engine that does not close what a container wrote to that has ended."""
        said = b""  # it is written in pieces
        heard, over = time.monotonic(), False
        while True:
            ready = readable([stream] if interrupts.count else [stream, interrupts], TICK_S)
            if stream.fileno() in ready:
                frames = stream.read()
                if frames is None:
                    return refusal_in(said)
                for kind, data in frames:
                    if len(said) < _MOST_SAID:
                        said += data
                    sink.write(kind, data)
                heard, over = time.monotonic(), False
            elif time.monotonic() - heard > SILENCE_S:
                if not self._is_over(container):
                    over = False
                elif over:
                    raise left_open()
                else:
                    over = True
                heard = time.monotonic()
            stopping.step()

    def _is_over(self, container: str) -> bool:
        from docker.errors import NotFound

        try:
            return self._client.inspect_container(container)["State"].get("Status") in _OVER
        except NotFound:
            return True

    def _wait(self, container: str, stopping: Stopping) -> int:
        """The exit code. A job that closed its own output is waited for under the same limits."""
        while True:
            try:
                return int(self._client.wait(container, timeout=TICK_S * 4)["StatusCode"])
            except transport_errors() as error:
                if not is_timeout(error):
                    raise
                self._client.ping()
                stopping.step()

    def _state_of_ended(self, container: str, exit_code: int, duration_s: float) -> dict[str, Any]:
        """How the engine saw the container end. Raises `OutsideError` when the engine was told to end it, which this
        tool did not do; an engine that stops tells itself."""
        state: dict[str, Any] = self._client.inspect_container(container)["State"]
        told = {"container": container, "event": "kill"}
        # An engine notes that it sent a signal when it has, and what that ends may end first. Where a signal is likely
        # that is waited for; else what was noted until now has to do.
        start, end = lifespan(state, duration_s)
        latest = end + _NOTED_S
        until = latest if exit_code in _KILLED_CODES else min(max(end, time.time()), latest)
        if any(True for _ in self._client.events(f"{start:.6f}", f"{until:.6f}", filters=told)):
            raise ended_from_outside()
        return state

    def _signal(self, container: str, name: str) -> None:
        from docker.errors import APIError

        with contextlib.suppress(APIError):
            self._client.kill(container, name)

    @contextlib.contextmanager
    def _in_bulk(self) -> Iterator[None]:
        """The engine says nothing while it packs or unpacks an image, for minutes perhaps."""
        patience, self._client.timeout = self._client.timeout, max(BULK_S, self._client.timeout)
        try:
            yield
        finally:
            self._client.timeout = patience

    def _client_environment(self) -> dict[str, str]:
        return os.environ | {"DOCKER_HOST": self.where}

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        from docker.errors import APIError, DockerException

        try:
            yield
        except APIError as error:
            raise OutsideError(f"cannot {doing}", words_of(error)) from error
        except (DockerException, OSError, *transport_errors()) as error:
            self._is_mute = is_timeout(error)
            found = "does not answer" if self._is_mute else "went away"
            why = f"the engine at {self.where} {found}: {plain_words(error)}"
            raise OutsideError(f"cannot {doing}", why, _START_ENGINE) from error


def connect(say: Callable[[str], None] = lambda _text: None, store_id: str = "") -> Engine:
    """The engine that the docker client would use: DOCKER_HOST, DOCKER_CONTEXT, the current context, the
    default socket. Raises `OutsideError` when none answers."""
    host = os.environ.get("DOCKER_HOST") or context_host() or "unix:///var/run/docker.sock"
    from docker.errors import DockerException

    from runner.tools.engine_client import client_of, client_of_environment

    try:
        if os.environ.get("DOCKER_HOST") and os.environ.get("DOCKER_TLS_VERIFY"):
            client = client_of_environment()
        else:
            client = client_of(host)
    except (DockerException, OSError) as error:
        raise _no_engine(host, error) from error
    return Engine(client, host, say, store_id)


def connect_if_any() -> Engine | None:
    """The engine, if one answers."""
    try:
        return connect()
    except OutsideError:
        return None


def _no_engine(host: str, error: Exception) -> OutsideError:
    return OutsideError(f"no container engine answers at {host}", plain_words(error), _START_ENGINE)


def _engine_image(answer: Any) -> EngineImage:
    inspected = engine_answers.read(answer, engine_answers.Inspected)
    config = inspected.config or engine_answers.Config()
    return EngineImage(
        id=inspected.id,
        identity=Image(
            platform="/".join(filter(None, (inspected.os, inspected.architecture, inspected.variant))),
            diff_ids=(inspected.root_fs and inspected.root_fs.layers) or (),
            config=ImageConfig(
                env=dict(entry.partition("=")[::2] for entry in config.env or ()),
                user=config.user or None,
                workdir=config.working_dir or None,
            ),
        ),
        entrypoint=config.entrypoint or (),
        repo_digests=tuple(sorted(inspected.repo_digests or ())),
        repo_tags=tuple(sorted(inspected.repo_tags or ())),
    )


def _not_stalled(begin: Callable[[], Iterable[dict[str, Any]]], doing: str) -> Iterator[dict[str, Any]]:
    """Lines of progress as they come. The engine itself waits for ever for a registry that falls silent."""
    lines: queue.SimpleQueue[dict[str, Any] | Exception | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            for line in begin():
                lines.put(line)
            lines.put(None)
        except Exception as error:  # noqa: BLE001
            lines.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=patience_s())
        except queue.Empty:
            why = f"nothing came for {patience_s():g} s ({TIMEOUT} says how long to wait)"
            raise OutsideError(f"cannot {doing}", why) from None
        if isinstance(line, Exception):
            raise line
        if line is None:
            return
        yield line
