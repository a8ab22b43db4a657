import pytest
import torch
from torch import nn

from auxlight import VGG, AgentLabels, AuxiliaryClassifier, AuxiliaryTarget, Batch, InputError, MultiHeadVGG

PSI = (2, 3)


def make_batch(size: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(size, 3, 32, 32, generator=generator)
    return Batch(image, torch.arange(size) % 2, None, torch.arange(size))


def make_module(**arguments) -> tuple[AuxiliaryClassifier, AgentLabels]:
    torch.manual_seed(0)
    labeler = AgentLabels(feature_dim=8, **arguments)
    module = MultiHeadVGG(PSI, depth=11, width=0.0625, labeler=labeler)
    labeler.network.action_head.weight.data.normal_()  # opinions that differ between images
    return module, labeler


def labels_of(labeler: AgentLabels, batch: Batch) -> AuxiliaryTarget:
    return labeler(batch, torch.zeros(len(batch.primary), 32))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block_relative", [False, True])
def test_takes_the_most_probable_action(weighted, block_relative):
    _, labeler = make_module(weighted=weighted, block_relative=block_relative, untrained=True)
    batch = make_batch(16)
    target = labels_of(labeler, batch)
    logits = labeler.network(batch.image).detach().numpy()
    labels = 3 if block_relative else 5
    assert logits.shape[1] == labels + (21 if weighted else 0)
    block = {0: [0, 1], 1: [2, 3, 4]}
    for i, y in enumerate(batch.primary.tolist()):
        action = int(logits[i, :labels].argmax())
        if block_relative or action in block[y]:
            chosen = block[y][action % len(block[y])] if block_relative else action
            assert int(target.probabilities[i].argmax()) == chosen
        else:
            assert target.probabilities[i, block[y]].tolist() == pytest.approx([1 / len(block[y])] * len(block[y]))
        level = int(logits[i, labels:].argmax()) / 20 if weighted else 0.5
        assert target.weight[i].item() == pytest.approx(2 ** (10 * level - 5), rel=1e-5)


def test_one_decision_per_image_whatever_mode_and_batch():
    module, labeler = make_module(weighted=True, untrained=True)
    batch = make_batch()
    first = labels_of(labeler, batch)
    module.train()
    for part in (slice(None), slice(2, 5)):
        some = Batch(batch.image[part], batch.primary[part], None, batch.index[part])
        again = labels_of(labeler, some)
        assert torch.equal(again.probabilities, first.probabilities[part])
        assert torch.equal(again.weight, first.weight[part])


def test_stays_in_evaluation_mode():
    trunk = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3072), nn.Dropout(0.5), nn.Linear(3072, 8))
    trunk.feature_dim = 8
    module, labeler = make_module(trunk=trunk, untrained=True)
    for mode in (True, False, True):
        module.train(mode)
        assert labeler.training is mode
        assert not any(part.training for part in labeler.network.modules())
    before = trunk[1].running_mean.clone()
    first, second = (labels_of(labeler, make_batch()).probabilities for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(trunk[1].running_mean, before)


def test_main_optimizer_leaves_the_agent_alone():
    module, labeler = make_module(untrained=True)
    agent = list(labeler.network.parameters())
    assert agent and not any(parameter.requires_grad for parameter in agent)
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held.isdisjoint(map(id, agent))
    assert held == {id(p) for p in module.parameters()} - set(map(id, agent))
    before = [parameter.clone() for parameter in agent]
    module.step(make_batch()).loss.backward()
    optimizer.step()
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(agent, before, strict=True))


def test_training_needs_an_agent_that_has_played():
    module, labeler = make_module()
    with pytest.raises(InputError, match="needs an agent that has played"):
        module.step(make_batch())
    module.eval()
    labels_of(labeler, make_batch())  # looking at its labels is no training
    module.train()
    labeler.epochs_played += 1
    assert module.step(make_batch()).loss.isfinite()


def test_untrained_agent_as_a_control():
    module, _ = make_module(untrained=True)
    assert module.step(make_batch()).loss.isfinite()


def test_a_trained_agent_travels_with_the_checkpoint():
    module, labeler = make_module()
    labeler.epochs_played += 3
    copy, copied = make_module()
    copied.network.action_head.weight.data.normal_()
    copy.load_state_dict(module.state_dict())
    assert copied.epochs_played == 3
    assert torch.equal(labels_of(copied, make_batch()).probabilities, labels_of(labeler, make_batch()).probabilities)


def test_an_agent_that_has_not_played_may_be_given_labels():
    module, _ = make_module()
    batch = make_batch()
    with module.labelled_task.given(AuxiliaryTarget(torch.rand(6, 5), torch.rand(6))):
        assert module.step(batch).loss.isfinite()
    with pytest.raises(InputError, match="has played"):
        module.step(batch)


def test_default_trunk_resembles_the_main_one_with_group_norm():
    module, labeler = make_module()
    trunk = labeler.network.eyes
    assert isinstance(trunk, VGG) and trunk is not module.trunk
    assert (trunk.depth, trunk.width, trunk.in_channels) == (11, 0.0625, 3)
    assert any(isinstance(m, nn.GroupNorm) for m in trunk.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in trunk.modules())


def test_unknown_trunks():
    with pytest.raises(InputError, match="`trunk` of AgentLabels must be given where the main network is no VGG"):
        AuxiliaryClassifier(PSI, nn.Flatten(), feature_dim=3072, labeler=AgentLabels())
    with pytest.raises(InputError, match="must say the size of its features in `feature_dim`"):
        AuxiliaryClassifier(PSI, nn.Flatten(), feature_dim=3072, labeler=AgentLabels(trunk=nn.Flatten()))
