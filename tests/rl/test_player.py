import io
import itertools

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C

from auxlight import LabelHierarchy
from auxlight.labelers import LabelActions
from auxlight.networks import VGG, AgentNetwork
from auxlight.rl import AuxTaskVecEnv, ImageObservation, LabellingGame, PaperPPO
from auxlight.rl.player import Player
from auxlight.rl.policy import AgentPolicy
from auxlight.seeding import isolated_rng
from tests.rl.toy import SHAPE, RecordingLearner, RewardLabel, TinyTrunk, batches


def make_player(episode, algorithm=PaperPPO, learner=None, weight_levels=None, **arguments):
    num_envs = len(episode[0].index)
    actions = LabelActions(LabelHierarchy((3,)), weight_levels)
    evaluation = itertools.cycle(episode)
    learner = learner or RecordingLearner()
    rewards = []

    def watch(labelled):
        rewards.append(float(labelled.rewards.mean()))

    game = LabellingGame(learner, lambda: episode, evaluation, actions, RewardLabel(), watch=watch)
    env = AuxTaskVecEnv(game, ImageObservation(SHAPE), num_envs)
    env.rewards = rewards
    network = AgentNetwork(TinyTrunk(), 16, 16, actions.sizes)
    agent = algorithm(AgentPolicy.around(network), env, device="cpu", **arguments)
    return Player(agent), env, network


@pytest.mark.parametrize(("steps", "n_steps"), [(1, 20), (7, 3), (12, 20), (20, 20), (41, 20), (5, 1)])
def test_an_agent_plays_exactly_the_steps_of_an_episode(steps, n_steps):
    learner = RecordingLearner()
    player, env, _ = make_player(batches(steps, 4), learner=learner, n_steps=n_steps, n_epochs=1)
    for _ in range(2):
        learner.calls.clear()
        learner.trained.clear()
        player.play(env, steps)
        seen = torch.cat([batch.index for batch, _ in learner.trained])
        assert sorted(seen.tolist()) == list(range(4 * steps))
        # One reset at the start, one when the episode ends.
        assert learner.calls == ["restore"] + ["train"] * steps + ["restore"]
    assert player.agent.num_timesteps == 2 * 4 * steps


@pytest.mark.parametrize(
    ("steps", "n_steps", "message"),
    [
        (7, 3, "7 steps an epoch, in rollouts of 2 or 3 steps rather than of n_steps=3"),
        (6, 3, ""),
        (2, 20, "in rollouts of 2 steps rather than of n_steps=20"),
    ],
)
def test_other_rollouts_than_asked_for_are_announced(steps, n_steps, message, caplog):
    player, env, _ = make_player(batches(steps, 4), n_steps=n_steps, n_epochs=1)
    with caplog.at_level("INFO"):
        player.play(env, steps)
        player.play(env, steps)
    assert message in caplog.text
    assert caplog.text.count("rather than") == bool(message)


@pytest.mark.parametrize("algorithm", [PaperPPO, A2C])
def test_the_agent_finds_the_label_that_is_rewarded(algorithm):
    with isolated_rng(0):
        arguments = {"ent_coef": 0.0, "learning_rate": 3e-3, "gamma": 0.0}
        arguments |= {"n_steps": 1} if algorithm is A2C else {}
        player, env, network = make_player(batches(10, 32), algorithm, **arguments)
        for _ in range(12):
            player.play(env, 10)
    assert np.mean(env.rewards[:10]) < 0.6  # three labels, one of them good
    assert np.mean(env.rewards[-10:]) > 0.9
    test = torch.cat([batch.image for batch in batches(5, 32, seed=9)])
    test = test[test[:, 0, 0, 0].abs() > 0.1]
    good = (test[:, 0, 0, 0] > 0).long()
    assert (network.act(test)[:, 0] == good).float().mean() > 0.95


def test_every_parameter_learns():
    player, env, network = make_player(batches(4, 16), weight_levels=21)
    before = {name: value.clone() for name, value in network.named_parameters()}
    player.play(env, 4)
    for name, value in network.named_parameters():
        assert not torch.equal(value, before[name]), name
    labels, weights = network.action_head.weight[:3], network.action_head.weight[3:]
    assert not torch.equal(labels, before["action_head.weight"][:3])
    assert not torch.equal(weights, before["action_head.weight"][3:])


def test_the_policy_is_the_network_and_nothing_else():
    player, _, network = make_player(batches(2, 4))
    policy = player.agent.policy
    assert {id(p) for p in policy.parameters()} == {id(p) for p in network.parameters()}
    held = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in network.parameters()}


def test_rollout_and_update_see_the_same_probabilities():
    """With batch norm they would not, and PPO's ratio would not start at 1."""
    torch.manual_seed(0)
    network = AgentNetwork(VGG(11, 0.0625, norm="group"), 32, 8, (3,))
    image = torch.randn(6, 3, 32, 32)
    network.eval()
    rollout = network(image)
    network.train()
    torch.testing.assert_close(network(image), rollout, rtol=0, atol=0)


def test_acting_is_the_most_probable_action_of_the_policy():
    player, _, network = make_player(batches(2, 4), weight_levels=21)
    torch.nn.init.normal_(network.action_head.weight)
    image = batches(1, 64, seed=3)[0].image
    deterministic, _ = player.agent.predict(image.numpy(), deterministic=True)
    np.testing.assert_array_equal(network.act(image), deterministic)


def test_state_is_plain_and_goes_on_where_it_stopped():
    episode = batches(4, 8)

    def started():
        with isolated_rng(1):
            return make_player(episode)

    def played(player, env, seed):
        with isolated_rng(seed):
            player.play(env, 4)

    player, env, network = started()
    played(player, env, 2)
    stream = io.BytesIO()
    torch.save({"agent": player.state_dict(), "network": network.state_dict()}, stream)
    played(player, env, 3)
    stream.seek(0)
    saved = torch.load(stream, weights_only=True)
    resumed, env, other = started()
    other.load_state_dict(saved["network"])
    resumed.load_state_dict(saved["agent"])
    played(resumed, env, 3)
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert resumed.agent.num_timesteps == player.agent.num_timesteps


def test_an_update_is_reported():
    player, env, _ = make_player(batches(4, 8))
    report = player.play(env, 4)
    assert {"loss", "value_loss", "entropy_loss", "approx_kl", "explained_variance"} <= report.keys()
    assert all(np.isfinite(value) for value in report.values())
