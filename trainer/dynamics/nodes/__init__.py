"""The neural masses, one file per family; importing the package registers them all."""

from trainer.dynamics.nodes.coombes_byrne import CoombesByrne
from trainer.dynamics.nodes.epileptor import Epileptor
from trainer.dynamics.nodes.fitzhugh_nagumo import FitzHughNagumo
from trainer.dynamics.nodes.generic_2d_oscillator import Generic2dOscillator
from trainer.dynamics.nodes.hopf import Hopf, StuartLandau
from trainer.dynamics.nodes.horn import Horn
from trainer.dynamics.nodes.jansen_rit import JansenRit
from trainer.dynamics.nodes.kuramoto import Kuramoto
from trainer.dynamics.nodes.larter_breakspear import LarterBreakspear
from trainer.dynamics.nodes.linear import Linear, ThresholdLinear
from trainer.dynamics.nodes.lorenz import Lorenz
from trainer.dynamics.nodes.montbrio_pazo_roxin import MontbrioPazoRoxin
from trainer.dynamics.nodes.van_der_pol import VanDerPol
from trainer.dynamics.nodes.wilson_cowan import (
    WilsonCowan,
    WilsonCowanLinear,
    WilsonCowanNoSaturation,
    WilsonCowanSimplified,
    WilsonCowanSymmetric,
)
from trainer.dynamics.nodes.wilson_cowan_divisive import (
    WilsonCowanDivisive,
    WilsonCowanDivisiveInput,
)
from trainer.dynamics.nodes.wilson_cowan_extended import (
    WilsonCowanAdaptive,
    WilsonCowanDelayed,
    WilsonCowanThreePopulation,
)
from trainer.dynamics.nodes.wong_wang import WongWangDecision, WongWangExcInh

__all__ = [
    "CoombesByrne",
    "Epileptor",
    "FitzHughNagumo",
    "Generic2dOscillator",
    "Hopf",
    "Horn",
    "JansenRit",
    "Kuramoto",
    "LarterBreakspear",
    "Linear",
    "Lorenz",
    "MontbrioPazoRoxin",
    "StuartLandau",
    "ThresholdLinear",
    "VanDerPol",
    "WilsonCowan",
    "WilsonCowanAdaptive",
    "WilsonCowanDelayed",
    "WilsonCowanDivisive",
    "WilsonCowanDivisiveInput",
    "WilsonCowanLinear",
    "WilsonCowanNoSaturation",
    "WilsonCowanSimplified",
    "WilsonCowanSymmetric",
    "WilsonCowanThreePopulation",
    "WongWangDecision",
    "WongWangExcInh",
]
