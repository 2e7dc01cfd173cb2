"""Arrays of unknown origin: npy, npz and safetensors, as their content tells.

Headers are read here and believed only as far as the file bears them out. Nothing is unpickled. Values are
mapped, never held: an npz has its members unpacked one at a time into a folder of ours.
"""

from __future__ import annotations

import ast
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.compare import jsonread, zipread
from runner.shown import shown
from runner.tables.malformed import MalformedError

if TYPE_CHECKING:
    import numpy

_MAGIC = b"\x93NUMPY"
_MAX_NPY_HEADER = 10_000  # numpy's own bound
_MAX_SAFETENSORS_HEADER = 16 << 20
_MAX_DIMENSIONS = 32
_SHOWN = 100
# Those that numpy does not have are compared as the integers that hold them, but for bfloat16.
_SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
    "F8_E8M0": "u1",
    "C64": "<c8",
}


class Array(msgspec.Struct, frozen=True):
    """`type` is the file's word for what an element is, whatever its byte order."""

    type: str
    values: Any

    def decoded(self, values: Any) -> Any:
        """Elements as numpy knows them."""
        import numpy

        if self.type != "BF16":
            return values
        return (values.astype(numpy.uint32) << 16).view(numpy.float32)


class Arrays(msgspec.Struct, frozen=True):
    """Opened one at a time: what `open` gave before may be gone."""

    format: str
    names: tuple[str, ...]
    open: Callable[[str], Array]
    metadata: Mapping[str, str] = {}


@contextmanager
def arrays_of(path: Path, folder: Path) -> Iterator[Arrays]:
    """What the file holds; `folder` is for what has to be unpacked. Raises `MalformedError`, `OSError`."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(_MAGIC):
        arrays = {"": _npy(path)}
        yield Arrays("npy", ("",), arrays.__getitem__)
    elif head.startswith((zipread.MAGIC, b"PK\x05\x06")):
        with zipread.opened(path) as archive:
            members = zipread.members_of(archive)

            def opened(name: str) -> Array:
                unpacked = folder / "unpacked"
                unpacked.unlink(missing_ok=True)
                with unpacked.open("wb") as file:
                    file.writelines(zipread.chunks(archive, members[f"{name}.npy"]))
                return _npy(unpacked)

            if foreign := [name for name in members if not name.endswith(".npy")]:
                raise MalformedError(f"not an npz: it holds {shown(foreign[0], _SHOWN)}")
            yield Arrays("npz", tuple(name.removesuffix(".npy") for name in members), opened)
    elif len(head) == 8:
        yield _safetensors(path, struct.unpack("<Q", head)[0])
    else:
        raise MalformedError("neither npy, npz nor safetensors")


# --- npy -----------------------------------------------------------------------------------------------


def _npy(path: Path) -> Array:
    import numpy

    size = path.stat().st_size
    with path.open("rb") as file:
        text, offset = _npy_header(file.read(_MAX_NPY_HEADER + 12))
    try:
        header = ast.literal_eval(text.strip())
        type = numpy.lib.format.descr_to_dtype(header["descr"])
        shape, in_columns = header["shape"], header["fortran_order"]
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, MemoryError, RecursionError):
        raise MalformedError("not an npy: its header cannot be read") from None
    if not (_is_shape(shape) and isinstance(in_columns, bool) and len(header) == 3):
        raise MalformedError("not an npy: its header cannot be read")
    if type.hasobject:
        raise MalformedError("it holds Python objects, which are not unpickled")
    _refuse_lie("", shape, type.itemsize, size - offset)
    return Array(str(type.newbyteorder("=")), _mapped(path, type, offset, shape, "F" if in_columns else "C"))


def _npy_header(head: bytes) -> tuple[str, int]:
    """The header's text and where the values begin."""
    version = tuple(head[6:8])
    if not head.startswith(_MAGIC) or version not in ((1, 0), (2, 0), (3, 0)) or len(head) < 12:
        raise MalformedError("not an npy: its header cannot be read")
    start, form = (10, "<H") if version == (1, 0) else (12, "<I")
    (length,) = struct.unpack_from(form, head, 8)
    if length > _MAX_NPY_HEADER or start + length > len(head):
        raise MalformedError(f"not an npy: its header says to have {length:,} bytes")
    text = head[start : start + length].decode("utf-8" if version == (3, 0) else "latin-1", "replace")
    return text, start + length


# --- safetensors ---------------------------------------------------------------------------------------


def _safetensors(path: Path, length: int) -> Arrays:
    size = path.stat().st_size - 8 - length
    if length > _MAX_SAFETENSORS_HEADER or size < 0:
        raise MalformedError(f"neither npy, npz nor safetensors: its header would have {length:,} bytes")
    with path.open("rb") as file:
        file.seek(8)
        header = jsonread.read(file.read(length))
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(header, dict) or not isinstance(metadata, dict):
        raise MalformedError("not safetensors: its header cannot be read")
    arrays = {name: _tensor(path, name, value, 8 + length, size) for name, value in header.items()}
    return Arrays("safetensors", tuple(arrays), lambda name: arrays[name](), metadata)


def _tensor(path: Path, name: str, value: Any, start: int, size: int) -> Callable[[], Array]:
    match value:
        case {"dtype": str(type), "shape": list(dimensions), "data_offsets": [int(begin), int(end)], **rest}:
            shape = tuple(dimensions)
        case _:
            raise MalformedError(f"{shown(name, _SHOWN)}: its header cannot be read")
    if rest or not _is_shape(shape) or not 0 <= begin <= end <= size:
        raise MalformedError(f"{shown(name, _SHOWN)}: its header cannot be read, or it ends before its values")
    if type not in _SAFETENSORS:
        raise MalformedError(f"{shown(name, _SHOWN)}: the type {shown(type, _SHOWN)} is not known")

    def opened() -> Array:
        import numpy

        return Array(type, _mapped(path, numpy.dtype(_SAFETENSORS[type]), start + begin, shape, "C"))

    _refuse_lie(f"{shown(name, _SHOWN)}: ", shape, _ITEM[type], end - begin)
    return opened


_ITEM = {name: {"?": 1}.get(code) or int(code[-1]) for name, code in _SAFETENSORS.items()}


# --- both ----------------------------------------------------------------------------------------------


def _is_shape(shape: Any) -> bool:
    """Whether it is one, with so few elements that they can be counted."""
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
        return False
    sizes = [size for size in shape if type(size) is int and 0 <= size < 1 << 62]
    return len(sizes) == len(shape) and math.prod(size or 1 for size in sizes) < 1 << 62


def _refuse_lie(place: str, shape: tuple[int, ...], item: int, held: int) -> None:
    declared = math.prod(shape) * item
    if declared != held:
        raise MalformedError(f"{place}{list(shape)} takes {declared:,} bytes, and there are {held:,}")


def _mapped(path: Path, type: numpy.dtype[Any], offset: int, shape: tuple[int, ...], order: Any) -> Any:
    """Nothing can be mapped where there is nothing."""
    import numpy

    if math.prod(shape) * type.itemsize == 0:
        return numpy.empty(shape, type)
    return numpy.memmap(path, type, "r", offset, shape, order)
