import itertools

import numpy as np
import pytest
import torch

from auxlight import InputError, LabelHierarchy
from auxlight.labelers import LabelActions
from auxlight.rl import AuxTaskVecEnv, ImageObservation, LabellingGame
from tests.rl.toy import SHAPE, RecordingLearner, RewardLabel, batches


def make_env(learner, episode, num_envs=4, hierarchy=None, **actions):
    hierarchy = hierarchy or LabelHierarchy((3,))
    evaluation = itertools.cycle(batches(1, 4))
    choices = LabelActions(hierarchy, **actions)
    game = LabellingGame(learner, lambda: episode, evaluation, choices, RewardLabel())
    return AuxTaskVecEnv(game, ImageObservation(SHAPE), num_envs)


def test_an_episode_trains_on_every_image_once_with_its_own_label():
    episode = batches(5, 4)
    learner = RecordingLearner()
    env = make_env(learner, episode, sharpness=float("inf"))
    rng = np.random.default_rng(0)
    observation, dones, chosen = env.reset(), [], []
    for batch in episode:
        np.testing.assert_array_equal(observation, batch.image.numpy())
        actions = rng.integers(3, size=(4, 1))
        chosen.append(actions[:, 0])
        observation, _, done, _ = env.step(actions)
        dones.append(done)
    seen = torch.cat([batch.index for batch, _ in learner.trained])
    assert sorted(seen.tolist()) == list(range(20))
    labels = torch.cat([target.probabilities.argmax(-1) for _, target in learner.trained])
    np.testing.assert_array_equal(labels, np.concatenate(chosen))
    assert [bool(done.all()) for done in dones] == [False] * 4 + [True]
    assert not np.concatenate(dones[:-1]).any()


def test_the_end_of_an_episode_starts_the_next_at_the_canonical_network():
    episode = batches(2, 4)
    learner = RecordingLearner()
    env = make_env(learner, episode)
    env.reset()
    env.step(np.zeros((4, 1), int))
    observation, _, done, infos = env.step(np.zeros((4, 1), int))
    assert done.all()
    np.testing.assert_array_equal(observation, episode[0].image.numpy())
    for i, info in enumerate(infos):
        np.testing.assert_array_equal(info["terminal_observation"], episode[1].image[i].numpy())
    assert learner.calls == ["restore", "train", "train", "restore"]


def test_rewards_are_those_of_the_rule():
    episode = batches(2, 4)
    env = make_env(RecordingLearner(), episode)
    env.reset()
    actions = np.array([[0], [1], [1], [0]])
    for batch in episode:
        _, rewards, _, _ = env.step(actions)
        good = (batch.image[:, 0, 0, 0].numpy() > 0).astype(int)
        np.testing.assert_array_equal(rewards, actions[:, 0] == good)


def test_the_observation_holds_no_label():
    hierarchy = LabelHierarchy((2, 2))
    one, other = batches(1, 4, classes=2)[0], batches(1, 4, classes=2)[0]
    other = other._replace(primary=1 - other.primary)
    observations = [make_env(RecordingLearner(), [batch], hierarchy=hierarchy).reset() for batch in (one, other)]
    np.testing.assert_array_equal(*observations)


def test_the_action_space_has_a_weight_part_only_when_asked():
    assert make_env(RecordingLearner(), batches(1, 4)).action_space.nvec.tolist() == [3]
    assert make_env(RecordingLearner(), batches(1, 4), weight_levels=21).action_space.nvec.tolist() == [3, 21]


def test_a_smaller_batch_is_refused():
    with pytest.raises(InputError, match="4 images"):
        make_env(RecordingLearner(), batches(1, 3)).reset()


def test_an_empty_episode_is_refused():
    with pytest.raises(InputError, match="at least one batch"):
        make_env(RecordingLearner(), []).reset()


def test_a_network_that_diverges_ends_the_game_with_a_sentence():
    env = make_env(RecordingLearner(), batches(2, 4))
    env.game.reward.after_step = lambda *_: torch.full((4,), float("nan"))
    env.reset()
    with pytest.raises(InputError, match="rewards must be finite"):
        env.step(np.zeros((4, 1), int))


def test_stepping_before_reset_is_refused():
    with pytest.raises(InputError, match="`reset`"):
        make_env(RecordingLearner(), batches(1, 4)).step(np.zeros((4, 1), int))
