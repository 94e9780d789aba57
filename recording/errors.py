"""What is wrong with a recording: which file, which stream, when."""

from __future__ import annotations


class RecordingError(ValueError):
    """A file or stream cannot be read, or a preparation does not fit it.

    The text reads "file: stream: at 1.5 s: what is wrong; what would be right".
    """

    def __init__(
        self, problem: str, *, file: object = "", stream: str = "", at: float | None = None
    ) -> None:
        self.problem = problem
        self.file = str(file)
        self.stream = stream
        self.at = at
        place = [self.file, stream, "" if at is None else f"at {at:.6g} s"]
        super().__init__(": ".join([part for part in place if part] + [problem]))

    def within(self, *, file: object = "", stream: str = "") -> RecordingError:
        """The same error, where the place was not known yet, with file and stream."""
        return RecordingError(
            self.problem,
            file=self.file or file,
            stream=self.stream or stream,
            at=self.at,
        )
