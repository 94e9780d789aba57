"""Everything that can go wrong with an artifact, as one tree.

ArtifactError
├── ManifestError           the manifest is not what its schema says
├── ConfigMismatchError     the manifest and the configuration inside it disagree
├── MissingFileError        a file the manifest names is not there
├── UnknownFileError        a file that the manifest does not name is there
├── HashMismatchError       a file's size or sha256 is not the manifest's
├── LinkError               a symbolic or hard link, or something not a plain file
├── ArchiveError            not a zip, or one with names that leave its folder
├── SizeLimitError          larger than this reader accepts
├── GraphError              the graph is cut short, malformed or not what the manifest says
│   ├── OperatorDomainError an operator from a domain that is not allowed
│   └── ExternalDataError   weights outside the graph file
├── GoldenError             the golden rows give other answers here
├── ProviderError           the execution provider that was asked for is not to be had
├── InputError              the caller's arrays are not what the manifest asks for
├── DeadlineError           the deadline passed before the answer was there
└── RunError                ONNX Runtime failed while running the graph
"""

from __future__ import annotations


class ArtifactError(Exception):
    """Base of every error of this package; its text says what, where and what would be right."""


class ManifestError(ArtifactError):
    """The manifest is malformed; the text names the field."""


class ConfigMismatchError(ArtifactError):
    """The manifest and the configuration inside it disagree."""


class MissingFileError(ArtifactError):
    """A file that the manifest names, or the artifact itself, is not there."""


class UnknownFileError(ArtifactError):
    """The artifact holds a file that its manifest does not name."""


class HashMismatchError(ArtifactError):
    """A file's size or sha256 differs from the manifest's."""


class LinkError(ArtifactError):
    """The artifact holds a symbolic link, a hard link or something that is no plain file."""


class ArchiveError(ArtifactError):
    """Not a zip, a damaged zip, or one whose member names leave its folder."""


class SizeLimitError(ArtifactError):
    """A file, an archive or a request is larger than the limit."""


class GraphError(ArtifactError):
    """The ONNX graph is cut short, malformed, or not what the manifest declares."""


class OperatorDomainError(GraphError):
    """The graph uses an operator domain that is not allowed."""


class ExternalDataError(GraphError):
    """The graph keeps weights outside its own file."""


class GoldenError(ArtifactError):
    """The golden rows do not come out within the manifest's bound on this machine."""


class ProviderError(ArtifactError):
    """The execution provider that was asked for is not to be had."""


class InputError(ArtifactError):
    """The caller's arrays are not what the manifest asks for; `field` names the input."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class DeadlineError(ArtifactError):
    """The deadline passed before the answer was there."""


class RunError(ArtifactError):
    """ONNX Runtime failed while running the graph."""
