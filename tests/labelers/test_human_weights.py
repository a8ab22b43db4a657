import lightning as L
import pytest
import torch

from auxlight import VGG, Batch, DigitsDataModule, HumanWeights, InputError, MAXLModule


def module_of(**arguments) -> MAXLModule:
    torch.manual_seed(0)
    labeler = HumanWeights(trunk=VGG(11, 0.0625), **arguments)
    options = {"normalize_hypergradient": True, "entropy_weight": 0.0, "depth": 11, "width": 0.0625}
    adam = {"label_optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-2)}
    return MAXLModule((5, 5), labeler=labeler, **options, **adam)


def batch_of(auxiliary: bool = True) -> Batch:
    primary = torch.arange(20) % 2
    image = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return Batch(image, primary, 5 * primary + torch.arange(20) % 5 if auxiliary else None, torch.arange(20))


@pytest.mark.parametrize("normalize_weights", [True, False])
def test_labels_are_human_and_weights_are_the_networks(normalize_weights):
    labeler = module_of(normalize_weights=normalize_weights).label_network
    torch.nn.init.normal_(labeler.weight_head[2].weight, std=3)
    batch = batch_of()
    target = labeler.generate(batch)
    assert torch.equal(target.probabilities.argmax(1), batch.auxiliary)
    assert torch.equal(target.probabilities.sum(1), torch.ones(20)) and float(target.probabilities.max()) == 1
    u = labeler.weight_head(labeler.trunk(batch.image)).squeeze(1).sigmoid()
    weight = 2 ** (10 * u - 5)
    torch.testing.assert_close(target.weight, weight / weight.mean() if normalize_weights else weight)
    assert target.weight.std() > 0.01


def test_what_is_learned_is_weights_alone(tmp_path):
    module = module_of()
    before = {name: value.clone() for name, value in module.label_network.named_parameters()}
    assert not any("label_head" in name for name in before)
    data = DigitsDataModule(batch_size=50, num_train=200, meta_split=0.2)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, data)
    moved = {name for name, value in module.label_network.named_parameters() if not torch.equal(value, before[name])}
    assert moved == set(before)
    logged = trainer.callback_metrics
    assert float(logged["labels/weight_mean"]) == pytest.approx(1, abs=1e-5)  # λ stays what it was
    assert float(logged["labels/weight_min"]) < 1 < float(logged["labels/weight_max"])
    assert float(logged["labels/top_probability"]) == 1


def test_data_without_human_labels_is_refused():
    with pytest.raises(InputError, match="`labeler` HumanWeights needs a data set with human sub-labels"):
        module_of().label_network.generate(batch_of(auxiliary=False))
