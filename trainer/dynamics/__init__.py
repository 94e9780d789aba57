"""Networks of neural masses: nodes, connectomes, coupling, delays, noise, and their simulation."""

from trainer.dynamics import nodes
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
from trainer.dynamics.network import Network, NetworkError
from trainer.dynamics.node import NODES, Node
from trainer.dynamics.noise import NOISES, Gaussian, Noise, OrnsteinUhlenbeck
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

__all__ = [
    "COUPLINGS",
    "NODES",
    "NOISES",
    "Additive",
    "Brownian",
    "Coloured",
    "Connectome",
    "ConnectomeError",
    "ConnectomeWarning",
    "Coupling",
    "Diffusive",
    "Gaussian",
    "HyperbolicTangent",
    "JansenRitSigmoidal",
    "KuramotoCoupling",
    "Laplacian",
    "Network",
    "NetworkError",
    "Node",
    "Noise",
    "OrnsteinUhlenbeck",
    "Param",
    "ParameterError",
    "Sigmoidal",
    "SimulationError",
    "SimulationState",
    "Simulator",
    "Trajectory",
    "bounded",
    "identity",
    "nodes",
    "positive",
    "simplex",
    "symmetric",
]
