"""HDF5 files of strangers: objects found without leaving the file, numbers read by slice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recording.errors import RecordingError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
WHOLE_BYTES = 2**30  # of what is read whole: time stamps, spikes, tables
CHUNK_BYTES = 2**28  # of one chunk, the least that HDF5 reads
MOST_TEXTS = 10**6
TEXT_BYTES = 2**26
MOST_PARTS = 200  # of a path, with those of the links on it
DEEPEST = 8
MOST_OBJECTS = 20_000
_ERRORS = (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


def is_hdf5(path: Path, head: bytes) -> bool:
    """Whether a file begins as HDF5 does, maybe after a block of 512 bytes (MATLAB 7.3)."""
    return path.is_file() and (head.startswith(SIGNATURE) or head[512:520] == SIGNATURE)


@contextmanager
def reading(file: object, stream: str = "") -> Iterator[None]:
    """What the HDF5 library raises on a damaged file becomes a RecordingError with its place."""
    try:
        yield
    except RecordingError as error:
        raise error.within(file=file, stream=stream) from None
    except _ERRORS as error:
        text = str(error).strip("'\"").splitlines()
        raise RecordingError(
            f"cannot be read as HDF5, it is damaged or cut off ({text[0] if text else error!r})",
            file=file,
            stream=stream,
        ) from None


def open_hdf5(path: Path) -> Any:
    """The file as an open h5py.File, which closes with the last signal that reads from it."""
    import h5py

    with reading(path.name):
        return h5py.File(path, "r", locking="best-effort")


def root_attribute(path: Path, name: str) -> Any:
    """An attribute of the file itself, None where there is none or no way to read it."""
    try:
        with open_hdf5(path) as file, reading(path.name):
            return attribute(file, name)
    except (RecordingError, ImportError):
        return None


def child(group: Any, name: str) -> Any:
    """The group or dataset at a path below `group`, None where there is none.

    Links within the file are followed, a few of them; one to another file is a RecordingError.
    """
    return _follow(group, name, [MOST_PARTS])


def _follow(group: Any, name: str, left: list[int]) -> Any:
    """The same; `left` counts down over all links, which may name links that name links."""
    import h5py

    here = group.file["/"] if name.startswith("/") else group
    for part in name.strip("/").split("/"):
        left[0] -= 1
        if left[0] < 0:
            raise RecordingError(f"is behind more than {MOST_PARTS} links", stream=group.name)
        if not isinstance(here, h5py.Group):
            return None
        link = here.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise RecordingError(
                f"{part!r} lies in another file ({link.filename!r}); only what is in the file "
                "itself is read",
                stream=here.name.strip("/"),
            )
        if isinstance(link, h5py.SoftLink):
            here = _follow(here, link.path, left)
        elif isinstance(link, h5py.HardLink):
            here = here[part]
        else:
            return None
    return here if isinstance(here, (h5py.Group, h5py.Dataset)) else None


def children(group: Any) -> Iterator[tuple[str, Any]]:
    """Name and object of everything in a group, links to other files left out."""
    import h5py

    for name in sorted(group):
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            continue
        found = child(group, f"{name}")
        if found is not None:
            yield name, found


def groups_below(group: Any) -> Iterator[tuple[str, Any]]:
    """Path and group of every group below one, each once, links left out."""
    import h5py

    seen: set[int] = set()
    pending = [("", group, 0)]
    while pending:
        path, here, depth = pending.pop(0)
        for name in sorted(here):
            if not isinstance(here.get(name, getlink=True), h5py.HardLink):
                continue
            if here.get(name, getclass=True) is not h5py.Group:
                continue
            found = here[name]
            address = h5py.h5o.get_info(found.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > MOST_OBJECTS or depth > DEEPEST:
                raise RecordingError("has more groups, or deeper ones, than a recording has")
            yield f"{path}{name}", found
            pending.append((f"{path}{name}/", found, depth + 1))


def attribute(thing: Any, name: str) -> Any:
    """An attribute as text, number or array; None where it is absent or empty."""
    import h5py

    if name not in thing.attrs:
        return None
    value = thing.attrs[name]
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return [_text(one) for one in value.ravel().tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    return _text(value) if isinstance(value, (bytes, str)) else value


def number(thing: Any, name: str, default: float, stream: str) -> float:
    """An attribute that is one finite number; raises RecordingError where it is something else."""
    value = attribute(thing, name)
    if value is None:
        return default
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RecordingError(
            f"attribute {name!r} is {value!r}; must be a finite number", stream=stream
        )
    return float(value)


def check_numbers(dataset: Any, stream: str, *, axes: tuple[int, ...] = (1,)) -> None:
    """Raise RecordingError unless a dataset holds numbers, all of them, in this very file."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise RecordingError("is missing", stream=stream)
    shape, kind = dataset.shape, dataset.dtype.kind
    if shape is None or len(shape) not in axes:
        wanted = " or ".join(map(str, axes))
        raise RecordingError(f"has shape {shape}; must have {wanted} axes", stream=stream)
    if kind not in "iufb":
        what = {"S": "text", "U": "text", "O": "text or objects", "V": "compound values"}
        raise RecordingError(
            f"holds {what.get(kind, str(dataset.dtype))}; must be numbers", stream=stream
        )
    if dataset.is_virtual or dataset.external:
        raise RecordingError(
            "keeps its numbers in other files; only what is in the file itself is read",
            stream=stream,
        )
    if 0 in shape:
        return
    if dataset.chunks is None:
        # A compact dataset lies in its header: its storage is exact too.
        missing = dataset.id.get_storage_size() < math.prod(shape) * dataset.dtype.itemsize
    else:
        if math.prod(dataset.chunks) * dataset.dtype.itemsize > CHUNK_BYTES:
            raise RecordingError(
                f"is stored in chunks of {dataset.chunks}, which take more than "
                f"{CHUNK_BYTES >> 20} MB each; rewrite it with smaller ones",
                stream=stream,
            )
        wanted_chunks = math.prod(
            -(-size // own) for size, own in zip(shape, dataset.chunks, strict=True)
        )
        # HDF5 would give zeros for a chunk that was never written.
        missing = dataset.id.get_num_chunks() < wanted_chunks
    if missing:
        raise RecordingError(
            f"declares the shape {shape}, but not all of it was written", stream=stream
        )


def whole(dataset: Any, stream: str, *, axes: tuple[int, ...] = (1,)) -> np.ndarray:
    """A checked dataset read whole: numbers as they are; raises RecordingError above 1 GB."""
    check_numbers(dataset, stream, axes=axes)
    check_size(dataset, stream)
    return np.asarray(dataset[()])


def check_size(dataset: Any, stream: str) -> None:
    """Raise RecordingError where a dataset is more than what is read at once, 1 GB."""
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if size > WHOLE_BYTES:
        raise RecordingError(
            f"has the shape {dataset.shape}: {size >> 20} MB, more than is read at once",
            stream=stream,
        )


def texts(dataset: Any, stream: str) -> list[str]:
    """A dataset (row,) of text or numbers as text."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or len(dataset.shape) != 1:
        raise RecordingError("must be one column", stream=stream)
    if len(dataset) > MOST_TEXTS or len(dataset) * dataset.dtype.itemsize > TEXT_BYTES:
        raise RecordingError(
            f"has {len(dataset)} rows of {dataset.dtype.itemsize} bytes; at most {MOST_TEXTS} rows "
            f"and {TEXT_BYTES >> 20} MB",
            stream=stream,
        )
    if dataset.dtype.kind in "iufb":
        return [f"{value:g}" for value in whole(dataset, stream).astype(float)]
    if dataset.dtype.kind not in "SO" or h5py.check_ref_dtype(dataset.dtype) is not None:
        raise RecordingError("must be a column of text or numbers", stream=stream)
    if dataset.is_virtual or dataset.external:
        raise RecordingError("lies in other files", stream=stream)
    return [_text(value) for value in dataset[()].tolist()]


def scalar_text(group: Any, name: str) -> str:
    """The text of a scalar dataset, "" where there is none."""
    import h5py

    found = child(group, name)
    if not isinstance(found, h5py.Dataset) or found.shape != () or found.dtype.kind not in "SO":
        return ""
    if found.is_virtual or found.external or h5py.check_ref_dtype(found.dtype) is not None:
        return ""
    if found.dtype.itemsize > TEXT_BYTES:
        return ""
    return _text(found[()])


class Hdf5Signal:
    """A dataset of numbers as a Signal (time, channel), read by slice.

    `transpose` where the file has (channel, time); `rows` are the stretches of file samples
    [first, stop) that count, in order, all where left out. Reading raises RecordingError.
    """

    def __init__(
        self,
        dataset: Any,
        stream: str,
        *,
        file: str,
        transpose: bool = False,
        rows: tuple[tuple[int, int], ...] = (),
    ) -> None:
        with reading(file, stream):
            check_numbers(dataset, stream, axes=(1, 2))
            sizes = tuple(dataset.shape) if len(dataset.shape) == 2 else (len(dataset), 1)
            self._dataset, self._flat = dataset, len(dataset.shape) == 1
            self.dtype: np.dtype = np.dtype(dataset.dtype)
        self._file, self._stream = file, stream
        self._transpose = transpose and not self._flat
        time, channel = sizes[::-1] if self._transpose else sizes
        self._rows = rows or ((0, time),)
        # Where each stretch begins among the samples that count.
        self._begins = np.cumsum([0, *(stop - first for first, stop in self._rows)])
        self.shape: tuple[int, ...] = (int(self._begins[-1]), channel)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError("a slice of a file takes no step")
        parts = []
        for (first, _), begin, end in zip(
            self._rows, self._begins[:-1], self._begins[1:], strict=True
        ):
            low, high = max(start, int(begin)), min(stop, int(end))
            if low < high:
                parts.append(self._read(first + low - int(begin), first + high - int(begin)))
        if not parts:
            return np.empty((0, self.shape[1]), self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read(self, first: int, stop: int) -> np.ndarray:
        with reading(self._file, f"{self._stream}, samples {first} to {stop}"):
            if self._transpose:
                return np.ascontiguousarray(self._dataset[:, first:stop].T)
            found = np.asarray(self._dataset[first:stop])
            return found[:, None] if self._flat else found


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\x00")
    return str(value)
