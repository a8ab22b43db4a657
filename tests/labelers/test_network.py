import copy

import pytest
import torch
from torch import nn

from auxlight import AuxiliaryClassifier, Batch, InputError, LabelNetwork, MultiHeadVGG

PSI = (2, 3, 1)
BLOCKS = {0: [0, 1], 1: [2, 3, 4], 2: [5]}


class Trunk(nn.Module):
    def __init__(self, feature_dim=8):
        super().__init__()
        self.feature_dim = feature_dim
        self.layers = nn.Sequential(
            nn.Conv2d(3, feature_dim, 3), nn.BatchNorm2d(feature_dim), nn.Tanh(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, image):
        return self.layers(image).flatten(1)


def make(**arguments):
    """A label network with opinions that differ between images, bound to a float64 classifier of 8 features."""
    torch.manual_seed(0)
    if not arguments.get("shared_trunk"):
        arguments.setdefault("trunk", Trunk(6))
    labeler = LabelNetwork(**arguments)
    module = AuxiliaryClassifier(PSI, Trunk(), labeler=labeler).double()
    for head in filter(None, (labeler.label_head, labeler.weight_head)):
        nn.init.normal_(head[2].weight, std=3)
    return labeler, module


def batch_of(size=12):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(size, 3, 8, 8, generator=generator, dtype=torch.float64)
    return Batch(image, torch.arange(size) % 3, None, torch.arange(size))


def features_of(size=12, dim=8):
    return torch.randn(size, dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


# --- labels


@pytest.mark.parametrize("shared_trunk", [False, True])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_labels_of_uneven_blocks_sum_to_one_inside_them(shared_trunk, hard, temperature):
    labeler, _ = make(shared_trunk=shared_trunk, hard=hard, temperature=temperature)
    batch = batch_of()
    p = labeler.generate(batch, features_of()).probabilities
    assert p.shape == (12, 6)
    for row, y in zip(p, batch.primary.tolist(), strict=True):
        inside = row[BLOCKS[y]]
        assert float(inside.detach().sum()) == pytest.approx(1, abs=1e-12)
        assert (inside >= 0).all()
        assert float(row.detach().abs().sum()) == pytest.approx(1, abs=1e-12)  # nothing outside


def test_soft_labels_are_the_softmax_of_the_blocks_logits_over_the_temperature():
    labeler, _ = make(temperature=0.5)
    batch = batch_of()
    logits = 2 * labeler.label_head(labeler.trunk(batch.image)).detach()
    p = labeler.generate(batch).probabilities
    for i, y in enumerate(batch.primary.tolist()):
        torch.testing.assert_close(p[i, BLOCKS[y]].detach(), logits[i, BLOCKS[y]].softmax(0))


def test_hard_labels_are_one_hot_at_the_most_probable_class():
    soft, _ = make()
    hard, _ = make(hard=True)
    hard.load_state_dict(soft.state_dict())
    p, one_hot = (network.generate(batch_of()).probabilities.detach() for network in (soft, hard))
    torch.testing.assert_close(one_hot, torch.eye(6, dtype=torch.float64)[p.argmax(1)])
    assert (p.max(1).values[batch_of().primary != 2] < 1).all()  # they were soft


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hard_labels_are_exact_at_any_precision(dtype):
    labeler, _ = make(hard=True, shared_trunk=True)
    p = labeler.to(dtype).generate(batch_of(60), features_of(60).to(dtype)).probabilities
    assert p.unique().tolist() == [0, 1] and p.sum(1).unique().tolist() == [1]


@pytest.mark.parametrize("shared_trunk", [False, True])
def test_the_gradient_of_hard_labels_is_that_of_soft_ones(shared_trunk):
    slopes = torch.randn(12, 6, dtype=torch.float64)
    gradients = []
    for hard in (False, True):
        labeler, _ = make(hard=hard, shared_trunk=shared_trunk)
        p = labeler.generate(batch_of(), features_of()).probabilities
        gradients.append(torch.autograd.grad((slopes * p).sum(), [q for q in labeler.parameters() if q.requires_grad]))
    assert all(g.any() for g in gradients[0][-2:])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_the_main_network_gets_labels_without_a_graph():
    labeler, _ = make(weighted=True)
    batch = batch_of()
    target, learned = labeler(batch, features_of()), labeler.generate(batch)
    assert not any(part.requires_grad for part in target) and all(part.requires_grad for part in learned)
    torch.testing.assert_close(target, tuple(part.detach() for part in learned))


# --- weights


def test_without_a_second_head_every_image_weighs_one():
    target = make()[0].generate(batch_of())
    assert torch.equal(target.weight, torch.ones(12, dtype=torch.float64))
    assert not target.weight.requires_grad


def test_weights_are_powers_of_two_between_the_papers_bounds():
    labeler, _ = make(weighted=True)
    batch = batch_of()
    level = torch.sigmoid(labeler.weight_head(labeler.trunk(batch.image)))[:, 0]
    torch.testing.assert_close(labeler.generate(batch).weight, 2 ** (10 * level - 5))


@pytest.mark.parametrize("shared_trunk", [False, True])
def test_normalized_weights_have_mean_one_and_keep_their_ratios(shared_trunk):
    free, _ = make(weighted=True, shared_trunk=shared_trunk)
    normalized, _ = make(weighted=True, normalize_weights=True, shared_trunk=shared_trunk)
    before, after = (network.generate(batch_of(), features_of()).weight for network in (free, normalized))
    assert after.shape == (12,) and len(after.unique()) == 12
    assert float(after.detach().mean()) == pytest.approx(1, abs=1e-14)
    assert abs(float(before.detach().mean()) - 1) > 0.1
    torch.testing.assert_close(after / after[0], before / before[0], rtol=1e-12, atol=0)


def test_a_common_factor_of_normalized_weights_has_no_gradient():
    labeler, _ = make(weighted=True, normalize_weights=True)
    weight = labeler.generate(batch_of()).weight
    torch.autograd.backward(weight.sum())
    assert all(p.grad.abs().max() < 1e-12 for p in labeler.weight_head.parameters())
    torch.autograd.backward(labeler.generate(batch_of()).weight[3])
    assert labeler.weight_head[2].weight.grad.abs().max() > 1e-3


def test_a_single_image_is_its_own_batch():
    labeler, _ = make(weighted=True, normalize_weights=True, shared_trunk=True)
    assert labeler.generate(batch_of(1), features_of(1)).weight.tolist() == [1]


# --- trunk


def test_a_shared_trunk_leaves_two_heads_on_the_main_features():
    labeler, module = make(weighted=True, shared_trunk=True)
    assert {name.split(".")[0] for name, _ in labeler.named_parameters()} == {"label_head", "weight_head"}
    assert [p.shape[1] for p in (labeler.label_head[0].weight, labeler.weight_head[0].weight)] == [8, 8]
    main = {id(p) for p in module.trunk.parameters()}
    assert main.isdisjoint(id(p) for p in labeler.parameters())


def test_labels_of_a_shared_trunk_follow_the_features_and_not_the_image():
    labeler, _ = make(weighted=True, shared_trunk=True)
    batch, features = batch_of(), features_of()
    target = labeler.generate(batch, features)
    other_image = labeler.generate(batch._replace(image=torch.zeros_like(batch.image)), features)
    torch.testing.assert_close(target, other_image, rtol=0, atol=0)
    other = labeler.generate(batch, torch.cat([features[:6], -features[6:]]))
    for one, two in zip(target, other, strict=True):
        assert torch.equal(one[:6], two[:6])
    assert not torch.isclose(target.weight[6:], other.weight[6:]).any()


def test_no_gradient_reaches_the_features_of_a_shared_trunk():
    labeler, module = make(weighted=True, shared_trunk=True)
    batch = batch_of()
    features = module.trunk(batch.image)
    features.retain_grad()
    target = labeler.generate(batch, features)
    (target.weight.sum() + target.probabilities[:, 0].sum()).backward()
    assert features.grad is None and all(p.grad is None for p in module.trunk.parameters())
    assert all(p.grad.any() for p in labeler.label_head.parameters())


def test_a_classifier_hands_its_features_to_a_shared_trunk():
    seen = []

    class Watched(LabelNetwork):
        def generate(self, batch, features=None):
            seen.append(features)
            return super().generate(batch, features)

    module = AuxiliaryClassifier(PSI, Trunk(), labeler=Watched(shared_trunk=True)).double()
    outputs = module.step(batch_of())
    assert len(seen) == 1 and torch.equal(seen[0], outputs.features)


def test_an_own_trunk_follows_the_image_and_not_the_features():
    labeler, module = make(weighted=True)
    batch = batch_of()
    target = labeler.generate(batch)
    torch.testing.assert_close(target, labeler.generate(batch, features_of()), rtol=0, atol=0)
    other = labeler.generate(batch._replace(image=batch.image.flip(0)), None)
    assert not torch.isclose(target.weight, other.weight).all()
    assert labeler.trunk is not module.trunk and labeler.label_head[0].in_features == 6


def test_the_default_trunk_is_a_vgg_of_the_main_ones_size():
    labeler = LabelNetwork()
    module = MultiHeadVGG(PSI, depth=11, width=0.0625, labeler=labeler)
    shapes = [{name: p.shape for name, p in trunk.named_parameters()} for trunk in (labeler.trunk, module.trunk)]
    assert shapes[0] == shapes[1]
    assert labeler.trunk is not module.trunk


@pytest.mark.parametrize("shared_trunk", [False, True])
def test_the_hidden_size_of_both_heads_can_be_set(shared_trunk):
    labeler, _ = make(weighted=True, head_dim=5, shared_trunk=shared_trunk)
    assert [head[0].out_features for head in (labeler.label_head, labeler.weight_head)] == [5, 5]
    default, _ = make(weighted=True, shared_trunk=shared_trunk)
    assert default.label_head[0].out_features == (8 if shared_trunk else 6)


def test_a_copy_of_the_network_is_whole_and_apart():
    labeler, _ = make(weighted=True)
    twin, batch = copy.deepcopy(labeler), batch_of()
    torch.testing.assert_close(twin.generate(batch), labeler.generate(batch), rtol=0, atol=0)
    for p in twin.parameters():
        nn.init.zeros_(p)
    assert all(p.any() for p in labeler.label_head.parameters())


# --- what is refused


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(InputError, match=rf"`temperature` must be positive. Found temperature={temperature}\.$"):
        LabelNetwork(temperature=temperature)


def test_normalized_weights_without_weights_are_refused():
    message = r"`normalize_weights` needs weights. Found weighted=False: set `weighted: true`\.$"
    with pytest.raises(InputError, match=message):
        LabelNetwork(normalize_weights=True)


def test_a_trunk_beside_a_shared_one_is_refused():
    with pytest.raises(InputError, match=r"`shared_trunk` has the main.*Found a `trunk` beside it: leave one out\.$"):
        LabelNetwork(shared_trunk=True, trunk=Trunk())


def test_a_shared_trunk_needs_features():
    labeler, _ = make(shared_trunk=True)
    with pytest.raises(InputError, match=r"`shared_trunk` labels need the main network's features. Found none\.$"):
        labeler.generate(batch_of())


def test_unknown_trunks_are_refused():
    with pytest.raises(InputError, match="`trunk` of LabelNetwork must be given where the main network is no VGG"):
        AuxiliaryClassifier(PSI, Trunk(), labeler=LabelNetwork())
    with pytest.raises(InputError, match="must say the size of its features in `feature_dim`"):
        AuxiliaryClassifier(PSI, Trunk(), labeler=LabelNetwork(trunk=nn.Flatten()))


def test_a_shared_trunk_works_beside_any_main_trunk():
    main = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    module = AuxiliaryClassifier(PSI, main, feature_dim=4, labeler=LabelNetwork(shared_trunk=True)).double()
    assert module.step(batch_of()).loss.isfinite()
