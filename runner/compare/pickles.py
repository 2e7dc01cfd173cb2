"""Which globals a pickle would call, read off its opcodes. Nothing is ever loaded.

Only what precedes a global is followed: strings, the memo and the opcodes that name one. Long strings and
bytes are skipped, so that a pickle of any size is read in little memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Any

import msgspec

from runner.shown import shown

_KEPT = 1 << 10
_MAX_LINE = 1 << 16
_MAX_GLOBALS = 10_000
_MAX_MEMO = 1_000_000
_SHOWN = 120
_SIZES = {-2: "<B", -3: "<i", -4: "<I", -5: "<Q"}
_NAMED = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}


class Globals(msgspec.Struct, frozen=True):
    """`names` as `module.name`; `until` is the byte at which the stream stopped to be a pickle, if it did."""

    names: frozenset[str]
    until: int | None = None


def globals_of(file: IO[bytes]) -> Globals:
    """The globals of one pickle, or of several in a row. Raises `OSError`."""
    names = set[str]()
    stream = _Stream(file)
    while True:
        begun = stream.position
        try:
            for name in _named(stream):
                names.add(name)
                if len(names) >= _MAX_GLOBALS:
                    return Globals(frozenset(names), stream.position)
        except _StoppedError:
            # What follows a whole pickle is raw data.
            is_first = begun == 0
            return Globals(frozenset(names), stream.position if is_first else None)


class _StoppedError(Exception):
    """What is read is no pickle, or no more."""


class _Stream:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.position = 0

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) < size:
            raise _StoppedError
        self.position += size
        return content

    def line(self) -> bytes:
        content = self._file.readline(_MAX_LINE)
        if not content.endswith(b"\n"):
            raise _StoppedError
        self.position += len(content)
        return content[:-1]

    def long(self, size: int) -> bytes | None:
        """Content of a size that the stream gives; None if it is too long for a name."""
        if size < 0:
            raise _StoppedError
        if size <= _KEPT:
            return self.read(size)
        while size:
            size -= len(self.read(min(size, 1 << 16)))
        return None


def _named(stream: _Stream) -> Iterator[str]:
    """The globals up to the end of one pickle."""
    memo: dict[int, str | None] = {}
    last: list[str | None] = []
    for name, argument in _opcodes(stream):
        if name in _NAMED:
            last = [*last[-1:], argument]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(memo) if name == "MEMOIZE" else argument
            if len(memo) >= _MAX_MEMO:
                raise _StoppedError
            memo[place] = last[-1] if last else None
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            last = [*last[-1:], memo.get(argument)]
        elif name in ("GLOBAL", "INST"):
            yield shown(argument.replace(" ", ".", 1), _SHOWN)
            last = [None]
        elif name == "STACK_GLOBAL":
            module, own = [*[None, None], *last][-2:]
            yield shown(f"{module or '?'}.{own or '?'}", _SHOWN)
            last = [None]
        elif name not in ("PROTO", "FRAME", "MARK"):
            last = [*last[-1:], None]


def _opcodes(stream: _Stream) -> Iterator[tuple[str, Any]]:
    import pickletools

    known = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
    while True:
        opcode = known.get(stream.read(1))
        if opcode is None:
            raise _StoppedError
        yield opcode.name, _argument(stream, opcode)
        if opcode.name == "STOP":
            return


def _argument(stream: _Stream, opcode: Any) -> Any:
    """What follows the opcode: text of those that hold a name, numbers of those that point into the memo."""
    if opcode.arg is None:
        return None
    if opcode.name in ("GLOBAL", "INST"):
        return f"{_text(stream.line())} {_text(stream.line())}"
    if opcode.arg.n == -1:
        line = stream.line()
        return _number(line) if opcode.name in ("PUT", "GET") else _text(line.strip(b"'\""))
    if opcode.arg.n in _SIZES:
        form = _SIZES[opcode.arg.n]
        (size,) = struct.unpack(form, stream.read(struct.calcsize(form)))
        content = stream.long(size)
        return None if content is None else _text(content)
    return int.from_bytes(stream.read(opcode.arg.n), "little")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _number(line: bytes) -> int:
    try:
        return int(line[:20])
    except ValueError:
        raise _StoppedError from None
