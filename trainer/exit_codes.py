"""Which exit code an error means; imported when a command has failed."""

from __future__ import annotations

from artifact.errors import ArtifactError, InputError, MissingFileError
from recording.errors import RecordingError
from trainer.checkpoint import CheckpointError
from trainer.config import ConfigError
from trainer.data import DataError
from trainer.determinism import DeviceError
from trainer.dynamics import ConnectomeError, NetworkError, ParameterError, SimulationError
from trainer.dynamics.delays import DelayError
from trainer.dynamics.observation import ObservationError
from trainer.evaluation import EvaluationError
from trainer.export import ExportError
from trainer.fitting import FittingError
from trainer.fitting_command import FitFolderError
from trainer.folder import RunFolderError
from trainer.legacy import LegacyError
from trainer.models import ModelError
from trainer.objectives import ObjectiveError
from trainer.registry import RegistryError
from trainer.schedule import ScheduleError
from trainer.scoring import ScoringError
from trainer.simulation import SimulationFolderError
from trainer.training import TrainingError


def exit_code(error: Exception) -> int | None:
    """2 for the caller's mistakes, 1 for results that do not hold, None for faults of ours."""

    if isinstance(error, (InputError, MissingFileError)):
        return 2
    if isinstance(error, (ArtifactError, ExportError, TrainingError)):
        return 1
    if isinstance(
        error,
        (
            CheckpointError,
            ConfigError,
            ConnectomeError,
            DataError,
            DelayError,
            DeviceError,
            EvaluationError,
            FitFolderError,
            FittingError,
            LegacyError,
            ModelError,
            NetworkError,
            ObjectiveError,
            ObservationError,
            ParameterError,
            RecordingError,
            RegistryError,
            RunFolderError,
            ScheduleError,
            ScoringError,
            SimulationError,
            SimulationFolderError,
            OSError,
        ),
    ):
        return 2
    return None


def explain(error: Exception) -> str:
    """The error as one line that names the file, for errors of the operating system too."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}"
    return str(error)
