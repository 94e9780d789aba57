"""Networks of neural masses: nodes, connectomes, coupling, delays, noise, and their simulation."""

from trainer.dynamics import nodes
from trainer.dynamics.balloon import BalloonWindkessel, Bold
from trainer.dynamics.coloured_noise import Brownian, Coloured
from trainer.dynamics.connectome import Connectome, ConnectomeError, ConnectomeWarning
from trainer.dynamics.coupling import (
    COUPLINGS,
    Additive,
    Coupling,
    Diffusive,
    HyperbolicTangent,
    JansenRitSigmoidal,
    KuramotoCoupling,
    Laplacian,
    Sigmoidal,
)
from trainer.dynamics.hemodynamic_response import HemodynamicResponse
from trainer.dynamics.lead_field import EegLeadField, LeadField, MegLeadField, Readout
from trainer.dynamics.network import Network, NetworkError
from trainer.dynamics.node import NODES, Node
from trainer.dynamics.noise import NOISES, Gaussian, Noise, OrnsteinUhlenbeck
from trainer.dynamics.observation import (
    OBSERVATIONS,
    Chain,
    Observation,
    ObservationError,
    interval_of,
    observed,
)
from trainer.dynamics.parameters import (
    Param,
    ParameterError,
    bounded,
    identity,
    positive,
    simplex,
    symmetric,
)
from trainer.dynamics.simulator import (
    SimulationError,
    SimulationState,
    Simulator,
    Trajectory,
)
from trainer.dynamics.temporal_average import TemporalAverage

__all__ = [
    "COUPLINGS",
    "NODES",
    "NOISES",
    "OBSERVATIONS",
    "Additive",
    "BalloonWindkessel",
    "Bold",
    "Brownian",
    "Chain",
    "Coloured",
    "Connectome",
    "ConnectomeError",
    "ConnectomeWarning",
    "Coupling",
    "Diffusive",
    "EegLeadField",
    "Gaussian",
    "HemodynamicResponse",
    "HyperbolicTangent",
    "JansenRitSigmoidal",
    "KuramotoCoupling",
    "Laplacian",
    "LeadField",
    "MegLeadField",
    "Network",
    "NetworkError",
    "Node",
    "Noise",
    "Observation",
    "ObservationError",
    "OrnsteinUhlenbeck",
    "Param",
    "ParameterError",
    "Readout",
    "Sigmoidal",
    "SimulationError",
    "SimulationState",
    "Simulator",
    "TemporalAverage",
    "Trajectory",
    "bounded",
    "identity",
    "interval_of",
    "nodes",
    "observed",
    "positive",
    "simplex",
    "symmetric",
]
