import itertools
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as check_with_gymnasium
from stable_baselines3.common.env_checker import check_env as check_with_sb3

from auxlight import BatchReward, ImprovementReward, InputError, LabelHierarchy
from auxlight.labelers import LabelActions
from auxlight.rl import AuxTaskEnv, AuxTaskVecEnv, FeatureObservation, ImageObservation, LabellingGame
from tests.rl.plain import PlainLearner
from tests.rl.toy import SHAPE, RecordingLearner, RewardLabel, batches

HIERARCHY = LabelHierarchy((3, 2))
OBSERVATIONS = {
    "image": ImageObservation(SHAPE),
    "image and label": ImageObservation(SHAPE, 2),
    "features": FeatureObservation(16),
    "features and label": FeatureObservation(16, 2),
}
REWARDS = {"batch": BatchReward, "improvement": ImprovementReward, "per image": RewardLabel}


def make_game(learner, episode, reward=None, weight_levels=None, **arguments):
    evaluation = itertools.cycle(batches(3, 8, seed=7, classes=2))
    actions = LabelActions(HIERARCHY, weight_levels)
    return LabellingGame(learner, lambda: iter(episode), evaluation, actions, reward or RewardLabel(), **arguments)


def started():
    learner = PlainLearner(2, 5)
    learner.snapshot()
    return learner


@pytest.mark.parametrize("reset", ["epoch", "batch"])
@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_the_checkers_of_gymnasium_and_sb3_pass(kind, reset):
    def make():
        game = make_game(started(), batches(3, 4, classes=2), weight_levels=5, reset=reset)
        return AuxTaskEnv(game, OBSERVATIONS[kind])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # They would like bounded observations, and images of bytes.
        warnings.filterwarnings("ignore", message=".*(infinity|image|MultiDiscrete).*")
        warnings.filterwarnings("ignore", message=".*not within the observation space.*maximum.*")
        check_with_gymnasium(make(), skip_render_check=True)
        check_with_sb3(make())


@pytest.mark.parametrize("reset", ["epoch", "batch"])
@pytest.mark.parametrize("reward", REWARDS)
def test_both_views_leave_the_same_weights_and_hand_out_the_same_rewards(reward, reset):
    episode = batches(5, 4, classes=2)
    chosen = np.random.default_rng(0).integers((5, 7), size=(20, 2))
    one, many = started(), started()
    single = AuxTaskEnv(make_game(one, episode, REWARDS[reward](), 7, reset=reset), OBSERVATIONS["features"])
    parallel = AuxTaskVecEnv(make_game(many, episode, REWARDS[reward](), 7, reset=reset), OBSERVATIONS["features"], 4)
    seen, expected = parallel.reset(), []
    observed, _ = single.reset()
    for step, actions in enumerate(chosen.reshape(5, 4, 2)):
        for number, action in enumerate(actions):
            np.testing.assert_array_equal(observed, seen[number])
            observed, got, terminated, truncated, info = single.step(action)
            assert not truncated
            assert (got == 0) or number == 3
        seen, rewards, dones, infos = parallel.step(actions)
        expected.append(rewards)
        assert got == pytest.approx(rewards.mean(), abs=1e-7)
        np.testing.assert_array_equal(info["rewards"], rewards)
        assert terminated == dones.all() == (step == 4 or reset == "batch")
        if terminated:
            np.testing.assert_array_equal(observed, infos[3]["terminal_observation"])
            observed, _ = single.reset()
        else:
            torch.testing.assert_close(one.state(), many.state(), rtol=0, atol=0)
    assert np.std(expected) > 0
    assert len(one.left) == (6 if reset == "batch" else 2)  # where each episode ended, and the canonical network
    torch.testing.assert_close(one.left, many.left, rtol=0, atol=0)
    weights = [network["0.0.layers.1.weight"] for network, _ in one.left]
    assert not any(torch.equal(weights[0], later) for later in weights[1:])


@pytest.mark.parametrize("reset", ["epoch", "batch"])
def test_no_image_is_lost_or_seen_twice(reset):
    learner, episode = RecordingLearner(), batches(4, 3, classes=2)
    env = AuxTaskEnv(make_game(learner, episode, reset=reset), ImageObservation(SHAPE))
    for _ in range(3):
        learner.trained.clear()
        images, over = [], 0
        observed, _ = env.reset()
        for _ in range(12):
            images.append(observed)
            observed, _, terminated, _, _ = env.step(np.array([0]))
            over += terminated
            if terminated and len(images) < 12:
                observed, _ = env.reset()
        assert over == (4 if reset == "batch" else 1)
        np.testing.assert_array_equal(np.stack(images), torch.cat([batch.image for batch in episode]).numpy())
        assert torch.cat([batch.index for batch, _ in learner.trained]).tolist() == list(range(12))


def test_by_batch_every_step_starts_at_the_canonical_network():
    learner = RecordingLearner()
    env = AuxTaskVecEnv(make_game(learner, batches(3, 4, classes=2), reset="batch"), ImageObservation(SHAPE), 4)
    env.reset()
    dones = [env.step(np.zeros((4, 1), int))[2].all() for _ in range(3)]
    assert dones == [True] * 3
    assert learner.calls == ["restore", "train"] * 3 + ["restore"]


def test_a_reset_in_mid_episode_begins_a_new_one():
    learner, episode = RecordingLearner(), batches(3, 4, classes=2)
    env = AuxTaskEnv(make_game(learner, episode), ImageObservation(SHAPE))
    env.reset()
    for _ in range(6):
        env.step(np.array([1]))
    observed, _ = env.reset(seed=3)
    np.testing.assert_array_equal(observed, episode[0].image[0].numpy())
    for _ in range(4):
        env.step(np.array([2]))
    assert learner.trained[-1][0].index.tolist() == [0, 1, 2, 3]  # nothing is left of the half batch


def test_the_label_is_shown_on_request_only():
    batch = batches(1, 4, classes=2)[0]
    game = make_game(RecordingLearner(), [batch])
    shown, _ = AuxTaskEnv(game, OBSERVATIONS["image and label"]).reset()
    assert shown["primary"] == batch.primary[0]
    assert isinstance(AuxTaskEnv(game, OBSERVATIONS["image"]).reset()[0], np.ndarray)


def test_a_wrapper_and_a_space_of_gymnasium_work():
    env = gymnasium.wrappers.RecordEpisodeStatistics(
        AuxTaskEnv(make_game(RecordingLearner(), batches(2, 4, classes=2)), ImageObservation(SHAPE))
    )
    env.reset()
    for _ in range(8):
        *_, info = env.step(env.action_space.sample())
    assert info["episode"]["l"] == 8


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: make_game(RecordingLearner(), [], reset="step"), "`reset` must be 'epoch' or 'batch'.*'step'"),
        (lambda: make_game(RecordingLearner(), []).start(), "at least one batch"),
        (
            lambda: AuxTaskEnv(make_game(RecordingLearner(), batches(1, 4)), ImageObservation(SHAPE)).step([0]),
            "`reset` must be called",
        ),
        (
            lambda: AuxTaskEnv(make_game(RecordingLearner(), batches(1, 4)), ImageObservation((3, 2, 2))).reset(),
            r"shape \(3, 2, 2\). Found \(1, 2, 2\)",
        ),
    ],
)
def test_mistakes_get_a_sentence(act, message):
    with pytest.raises(InputError, match=message):
        act()


def test_a_smaller_last_batch_is_refused():
    env = AuxTaskVecEnv(make_game(RecordingLearner(), [*batches(1, 4), *batches(1, 3)]), ImageObservation(SHAPE), 4)
    env.reset()
    with pytest.raises(InputError, match="Found 3: drop"):
        env.step(np.zeros((4, 1), int))
