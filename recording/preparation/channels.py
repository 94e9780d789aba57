"""Steps that choose channels."""

from __future__ import annotations

from fnmatch import fnmatchcase

from recording.contract import Channel
from recording.errors import RecordingError
from recording.preparation.operations import Operation, Take
from recording.preparation.steps import Step, step


@step("select")
class Select(Step):
    """Keep the neural channels with these names (patterns such as "F*") or of these types."""

    step: str = "select"
    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    def operations(self, channels: tuple[Channel, ...]) -> tuple[Operation, ...]:
        """Take of the chosen channels."""
        return (Take(self._indices(channels)),)

    def channels_after(self, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        """The chosen channels."""
        return tuple(channels[index] for index in self._indices(channels))

    def _indices(self, channels: tuple[Channel, ...]) -> tuple[int, ...]:
        for pattern in self.names:
            if not any(fnmatchcase(channel.name, pattern) for channel in channels):
                have = ", ".join(channel.name for channel in channels)
                raise RecordingError(f"no channel {pattern!r}; there are: {have}")
        chosen = tuple(
            index
            for index, channel in enumerate(channels)
            if channel.type in self.types
            or any(fnmatchcase(channel.name, pattern) for pattern in self.names)
        )
        if not chosen:
            raise RecordingError(f"no channel of type {', '.join(self.types)}")
        return chosen
