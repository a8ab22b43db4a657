"""Stable-Baselines3's view of the agent's network."""

from typing import Any, ClassVar

from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from auxlight.networks.agent import AgentNetwork


class AgentFeatures(BaseFeaturesExtractor):
    """The body of an existing agent network."""

    def __init__(self, observation_space: spaces.Space[Any], network: AgentNetwork) -> None:
        super().__init__(observation_space, network.feature_dim)
        self.eyes, self.mixer = network.eyes, network.mixer
        self._features = [network.features]  # in a list: no second registration of the network

    def forward(self, observations: Tensor | dict[str, Tensor]) -> Tensor:
        """Features (B, feature_dim) of an observation: what is seen, or with the primary label beside it."""
        if isinstance(observations, Tensor):
            return self._features[0](observations)
        return self._features[0](observations["seen"], observations["primary"].flatten(1))


class AgentPolicy(ActorCriticPolicy):
    """An actor-critic policy around an existing `AgentNetwork`, whose parameters it shares.

    Algorithms make their policy themselves, from a class; `around` makes the class.

    Args:
        observation_space: the images'.
        action_space: MultiDiscrete, as `network.action_sizes`.
        lr_schedule: given by the algorithm.
        **kwargs: given by the algorithm (its optimizer, above all).
    """

    network: ClassVar[AgentNetwork]

    @classmethod
    def around(cls, network: AgentNetwork) -> type["AgentPolicy"]:
        """The class of policies that train this network."""
        return type(cls.__name__, (cls,), {"network": network})

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            ortho_init=False,
            features_extractor_class=AgentFeatures,
            features_extractor_kwargs={"network": self.network},
            normalize_images=False,
            **kwargs,
        )
        self.action_net = self.network.action_head
        self.value_net = self.network.value_head
        # The optimizer must hold the heads that act, not the ones that the base class made.
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def set_training_mode(self, mode: bool) -> None:
        """See the base class; eyes that are frozen stay in evaluation mode, or batch norm's statistics would go on."""
        super().set_training_mode(mode)
        for part in self.network.eyes.modules() if mode else ():
            parameters = list(part.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                part.eval()
