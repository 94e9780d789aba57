"""Macaque µECoG, one clip of 40 s (see the recordings' README): a raw potential and band power."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from recording.errors import RecordingError
from recording.preparation.spectra import band_power
from trainer.data.cutting import Stride, cut_forecast, session
from trainer.data.errors import DataError
from trainer.data.files import check_finite
from trainer.data.paths import DataPath, resolve
from trainer.data.splits import Split, TimeSplit
from trainer.data.windows import Dataset
from trainer.registry import DATASETS

CONTACTS, RATE = 62, 250.0
FOLDER = "${AXONNX_DATA}/uecog_goose"
CLIP = f"{FOLDER}/recTEST.LM1_ECOG_3.clfp_ds250.dat"
GRID = f"{FOLDER}/goose_uecog_250hz.npz"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@DATASETS.register("uecog_goose")
def uecog_goose(
    *,
    path: DataPath = CLIP,
    grid: DataPath = GRID,
    dropped_contacts: tuple[Annotated[int, Field(ge=0, lt=CONTACTS)], ...] = (28,),
    band_edges: tuple[Positive, ...] = (0.5, 4, 8, 12, 20, 35, 55, 80, 115),
    smoothing: Positive = 0.1,
    filter_order: Annotated[int, Field(ge=1, le=8)] = 2,
    power_floor: Positive = 1e-3,
    window: Annotated[int, Field(ge=2)] = 20,
    observed: Annotated[int, Field(ge=1)] = 10,
    split: Split = TimeSplit(),  # noqa: B008
    stride: Stride = Stride(),  # noqa: B008
) -> Dataset:
    """Macaque µECoG, 40 s of 62 contacts at 250 Hz, as challenge windows (batch, 20, 61, 9).

    One step is one sample (4 ms). Feature 0 is the raw potential (unit not stated at the origin),
    features 1-8 the log of causal, smoothed power between consecutive `band_edges` (Hz);
    `smoothing` in seconds. Contact 28 is dead and dropped. `grid` (.npz) holds the contacts'
    positions, `xy_mm`; they are not known where it is missing.
    """
    raw = read_clip(resolve(path))
    kept = [contact for contact in range(CONTACTS) if contact not in dropped_contacts]
    if not kept:
        raise DataError("dropped_contacts: names every contact; keep one or more")
    features = goose_features(
        raw[:, kept],
        band_edges=band_edges,
        smoothing=smoothing,
        filter_order=filter_order,
        power_floor=power_floor,
    )
    recording = session(
        "goose",
        features,
        rate=RATE,
        channel_names=[f"contact {contact}" for contact in kept],
        unit="raw",
        subject="goose",
        positions=read_grid(resolve(grid), kept),
    )
    return cut_forecast(
        "uecog_goose",
        [recording],
        window=window,
        observed=observed,
        split=split,
        stride=stride,
        settings={
            "dropped_contacts": list(dropped_contacts),
            "band_edges": list(band_edges),
            "smoothing": smoothing,
            "filter_order": filter_order,
            "power_floor": power_floor,
        },
        description=f"macaque µECoG, {len(raw) / RATE:g} s, {len(kept)} contacts, 250 Hz",
    )


def read_clip(path: Path) -> np.ndarray:
    """The raw clip (time, contact) float32, from float32 little-endian, channel after channel."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; it comes with the shared recordings (uecog_goose)")
    values = np.fromfile(path, "<f4")
    if len(values) == 0 or len(values) % CONTACTS or path.stat().st_size % 4:
        raise DataError(
            f"{path}: {path.stat().st_size} bytes are no {CONTACTS} channels of float32"
        )
    raw = np.ascontiguousarray(values.reshape(CONTACTS, -1).T)
    check_finite(raw, str(path), ("row", "channel"))
    return raw


def read_grid(path: Path, kept: list[int]) -> np.ndarray | None:
    """Positions of the kept contacts (contact, 3) in m, or None where there is no such file."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        places = np.asarray(file["xy_mm"], np.float64)
    if places.shape != (CONTACTS, 2):
        raise DataError(f"{path}: xy_mm is {places.shape}, expected ({CONTACTS}, 2)")
    return np.pad(places[kept] / 1000.0, ((0, 0), (0, 1)))


def goose_features(
    raw: np.ndarray,
    *,
    band_edges: tuple[float, ...],
    smoothing: float,
    filter_order: int,
    power_floor: float,
) -> np.ndarray:
    """Raw potential and band power, causal: (time, channel) → (time, channel, 1 + band) float32."""
    try:
        power = band_power(
            raw,
            rate=RATE,
            edges=band_edges,
            smoothing=smoothing,
            order=filter_order,
            floor=power_floor,
        )
    except RecordingError as error:
        raise DataError(f"band_{error}") from None
    return np.concatenate([raw[:, :, np.newaxis], power], axis=2)
