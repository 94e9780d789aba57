"""FIF, the format of Neuromag and of MNE: its tags are walked through first, mne reads the rest."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recording.contract import Channel, Finding, Recording, Series
from recording.errors import RecordingError
from recording.readers import Format, bids, register
from recording.readers.edf_records import changes
from recording.readers.eeg import Contents, EegOptions, Marker, assemble

_FILE_ID, _BLOCK_START, _BLOCK_END, _ROLE, _REFERENCE = 100, 104, 105, 115, 118
_PREVIOUS_FILE = 1
_RAW_BLOCKS = {102, 112, 119}
_EPOCHS, _EVOKED = 373, 104
_MAGIC = struct.pack(">iii", _FILE_ID, 31, 20)
_BLOCK_BYTES = 8 * 2**20
_MOST_TAGS = 5_000_000
_TYPES = {
    "eeg": "eeg", "mag": "meg", "grad": "meg", "ref_meg": "reference", "eog": "eog", "ecg": "ecg",
    "emg": "emg", "seeg": "seeg", "ecog": "ecog", "dbs": "lfp", "stim": "stimulus", "hbo": "fnirs",
    "hbr": "fnirs", "fnirs_cw_amplitude": "fnirs", "fnirs_od": "fnirs", "eyegaze": "behavior",
    "fnirs_fd_ac_amplitude": "fnirs", "fnirs_fd_phase": "fnirs", "pupil": "behavior",
}  # fmt: skip
# FIFF's numbers of units, and the factor by which potentials become µV.
_UNITS = {107: ("µV", 1e6), 112: ("T", 1.0), 201: ("T/m", 1.0), 6: ("M", 1.0), 101: ("Hz", 1.0)}


class RawSignal:
    """Samples of an mne Raw object in the channels' units: (time, channel) float32.

    The last block that was read is kept, since mne takes long for many small slices. `missing` are
    ranges of samples that were not recorded; they are NaN.
    """

    def __init__(self, raw: Any, factors: np.ndarray, missing: Iterable[tuple[int, int]]) -> None:
        self.shape = (len(raw.times), len(factors))
        self.dtype = np.dtype(np.float32)
        self._raw, self._factors, self._missing = raw, factors, tuple(missing)
        self._size = max(1, _BLOCK_BYTES // (4 * len(factors)))
        self._kept: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError("a slice of a file takes no step")
        values = np.empty((max(0, stop - start), self.shape[1]), np.float32)
        at = start
        while at < stop:
            number = at // self._size
            last = min(stop, (number + 1) * self._size)
            base = number * self._size
            values[at - start : last - start] = self._block(number)[at - base : last - base]
            at = last
        return values

    def codes(self, column: int) -> Iterator[np.ndarray]:
        """Blocks of one channel's values as whole numbers: the file is read through once."""
        for start in range(0, len(self), self._size):
            stop = min(start + self._size, len(self))
            try:
                volts, _ = self._raw[column, start:stop]
            except Exception as error:
                raise self._damaged(error, start) from None
            codes = np.nan_to_num(volts[0] * self._factors[column]).round()
            for first, last in self._missing:
                codes[max(first - start, 0) : max(last - start, 0)] = 0
            yield np.clip(codes, -(2**31), 2**31).astype(np.int64)

    def _block(self, number: int) -> np.ndarray:
        kept = self._kept
        if kept is None or kept[0] != number:
            first = number * self._size
            kept = (number, self._read(first, min(first + self._size, len(self))))
            self._kept = kept
        return kept[1]

    def _read(self, start: int, stop: int) -> np.ndarray:
        # Whatever mne raises on damaged samples means the same here.
        try:
            volts, _ = self._raw[:, start:stop]
        except Exception as error:
            raise self._damaged(error, start) from None
        if volts.shape != (self.shape[1], stop - start):
            raise RecordingError(f"gives {volts.shape} values for {stop - start} samples")
        with np.errstate(over="ignore", invalid="ignore"):
            values: np.ndarray = (volts.T * self._factors).astype(np.float32)
        for first, last in self._missing:
            values[max(first - start, 0) : max(last - start, 0)] = np.nan
        return values

    def _damaged(self, error: Exception, start: int) -> RecordingError:
        at = start / float(self._raw.info["sfreq"])
        return RecordingError(f"samples cannot be read: {error}", at=at)


@dataclass(frozen=True)
class Tags:
    """What the walk through the tags found: kinds of blocks, names of files that it goes on in."""

    blocks: frozenset[int]
    files: tuple[str, ...]


def open_fif(path: Path, options: EegOptions) -> Recording:
    """Open a raw FIF file (with its split parts), or a folder with one; raises RecordingError."""
    if path.is_dir():
        path = bids.sole_file(path, (".fif",))
    tags = walk_tags(path)
    if not tags.blocks & _RAW_BLOCKS:
        other = "epochs" if _EPOCHS in tags.blocks else ""
        other = other or ("averages" if _EVOKED in tags.blocks else "no samples")
        raise RecordingError(f"holds {other}, not a continuous recording: save the raw data")
    _check_parts(path, tags, {path.name})
    raw, said = _open(path)
    try:
        return _recording(path, raw, said, options)
    except (RecordingError, OSError):
        raise
    except Exception as error:
        raise RecordingError(f"its measurement info cannot be read: {error}") from None


def walk_tags(path: Path) -> Tags:
    """Every tag of the file, in order; raises RecordingError where one does not fit the file."""
    size = path.stat().st_size
    blocks, files, at, count, role = set(), [], 0, 0, 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(16)
            if len(head) < 16:
                raise RecordingError(f"ends inside a tag at byte {at}: it is truncated")
            kind, _, length, following = struct.unpack(">iIii", head)
            if length < 0 or at + 16 + length > size:
                raise RecordingError(
                    f"a tag at byte {at} says {length} bytes; the file ends before: it is "
                    "truncated or damaged"
                )
            if kind in (_BLOCK_START, _BLOCK_END) and length == 4:
                blocks.add(int.from_bytes(file.read(4), "big"))
                role = 0
            elif kind == _ROLE and length == 4:
                role = int.from_bytes(file.read(4), "big")
            elif kind == _REFERENCE and role != _PREVIOUS_FILE:
                files.append(file.read(min(length, 4096)).decode("latin-1"))
            if following == -1:
                break
            if following != 0 and following < at + 16 + length:
                raise RecordingError(f"a tag at byte {at} points back, to byte {following}")
            at = following or at + 16 + length
            count += 1
            if count > _MOST_TAGS:
                raise RecordingError(f"has more than {_MOST_TAGS} tags")
    return Tags(frozenset(blocks), tuple(files))


def _check_parts(path: Path, tags: Tags, seen: set[str]) -> None:
    """Raise RecordingError where the parts of a split recording are missing or lie elsewhere."""
    for name in tags.files:
        if name in ("", ".", "..") or re.search(r"[/\\:\0]", name):
            raise RecordingError(f"goes on in {name[:80]!r}; must be in the file's own folder")
        if name in seen:
            continue
        part = path.with_name(name)
        if not part.is_file():
            raise RecordingError(f"goes on in {name!r}; there is no such file beside it")
        seen.add(name)
        try:
            _check_parts(part, walk_tags(part), seen)
        except RecordingError as error:
            raise error.within(file=name) from None


def _open(path: Path) -> tuple[Any, list[str]]:
    """The Raw object and what mne warned of, without what concerns only the file's name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import mne

        try:
            raw = mne.io.read_raw_fif(
                path, preload=False, allow_maxshield=True, on_split_missing="raise", verbose="ERROR"
            )
        except OSError as error:
            raise RecordingError(f"cannot be read: {error}") from None
        except Exception as error:
            kind = type(error).__name__
            raise RecordingError(f"is damaged: mne cannot read it ({kind}: {error})") from None
    # A file's directory may name other tags than those that follow one another.
    folder = path.parent.resolve()
    if any(Path(one).parent.resolve() != folder for one in raw.filenames if one is not None):
        raise RecordingError("goes on in a file of another folder; must be in its own")
    texts = dict.fromkeys(str(one.message) for one in caught)
    return raw, [text for text in texts if "naming conventions" not in text]


def _recording(path: Path, raw: Any, said: list[str], options: EegOptions) -> Recording:
    import mne

    rate = float(raw.info["sfreq"])
    if not 0 < rate < 1e9 or not len(raw.times):
        raise RecordingError(f"rate {rate:g} Hz and {len(raw.times)} samples; must be above 0")
    kinds = [mne.channel_type(raw.info, index) for index in range(len(raw.ch_names))]
    made = [_channel(one, kind) for one, kind in zip(raw.info["chs"], kinds, strict=True)]
    markers, skips = _annotations(raw, rate)
    values = RawSignal(raw, np.array([factor for _, factor in made]), skips)
    channels = tuple(one for one, _ in made)
    if not any(marker.label for marker in markers) and (column := _trigger(channels, kinds)) >= 0:
        markers = changes(values.codes(column), rate)
    # A border at either end of what was skipped, so that no window holds both sides.
    markers += [Marker(edge / rate, 0.0, "boundary") for skip in skips for edge in skip]
    found = Contents(
        [Series(values, rate, channels)],
        markers,
        stated={c.name: _TYPES.get(kind, "other") for c, kind in zip(channels, kinds, strict=True)},
        misc=tuple(c.name for c, kind in zip(channels, kinds, strict=True) if kind == "misc"),
        facts=_facts(raw),
        findings=_findings(raw, said, [(first / rate, last / rate) for first, last in skips]),
    )
    subject = raw.info["subject_info"] or {}
    found.subject = str(subject.get("his_id") or "")
    return assemble(path, "fif", found, options)


def _channel(one: Any, kind: str) -> tuple[Channel, float]:
    unit, factor = _UNITS.get(int(one["unit"]), ("", 1.0))
    if kind == "stim":
        unit, factor = "", 1.0
    place = np.asarray(one["loc"][:3], np.float64)
    there = np.isfinite(place).all() and place.any()
    position = (float(place[0]), float(place[1]), float(place[2])) if there else None
    return Channel(str(one["ch_name"]), unit=unit, position=position), factor


def _annotations(raw: Any, rate: float) -> tuple[list[Marker], list[tuple[int, int]]]:
    """Annotations in seconds from the first sample, and ranges of samples that were skipped."""
    shift = raw.first_time  # mne counts annotations from where the acquisition began
    markers, skips = [], []
    notes = raw.annotations
    for onset, duration, label in zip(notes.onset, notes.duration, notes.description, strict=True):
        at = float(onset) - float(shift)
        if str(label) == "BAD_ACQ_SKIP":
            skips.append((round(at * rate), round((at + float(duration)) * rate)))
        else:
            # Counted in samples and back, so that the shift leaves no rounding behind.
            markers.append(Marker(round(at * rate, 6) / rate, float(duration), str(label)))
    return markers, skips


def _trigger(channels: tuple[Channel, ...], kinds: list[str]) -> int:
    """The stimulus channel that holds whole codes, -1 where there is none."""
    found = [index for index, kind in enumerate(kinds) if kind == "stim"]
    for wanted in ("STI101", "STI 014", "STI014"):
        for index in found:
            if channels[index].name == wanted:
                return index
    return found[0] if found else -1


def _facts(raw: Any) -> dict[str, str]:
    facts = {}
    if raw.info["line_freq"]:
        facts["line_frequency"] = f"{float(raw.info['line_freq']):g}"
    if raw.info["meas_date"] is not None:
        facts["start"] = raw.info["meas_date"].isoformat()
    return facts


def _findings(raw: Any, said: list[str], skips: list[tuple[float, float]]) -> list[Finding]:
    findings = [
        Finding("file", f"mne says: {text}", "look whether it matters here", level="note")
        for text in said
    ]
    if bad := tuple(raw.info["bads"]):
        step = {"step": "drop", "names": [bids.literal(name) for name in bad]}
        remedy = f"leave them out: {{step: drop, names: [{', '.join(bad)}]}}"
        text = f"{', '.join(bad)}: marked bad in the file"
        findings.append(Finding("bad", text, remedy, "neural", channels=bad, steps=(step,)))
    if skips:
        findings.append(
            Finding(
                "gap",
                f"the acquisition skipped {len(skips)} stretches; their samples are NaN",
                "leave them out: {step: split_missing}",
                "neural",
                times=tuple(start for start, _ in skips[:8]),
                steps=({"step": "split_missing"},),
            )
        )
    if raw.info["projs"] and not raw.proj:
        findings.append(
            Finding(
                "file",
                f"{len(raw.info['projs'])} signal-space projections are stored and not applied",
                "apply them before where they are wanted",
                level="note",
            )
        )
    return findings


def _matches(path: Path, head: bytes) -> bool:
    if path.is_dir():
        return bids.holds(path, ".fif")
    return head.startswith(_MAGIC)


register(
    Format(
        "fif",
        (".fif",),
        _matches,
        open_fif,
        extra="fif",
        title="FIF",
        options=EegOptions,
        one_file=True,
        belongs=bids.is_later_part,
    )
)
