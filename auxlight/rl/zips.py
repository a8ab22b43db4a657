"""Agents as files of Stable-Baselines3."""

import io
import zipfile
from pathlib import Path

import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from auxlight.errors import InputError
from auxlight.networks.agent import AgentNetwork

# Names in SB3's policy → names in the agent's network; the rest of the policy is these once more.
PARTS = {
    "features_extractor.eyes.": "eyes.",
    "features_extractor.mixer.": "mixer.",
    "action_net.": "action_head.",
    "value_net.": "value_head.",
}


def export_agent(agent: OnPolicyAlgorithm, path: str | Path) -> None:
    """Write an agent for ``PPO.load`` and its kin, where auxlight is installed; without the images it saw last."""
    agent.save(path, exclude=["_last_obs", "_last_episode_starts"])


def import_agent(network: AgentNetwork, path: str | Path) -> None:
    """Take over the weights of an exported agent. Nothing is unpickled: a foreign file can do no harm.

    Args:
        network: of the same sizes.
        path: of the zip.

    Raises:
        InputError: no such file, or an agent of another kind or size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            policy = torch.load(io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes of zipfile and torch
        raise InputError(f"`start_from` must be an agent's zip. Found {path}, which cannot be read as one.") from error
    state = {
        own + name.removeprefix(theirs): value
        for name, value in policy.items()
        for theirs, own in PARTS.items()
        if name.startswith(theirs)
    }
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != expected:
        name = next(name for name in (*expected, *found) if found.get(name) != expected.get(name))
        raise InputError(
            f"`start_from` must hold an agent of the labeler's sizes. Found {name} of shape "
            f"{found.get(name, 'missing')} instead of {expected.get(name, 'missing')}: use the arguments of the run "
            "that exported it."
        )
    network.load_state_dict(state)
