"""The texts of a competition's site, made from its definition: Markdown by file name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from string import Template

from submission.bundle.config import CompetitionSettings, PhaseSettings
from submission.bundle.data import Data
from submission.bundle.kit import MAKER, First, outputs
from submission.challenges import Column, Definition, template

KINDS = {
    "code": (
        "You submit code: a zip with `{entry}` at its root. The platform runs it on inputs whose "
        "answers nobody but the organisers has."
    ),
    "result": (
        "You submit predictions: a zip with prediction files at its root. Nothing of yours is run."
    ),
    "graph": (
        "You submit a network: a zip with its ONNX file, `{entry}`, at its root. The platform runs "
        "it; no code of yours is."
    ),
}
PAGES = ("Overview", "Data", "Evaluation", "Submission")


def pages(
    settings: CompetitionSettings,
    definition: Definition,
    data: Data,
    made: First | None,
    scores: Mapping[str, float],
) -> dict[str, str]:
    """Markdown by title: the four generated ones, then the organiser's own."""
    phases = _phases(settings.phases, definition)
    texts = (
        _overview(settings, definition, phases),
        _data(definition, data),
        _evaluation(definition, made, scores, phases),
        _submission(definition),
    )
    return {**dict(zip(PAGES, texts, strict=True)), **settings.pages}


def terms(settings: CompetitionSettings) -> str:
    """The organiser's terms, or a short text that promises little."""
    return settings.terms or _fill("bundle_terms.md", title=settings.title)


def leaderboard_order(columns: Sequence[Column]) -> list[Column]:
    """The overall score, a definition's last column, first: the platform ranks by the first."""
    return [*columns[-1:], *columns[:-1]]


def readme(settings: CompetitionSettings, definition: Definition, made: First | None) -> bytes:
    """The starting kit's README."""
    files = [
        ("run_local.py", "runs a submission through the competition's own programs"),
        ("scoring_program/", "scores predictions"),
        ("sample_data/", "made-up rows in the layout of the real ones"),
    ]
    if definition.ingestion is not None:
        files.insert(1, ("ingestion_program/", "calls a submission"))
    if made is not None:
        name = next(iter(made.kit))
        files.insert(0, (name, f"a first submission: {made.what}"))
        change = f"Put your own work into `{name}`."
    else:
        change = f"Make your own submission, with `{definition.entry}` at its root."
    table = "\n".join(f"| `{name}` | {text} |" for name, text in files)
    text = _fill(
        "bundle_kit.md", title=settings.title, files=table, change=change, needs=_needs(definition)
    )
    return text.encode()


def _fill(name: str, **words: str) -> str:
    return Template(template(name).decode()).substitute(words).strip() + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _shape(sizes: Iterable[int | None]) -> str:
    return " × ".join("any" if size is None else str(size) for size in sizes) or "one number"


def _phases(phases: Iterable[PhaseSettings], definition: Definition) -> str:
    limits = definition.limits
    head = ("phase", "from (UTC)", "to (UTC)", "a day", "in all", "seconds for each job")
    rows = [
        (
            phase.name,
            f"{phase.start:%Y-%m-%d %H:%M}",
            f"{phase.end:%Y-%m-%d %H:%M}" if phase.end else "open",
            phase.per_day or limits.per_day,
            phase.total or limits.total,
            phase.seconds or max(1, round(limits.seconds)),
        )
        for phase in phases
    ]
    return "## Phases\n\n" + _table(head, rows)


def _overview(settings: CompetitionSettings, definition: Definition, phases: str) -> str:
    return _fill(
        "bundle_overview.md",
        title=settings.title,
        description=settings.description,
        kind=KINDS[definition.kind].format(entry=definition.entry),
        phases=phases,
        contact=f"\nQuestions go to {settings.contact}." if settings.contact else "",
    )


def _data(definition: Definition, data: Data) -> str:
    asked, given = [], []
    for entry in definition.sets:
        for key, array in data.inputs.get(entry.name, {}).items():
            row = _shape(array.shape[1:])
            asked.append((entry.name, f"`{entry.input}`", key, array.dtype, len(array), row))
        rows = len(next(iter(data.references[entry.name].values())))
        if definition.kind == "graph":
            continue
        for key, tensor in outputs(definition, data, entry).items():
            place = " / ".join(entry.key) or key
            row = _shape(tensor.shape)
            given.append((entry.name, f"`{entry.output}`", place, tensor.dtype, rows, row))
    head = ("set", "file", "array", "dtype", "rows", "shape of a row")
    return _fill(
        "bundle_data.md",
        inputs="## Inputs\n\n" + _table(head, asked) if asked else "",
        outputs="## Predictions\n\n" + _table(head, given) if given else "",
    )


def _evaluation(
    definition: Definition, made: First | None, scores: Mapping[str, float], phases: str
) -> str:
    rows = [
        (f"`{column.key}`", column.title, "low" if column.sorting == "asc" else "high")
        for column in leaderboard_order(definition.columns)
    ]
    baseline = ""
    if made is not None and scores:
        ordered = [(f"`{key}`", f"{value:.6g}") for key, value in scores.items()]
        baseline = f"The first submission of the starting kit ({made.what}) scores:\n\n"
        baseline += _table(("column", "score"), ordered)
    rule = inspect.getdoc(definition.rule) or ""
    columns = inspect.getdoc(definition.rule.columns) or ""
    return _fill(
        "bundle_evaluation.md",
        rule=f"{rule}\n\n{columns}".strip(),
        columns=_table(("column", "title", "good is"), rows),
        phases=phases,
        baseline=baseline,
    )


def _submission(definition: Definition) -> str:
    files = list(dict.fromkeys(entry.output for entry in definition.sets))
    mistakes = []
    if definition.kind == "result":
        entry = f"`{files[0]}`"
        layout = "The root of the zip holds\n\n" + "\n".join(f"- `{name}`" for name in files)
        layout += f"\n\n`{MAKER}` in the starting kit writes such a zip."
        platform = "It hands the files of the zip to the scoring program. Nothing else is run."
    elif definition.kind == "graph":
        entry = f"`{definition.entry}`"
        layout = f"The root of the zip holds {entry}, all weights inside it."
        platform = "The ingestion program runs it on every input; the scoring program scores that."
    else:
        entry = f"`{definition.entry}`"
        name, methods = definition.interface
        calls = ", ".join(f"`{method}`" for method in methods)
        layout = (
            f"The root of the zip holds {entry}, beside it whatever it needs. It defines the class "
            f"`{name}` with {calls}; the starting kit holds a first one that runs."
        )
        platform = (
            f"The ingestion program imports `{name}` and calls it for "
            f"{', '.join(f'`{subject}`' for subject in definition.subjects)}, on one core or more, "
            "and not always with a network. Each of the two jobs, prediction and scoring, has its "
            "own time limit."
        )
        mistakes = [
            "- Files opened by a relative path: find them beside `__file__`.",
            "- Packages that the image lacks: put them into the zip; `requirements.txt` is unread.",
        ]
    return _fill(
        "bundle_submission.md",
        layout=layout,
        platform=platform,
        entry=entry,
        mistakes="\n".join(mistakes),
        needs=_needs(definition),
    )


def _needs(definition: Definition) -> str:
    packages = ", ".join(definition.image.packages) if definition.ingestion else ""
    python = definition.image.python or "3.10 or later"
    return f"Python {python} with {packages or 'numpy'}"
