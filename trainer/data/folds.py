"""Grouped k-fold: which fold a block belongs to, decided by sizes and order alone, never by chance.

Trials and segments go into folds in runs that follow one another in time, so that few neighbours
are parted; sessions, subjects and sites are spread until folds are equally large. Both balance
samples, and classes where blocks have one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence

from trainer.data.blocks import Block, by_session, in_stretches, unit_of
from trainer.data.errors import SplitError

Group = list[Block]


def fold_blocks(blocks: Sequence[Block], unit: str, folds: int) -> list[list[Block]]:
    """The blocks of each fold: no unit is parted, and no two that share samples are.

    The unit `block` cuts every session into `folds` equal stretches of time. Raises SplitError
    where there are fewer units than folds.
    """
    if unit == "block":
        shares = [index / folds for index in range(1, folds)]
        return in_stretches(blocks, shares, "split.unit: block")
    groups = _groups(blocks, unit)
    if len(groups) < folds:
        raise SplitError(
            f"split.folds: {folds} folds of {len(groups)} {unit}(s) that share no sample; "
            "give fewer folds or a smaller unit"
        )
    own = _runs(groups, folds) if unit in ("trial", "segment") else _spread(groups, folds)
    chosen: list[list[Block]] = [[] for _ in range(folds)]
    for group, fold in zip(groups, own, strict=True):
        chosen[fold] += group
    return chosen


def _groups(blocks: Sequence[Block], unit: str) -> list[Group]:
    """The blocks of each unit, in order of appearance; units that share samples are one group."""
    root: dict[Hashable, Hashable] = {}

    def find(name: Hashable) -> Hashable:
        while (above := root.setdefault(name, name)) != name:
            root[name] = name = root[above]
        return name

    for first, second in _overlapping(blocks):
        root[find(unit_of(second, unit))] = find(unit_of(first, unit))
    groups: dict[Hashable, Group] = defaultdict(list)
    for block in blocks:
        groups[find(unit_of(block, unit))].append(block)
    return list(groups.values())


def _overlapping(blocks: Sequence[Block]) -> Iterator[tuple[Block, Block]]:
    """Every block that shares samples with an earlier one, and the one that reaches furthest."""
    for own in by_session(blocks).values():
        furthest = None
        for block in sorted(own, key=lambda block: (block.start, block.stop)):
            if furthest is not None and block.start < furthest.stop:
                yield furthest, block
            if furthest is None or block.stop > furthest.stop:
                furthest = block


def _runs(groups: Sequence[Group], folds: int) -> list[int]:
    """The fold of each group: runs in time, equally many samples of each class in every fold.

    Groups of all sessions are taken in order of how far into their session they lie, so that a
    session of many groups is in every fold. Classes too rare for that share their runs.
    """
    sizes = [sum(map(len, group)) for group in groups]
    kinds = [group[0].kind for group in groups]
    counts = Counter(kinds)
    places = _places(groups)
    own = [0] * len(groups)
    for kind in sorted({kind if counts[kind] >= folds else "" for kind in kinds}):
        chosen = [
            index
            for index in range(len(groups))
            if (kinds[index] if counts[kinds[index]] >= folds else "") == kind
        ]
        chosen.sort(key=lambda index: (places[index], index))
        for index, fold in zip(chosen, _cut([sizes[i] for i in chosen], folds), strict=True):
            own[index] = fold
    return own


def _places(groups: Sequence[Group]) -> list[float]:
    """How far into its session the middle of each group lies, 0 to 1."""
    spans: dict[str, tuple[int, int]] = {
        session: (min(b.start for b in own), max(b.stop for b in own))
        for session, own in by_session(block for group in groups for block in group).items()
    }
    places = []
    for group in groups:
        first, stop = spans[group[0].session]
        middle = (min(b.start for b in group) + max(b.stop for b in group)) / 2
        places.append((middle - first) / (stop - first))
    return places


def _cut(sizes: Sequence[int], folds: int) -> list[int]:
    """The fold of each of consecutive sizes: folds as equal as can be, none of them empty."""
    total, at, fold = sum(sizes), 0, -1
    own = []
    for index, size in enumerate(sizes):
        wanted = int(folds * (2 * at + size) / (2 * total))
        needed = folds - len(sizes) + index  # what is left must reach the last fold
        fold = min(max(wanted, needed), fold + 1)
        own.append(fold)
        at += size
    return own


def _spread(groups: Sequence[Group], folds: int) -> list[int]:
    """The fold of each group: the largest first, each where its classes are the fewest so far."""
    found = [Counter[str]() for _ in groups]
    for group, sizes in zip(groups, found, strict=True):
        for block in group:
            sizes[block.kind] += len(block)
    totals = sum(found, Counter[str]())
    filled = [Counter[str]() for _ in range(folds)]
    own = [0] * len(groups)
    for index in sorted(range(len(groups)), key=lambda i: (-found[i].total(), i)):
        sizes = found[index]

        def cost(fold: int, sizes: Counter[str] = sizes) -> tuple[float, int, int]:
            more = (n * (2 * filled[fold][k] + n) / totals[k] ** 2 for k, n in sizes.items())
            return sum(more), filled[fold].total(), fold

        own[index] = min(range(folds), key=cost)
        filled[own[index]] += sizes
    return own
