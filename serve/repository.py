"""The models that are served, by name and version; loaded, exchanged and dropped while running.

A path of the settings is an artifact (folder or zip) or a folder of them, at most two levels deep,
so that `models/<name>/<version>/` works as well. Names and versions are those of the manifests,
unless one name is given for all. Every change makes a new table and puts it in the place of the old
one: a request that has found its model keeps it to the end.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from artifact import ArtifactError, Model, bundle
from serve.changes import Changes
from serve.errors import ArtifactRefused, NotFound, NotReady
from serve.logs import life, log_model
from serve.statistics import Statistics

RESERVED = frozenset({"stats"})  # /v2/models/stats is a path of the V2 protocol
READY, LOADING, UNAVAILABLE = "READY", "LOADING", "UNAVAILABLE"
TRIM_SECONDS = 60.0
_DEPTH = 2


class Load(Protocol):
    """How an artifact becomes a model."""

    def __call__(self, path: Path) -> Model:
        """The model at this path; raises ArtifactError."""


@dataclass(frozen=True, eq=False)
class Served:
    """One version of a model that answers."""

    name: str
    version: str
    model: Model
    path: Path
    statistics: Statistics = field(default_factory=Statistics)


@dataclass(frozen=True)
class Listing:
    """A line of the index: `state` is READY, LOADING, or UNAVAILABLE for the reason given.

    `source` is the file or folder, without the path to it.
    """

    name: str
    version: str
    state: str
    reason: str
    source: str


Versions = dict[str, Served]
Failures = dict[Path, Listing]


class Repository:
    """Models by name and version. Reading is safe from any thread; changes follow one another."""

    def __init__(self, paths: Sequence[Path], load: Load, name: str | None = None) -> None:
        self._paths = tuple(paths)
        self._load = load
        self._name = name
        self._table: dict[str, Versions] = {}
        self._failures: Failures = {}
        self._statistics: dict[tuple[str, str], Statistics] = {}
        self._loading: Failures = {}
        self._changing = threading.Lock()
        self.changes = Changes()
        self.started = False
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether loading is over, at least one model answers, and the service stays."""
        return self.started and not self.draining and bool(self._table)

    def check_ready(self) -> None:
        """Raise NotReady, which says why, unless `ready`."""
        if self.draining:
            raise NotReady("the service is stopping")
        if not self.ready:
            raise NotReady("no model is loaded" if self.started else "models are being loaded")

    @property
    def served(self) -> list[Served]:
        """All versions of all models, by name, then version."""
        table = self._table
        return [table[name][version] for name in sorted(table) for version in _order(table[name])]

    @property
    def statistics(self) -> dict[tuple[str, str], Statistics]:
        """The counts of all that was ever served, by name and version; they outlive a reload."""
        return dict(self._statistics)

    @property
    def failures(self) -> list[Listing]:
        """What does not load, and why."""
        return list(self._failures.values())

    def find(self, name: str | None = None, version: str | None = None) -> Served:
        """The model of this name, or the only one; its newest version, or the one asked for.

        Raises NotFound, or NotReady where it is known and does not answer now.
        """
        table = self._table
        if name is None:
            if len(table) == 1:
                (name,) = table
            elif not table:
                raise NotReady("no model is loaded" if self.started else "models are being loaded")
            else:
                paths = ", ".join(f"/models/{known}" for known in sorted(table))
                raise NotFound(f"several models are served; there are {paths}")
        versions = table.get(name)
        if versions is None:
            raise self._missing(name)
        if version is None:
            return versions[next(reversed(_order(versions)))]
        if version not in versions:
            known = ", ".join(_order(versions))
            raise NotFound(f"model {name!r} has no version {version[:100]!r}; there are {known}")
        return versions[version]

    def versions(self, name: str) -> list[str]:
        """The versions of a model that answer, oldest first."""
        return _order(self._table.get(name, {}))

    def index(self) -> list[Listing]:
        """Every version that answers, is still to be loaded at the start, or does not load."""
        ready = [
            Listing(served.name, served.version, READY, "", served.path.name)
            for served in self.served
        ]
        return ready + list(self._loading.values()) + self.failures

    def load_all(self) -> Iterable[Served | Listing]:
        """Load every artifact of the paths, one after the other, and yield what became of it."""
        with self._changing:
            paths = self._artifacts()
            self._loading = {path: self._announce(path) for path in paths}
            for path in paths:
                result = self._try(path)
                self._loading = {key: x for key, x in self._loading.items() if key != path}
                yield result
            self.started = True

    def load(self, name: str) -> list[Served]:
        """Load, or load again, every version of a model that lies in the paths now.

        Versions that lie there no more are dropped. What was served stays until its successor is
        ready. Raises NotFound where no artifact has this name, ArtifactRefused where one does not
        hold; then nothing changes.
        """
        with self._changing:
            artifacts = self._artifacts()
            self._forget_all_but(artifacts)
            paths = [path for path in artifacts if self._named(path) == name]
            if not paths:
                raise NotFound(f"no artifact in the model paths has the name {name[:100]!r}")
            versions: Versions = {}
            for path in paths:
                served = self._read(path)
                if isinstance(served, Listing):
                    self._failures[path] = served
                    raise ArtifactRefused(f"{path.name}: {served.reason}")
                if served.version in versions:
                    raise ArtifactRefused(f"{path.name}: {_twice(served)}")
                versions[served.version] = served
            for path in paths:
                self._failures.pop(path, None)
            dropped = list(self._table.get(name, {}).values())
            self._table = {**self._table, name: versions}
        _give_back(dropped)
        loaded = [versions[version] for version in _order(versions)]
        for served in loaded:
            log_model(served)
        return loaded

    def unload(self, name: str) -> None:
        """Stop serving a model; requests that have found it are answered. Raises NotFound."""
        with self._changing:
            if name not in self._table:
                raise NotFound(f"no model {name[:100]!r} is loaded")
            dropped = list(self._table[name].values())
            self._table = {key: value for key, value in self._table.items() if key != name}
            for served in dropped:
                self._failures[served.path] = _unavailable(
                    served.path, name, served.version, "unloaded"
                )
        life.info("model %s is unloaded", name, extra={"model": name})
        _give_back(dropped)

    def _missing(self, name: str) -> NotFound | NotReady:
        """What asking for a model that does not answer deserves."""
        for failure in self.failures:
            if failure.name == name:
                return NotReady(f"model {name!r} is not ready: {failure.reason}")
        if not self.started:
            return NotReady("models are being loaded")
        known = ", ".join(sorted(self._table)) or "none"
        return NotFound(f"no model {name[:100]!r}; there are: {known}")

    def _artifacts(self) -> list[Path]:
        return [found for path in self._paths for found in find_artifacts(path)]

    def _forget_all_but(self, artifacts: Sequence[Path]) -> None:
        """Failures of what is there no more are none."""
        self._failures = {
            path: failure for path, failure in self._failures.items() if path in artifacts
        }

    def _named(self, path: Path) -> str:
        """The artifact's name; where it cannot be read, the one it had, else that of its file."""
        try:
            return self._name or bundle.read_manifest(path).name
        except (ArtifactError, OSError):
            known = {path: failure.name for path, failure in self._failures.items()}
            known |= {served.path: served.name for served in self.served}
            return known.get(path, path.name)

    def _announce(self, path: Path) -> Listing:
        """The line of what is still to be loaded."""
        try:
            version = bundle.read_manifest(path).version
        except (ArtifactError, OSError):
            version = ""
        return _listing(path, self._named(path), version, LOADING)

    def _try(self, path: Path) -> Served | Listing:
        """Load one artifact beside those that are served; on failure remember why."""
        served = self._read(path)
        if isinstance(served, Served):
            versions = self._table.get(served.name, {})
            if served.version not in versions:
                changed = {**versions, served.version: served}
                self._table = {**self._table, served.name: changed}
                self._failures.pop(path, None)
                return served
            served = _unavailable(path, served.name, served.version, _twice(served))
        self._failures[path] = served
        return served

    def _read(self, path: Path) -> Served | Listing:
        name, version = self._named(path), ""
        try:
            manifest = bundle.read_manifest(path)
            version = manifest.version
            if name in RESERVED:
                raise ArtifactError(f"the name {name!r} is reserved; give the model another")
            model = self._load(path)
            if (model.manifest.name, model.manifest.version) != (manifest.name, version):
                raise ArtifactError("it was exchanged while it was being loaded; load it again")
        except ArtifactError as error:
            text = str(error).replace(f"{path}: ", "").replace(str(path), path.name)
            return _unavailable(path, name, version, text)
        except OSError as error:
            return _unavailable(path, name, version, error.strerror or "cannot be read")
        except MemoryError:
            return _unavailable(path, name, version, "there is too little memory for it")
        except Exception as error:  # whatever it is, the other models are served
            life.exception("%s does not load", path.name)
            return _unavailable(path, name, version, f"it does not load ({type(error).__name__})")
        statistics = self._statistics.setdefault((name, version), Statistics())
        return Served(name, version, model, path, statistics)


def find_artifacts(path: Path) -> list[Path]:
    """The artifacts at or below a path, in the order of their names; the path itself where none is.

    Hidden entries, those that are being written, and files that are no zip are passed over. A
    folder that may not be looked into counts as one: reading it will say what is wrong.
    """
    return _at_or_below(path, _DEPTH) or [path]


def _at_or_below(path: Path, depth: int) -> list[Path]:
    try:
        if not path.is_dir():
            return [path] if path.suffix == ".zip" else []
        if (path / bundle.MANIFEST).exists():
            return [path]
        children = sorted(path.iterdir()) if depth else []
    except OSError:
        return [path]
    shown = [
        child for child in children if not child.name.startswith(".") and ".tmp-" not in child.name
    ]
    return [found for child in shown for found in _at_or_below(child, depth - 1)]


def _unavailable(path: Path, name: str, version: str, reason: str) -> Listing:
    return _listing(path, name, version, UNAVAILABLE, reason)


def _listing(path: Path, name: str, version: str, state: str, reason: str = "") -> Listing:
    """The line of what does not answer, as UTF-8 can write it: a file's name may be any bytes."""
    texts = (
        text.encode("utf-8", "backslashreplace").decode()
        for text in (name, version, state, reason, path.name)
    )
    return Listing(*texts)


def _twice(served: Served) -> str:
    return (
        f"a model {served.name!r} of version {served.version!r} is there already; "
        "names and versions of models served together must differ"
    )


def _order(versions: Versions) -> list[str]:
    """Versions, oldest first: by number, and words before numbers."""

    def place(text: str) -> tuple[bool, int, str]:
        number = text.isdecimal()
        return number, int(text) if number else 0, text

    return sorted(versions, key=place)


def _give_back(dropped: list[Served]) -> None:
    """Once the last request on dropped models is over, hand their memory back to the system."""
    models = [weakref.ref(served.model) for served in dropped]

    def wait() -> None:
        limit = time.monotonic() + TRIM_SECONDS
        while any(model() is not None for model in models) and time.monotonic() < limit:
            time.sleep(0.1)
        gc.collect()
        if sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps what is freed
            if trim is not None:
                trim(0)

    if models:
        threading.Thread(target=wait, name="give-back", daemon=True).start()
