"""RL-AUX: the labelling game, its agent, and the callback that plays it beside a main network."""

from auxlight.rl.agent import AgentFactory, PaperPPO
from auxlight.rl.agreement import AgreementReward
from auxlight.rl.callback import RLAuxCallback
from auxlight.rl.env import AuxTaskEnv
from auxlight.rl.game import LabellingGame
from auxlight.rl.learner import FeatureLearner, InfluenceLearner, Learner
from auxlight.rl.observations import FeatureObservation, ImageObservation
from auxlight.rl.rewards import BatchReward, ImprovementReward, InfluenceReward, Reward
from auxlight.rl.vec_env import AuxTaskVecEnv

__all__ = [
    "AgentFactory",
    "AgreementReward",
    "AuxTaskEnv",
    "AuxTaskVecEnv",
    "BatchReward",
    "FeatureLearner",
    "FeatureObservation",
    "ImageObservation",
    "ImprovementReward",
    "InfluenceLearner",
    "InfluenceReward",
    "LabellingGame",
    "Learner",
    "PaperPPO",
    "RLAuxCallback",
    "Reward",
]
