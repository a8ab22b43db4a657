"""RL-AUX: the labelling game, its agent, and the callback that plays it beside a main network."""

from auxlight.rl.agent import AgentFactory, PaperPPO
from auxlight.rl.callback import RLAuxCallback
from auxlight.rl.learner import Learner
from auxlight.rl.rewards import BatchReward, Reward
from auxlight.rl.vec_env import AuxTaskVecEnv

__all__ = ["AgentFactory", "AuxTaskVecEnv", "BatchReward", "Learner", "PaperPPO", "RLAuxCallback", "Reward"]
