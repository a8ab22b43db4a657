"""Combiners in a LightningModule: every labeler with every rule, and what the module tells them."""

import copy

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim import SGD
from torchjd import aggregation

from auxlight import (
    ARML,
    VGG,
    AgentLabels,
    Aggregation,
    AuxiliaryClassifier,
    AuxiNash,
    Batch,
    ClusterLabels,
    CombinationNetwork,
    DigitsDataModule,
    DynamicWeightAverage,
    ExemplarTask,
    GradientCosine,
    GradNorm,
    HumanLabels,
    HumanWeights,
    InputError,
    LabelNetwork,
    MAXLModule,
    OnlineAuxiliary,
    PlaceTask,
    RandomLabels,
    RandomWeights,
    RotationTask,
    SLGrad,
    UncertaintyWeighting,
    UniformLabels,
    WeightedSum,
)
from auxlight.modules.step_context import step_context
from tests.quiet import TRAINER

SILENT = TRAINER | {"limit_val_batches": 0}


class Trunk(nn.Sequential):
    feature_dim = 8

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )


LABELERS = {
    "none": lambda: None,
    "human": HumanLabels,
    "random": RandomLabels,
    "fresh": lambda: RandomLabels(fixed=False),
    "uniform": UniformLabels,
    "cluster": lambda: ClusterLabels(start_epoch=0),
    "agent": lambda: AgentLabels(weighted=True, untrained=True, trunk=VGG(11, 0.0625, norm="group")),
    "weights": lambda: HumanWeights(trunk=Trunk(), untrained=True),
    "network": lambda: LabelNetwork(weighted=True, trunk=Trunk(), untrained=True),
}
AGGREGATORS = {
    "PCGrad": aggregation.PCGrad,
    "CAGrad": lambda: aggregation.CAGrad(c=0.4),
    "MGDA": aggregation.MGDA,
    "IMTL-G": aggregation.IMTLG,
    "Nash-MTL": lambda: aggregation.NashMTL(n_tasks=3),
    "GradDrop": aggregation.GradDrop,
    "GradVac": aggregation.GradVac,
    "Aligned-MTL": aggregation.AlignedMTL,
    "UPGrad": aggregation.UPGrad,
    "FairGrad": lambda: aggregation.FairGrad(alpha=1.0),
}
COMBINERS = {
    "sum": WeightedSum,
    "kendall": UncertaintyWeighting,
    "liebel": lambda: UncertaintyWeighting("liebel"),
    "gradnorm": GradNorm,
    "dwa": DynamicWeightAverage,
    "rlw": RandomWeights,
    "linear": lambda: CombinationNetwork(interval=1),
    "mlp": lambda: CombinationNetwork((3,), interval=1),
    "gcs": GradientCosine,
    "ol_aux": OnlineAuxiliary,
    "arml": ARML,
    "slgrad": SLGrad,
    "auxinash": lambda: AuxiNash(interval=1),
    **{name: lambda make=make: Aggregation(make()) for name, make in AGGREGATORS.items()},
}


def make(combiner, labeler=None, tasks=(), seed=0, **arguments):
    torch.manual_seed(seed)
    return AuxiliaryClassifier((5, 5), Trunk(), labeler=labeler, tasks=tasks, combiner=combiner, **arguments)


def fit(module, epochs=1, data=None, seed=0, ckpt_path=None, **trainer):
    L.seed_everything(seed, verbose=False)
    data = DigitsDataModule(**{"num_train": 160, "batch_size": 40, "meta_split": 0.25} | (data or {}))
    made = L.Trainer(max_epochs=epochs, **(SILENT | trainer))
    made.fit(module, data, ckpt_path=ckpt_path)
    return made


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
@pytest.mark.parametrize("combiner", COMBINERS)
@pytest.mark.parametrize("labeler", LABELERS)
def test_every_labeler_with_every_combiner_changes_the_trunk(labeler, combiner):
    tasks = [RotationTask(), PlaceTask()] if labeler == "none" else [RotationTask()]
    module = make(COMBINERS[combiner](), LABELERS[labeler](), tasks)
    before = copy.deepcopy(module.state_dict())
    trainer = fit(module, limit_train_batches=2)
    heads = [] if combiner == "arml" else [f"tasks.{number}.head.0.weight" for number in range(2)]
    for name in ("trunk.0.weight", "primary_head.0.weight", *heads):  # a task that does not help may weigh nothing
        after = module.state_dict()[name]
        assert torch.isfinite(after).all()
        assert not torch.equal(after, before[name]), name
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


@pytest.mark.parametrize("combiner", [name for name in COMBINERS if name != "sum"])
def test_a_label_network_that_learns_looks_through_the_sum_alone(combiner):
    with pytest.raises(InputError, match="`combiner` of MAXLModule must be the WeightedSum, whose step it looks"):
        MAXLModule((5, 5), labeler=LabelNetwork(trunk=Trunk()), trunk=Trunk(), combiner=COMBINERS[combiner]())


def test_maxl_has_no_further_tasks():
    with pytest.raises(InputError, match="`tasks` of MAXLModule must be empty"):
        MAXLModule((5, 5), labeler=LabelNetwork(trunk=Trunk()), trunk=Trunk(), tasks=[RotationTask()])


@pytest.mark.parametrize("combiner", ["slgrad", "linear", "mlp"])
def test_rules_for_single_images_and_partly_labelled_batches(combiner):
    module = make(COMBINERS[combiner](), HumanLabels(), [RotationTask()])
    if combiner == "slgrad":  # weighs whatever losses there are
        fit(module, data={"num_labelled": 40}, limit_train_batches=2)
        return
    with pytest.raises(InputError, match=r"every image. Found num_labelled=40: set `per_sample: false`"):
        fit(module, data={"num_labelled": 40}, limit_train_batches=2)


def batch(seed=0, count=6, size=8):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)
    auxiliary = torch.randint(10, (count,), generator=generator)
    return Batch(image, auxiliary // 5, auxiliary, torch.arange(count))


def shared_gradient(module):
    return torch.cat([p.grad.flatten() for p in module.trunk.parameters()])


@pytest.mark.parametrize("labeler", ["human", "fresh", "network", "agent"])
def test_slgrads_forward_mode_pass_is_a_loop_over_the_samples(labeler):
    """With random turns and fresh labels, which both passes must draw alike."""

    class Watched(SLGrad):
        def forward(self, losses, context):
            self.losses, self.context = losses, context
            direction = [torch.randn(p.shape, dtype=torch.float64) for p in (*context.shared, *context.own)]
            self.got = context.derivatives(direction)
            self.expected = []
            for row in losses.samples():
                products = []
                for loss in row:
                    parameters = [*context.shared, *context.own]
                    slopes = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
                    products.append(sum((s * v).sum() for s, v in zip(slopes, direction, strict=True)))
                self.expected.append(torch.stack(products))
            return losses.means().sum()

    rule = Watched()
    module = make(rule, LABELERS[labeler](), [RotationTask(), ExemplarTask()], aux_weight=0.7).double()
    state = copy.deepcopy({name: value for name, value in module.state_dict().items() if "trunk" in name})
    module.step(batch(size=32 if labeler == "agent" else 8))
    for got, expected in zip(rule.got, rule.expected, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    # Batch norm has counted the step's two passes over the trunk, not those of the derivative.
    assert int(module.state_dict()["trunk.1.num_batches_tracked"]) - int(state["trunk.1.num_batches_tracked"]) == 2


def test_slgrads_weights_do_not_depend_on_draws_made_elsewhere():
    losses = []
    for _ in range(2):
        module = make(SLGrad(held_out=False), HumanLabels(), [RotationTask()])
        trainer = fit(module)
        losses.append(trainer.callback_metrics["train/loss"])
        torch.rand(7)
    assert torch.equal(*losses)


def test_further_batches_leave_no_trace_in_statistics_and_generators():
    class Curious(WeightedSum):
        judges_by, trains_aside = "meta", True

        def forward(self, losses, context):
            if self.asks:
                context.another().means().sum().backward()
                context.judged().backward()
                for p in (*context.shared, *context.own):
                    p.grad = None
            return super().forward(losses, context)

    states = []
    for asks in (True, False):
        rule = Curious()
        rule.asks = asks
        module = make(rule, HumanLabels(), [RotationTask()])
        fit(module, epochs=2)
        states.append(module.state_dict())
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


def test_judges_are_held_out_images_and_further_batches_other_training_images():
    seen = {"meta": [], "train": []}

    class Module(AuxiliaryClassifier):
        def next_batch(self, stream, split):
            found = super().next_batch(stream, split)
            seen[split] += found.index.tolist()
            return found

    for held_out, judged in ((True, "meta"), (False, "train")):
        torch.manual_seed(0)
        module = Module((5, 5), Trunk(), labeler=HumanLabels(), combiner=AuxiNash(interval=1, held_out=held_out))
        trainer = fit(module)
        meta, train = (
            set(torch.cat([b.index for b in trainer.datamodule.loader(s)]).tolist()) for s in ("meta", "train")
        )
        assert set(seen["train"]) <= train
        assert (judged == "meta") == bool(seen["meta"])
        assert set(seen["meta"]) <= meta
        seen["meta"].clear()


@pytest.mark.parametrize(
    "combiner", ["kendall", "gradnorm", "dwa", "rlw", "linear", "mlp", "ol_aux", "arml", "auxinash", "GradVac"]
)
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(combiner, tmp_path):
    def module():
        return make(COMBINERS[combiner](), HumanLabels(), [RotationTask()], optimizer=lambda p: SGD(p, 0.1, 0.9))

    saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    whole = module()
    fit(whole, 3, enable_checkpointing=True, callbacks=[saving])
    resumed = module()
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        fit(resumed, 3, ckpt_path=tmp_path / "epoch=1.ckpt")
    for name, value in whole.state_dict().items():
        if name == "combiner._extra_state":
            assert str(value) == str(resumed.state_dict()[name])
        else:
            assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_rules_own_parameters_are_not_in_the_main_optimizer():
    for combiner, learned in (("kendall", True), ("gradnorm", False), ("mlp", False), ("auxinash", False)):
        module = make(COMBINERS[combiner](), HumanLabels())
        held = {id(p) for group in module.configure_optimizers().param_groups for p in group["params"]}
        assert all((id(p) in held) == learned for p in module.combiner.parameters())


def test_what_a_rule_reports_is_logged_by_the_names_of_the_tasks():
    trainer = fit(make(AuxiNash(), HumanLabels(), [RotationTask(), RotationTask(0.5)]))
    tasks = ("primary", "labelled", "rotation", "rotation_2")
    expected = {f"combiner/{kind}_{task}" for kind in ("weight", "preference") for task in tasks}
    expected |= {f"combiner/cosine_{task}" for task in tasks[1:]} | {f"train/{task}_loss" for task in tasks[1:]}
    assert expected <= set(trainer.callback_metrics)


def test_weights_of_tasks_multiply_their_losses():
    module = make(WeightedSum(), HumanLabels(), [RotationTask(0.25)], aux_weight=2.0).double()
    torch.manual_seed(1)
    outputs = module.step(batch())
    expected = outputs.losses.primary.mean() + 2 * outputs.losses.auxiliary[0].mean()
    torch.testing.assert_close(outputs.loss, expected + 0.5 * outputs.losses.auxiliary[1].mean())


def test_the_context_knows_which_parameters_are_shared():
    module = make(UncertaintyWeighting(), HumanLabels(), [RotationTask()])
    module.trunk[0].bias.requires_grad_(False)
    context = step_context(module, batch())
    assert [id(p) for p in context.shared] == [id(p) for p in module.trunk.parameters() if p.requires_grad]
    heads = [module.primary_head, module.tasks[0].head, module.tasks[1].head]
    assert {id(p) for p in context.own} == {id(p) for head in heads for p in head.parameters()}
    assert context.last_layer is module.trunk[0].weight


@pytest.mark.parametrize(
    ("combiner", "data", "trainer", "expected"),
    [
        (AuxiNash(held_out=True), {"meta_split": 0.0}, {}, "`combiner` AuxiNash judges .* Found meta_split=0"),
        (SLGrad(), {"meta_split": 0.0}, {}, r"`combiner` SLGrad judges .* `held_out: false`"),
        (CombinationNetwork(), {}, {"precision": "16-true"}, r"needs full precision"),
        (DynamicWeightAverage(), {}, {"precision": "bf16-true"}, r"needs full precision.*precision=bf16-true"),
        (DynamicWeightAverage(), {}, {"precision": "16-true"}, r"needs full precision.*precision=16-true"),
        (GradientCosine(), {}, {"precision": "16-true"}, r"needs full precision"),
    ],
)
def test_what_a_rule_cannot_work_with(combiner, data, trainer, expected):
    with pytest.raises(InputError, match=expected):
        fit(make(combiner, HumanLabels()), data=data, **trainer)


def test_slgrad_refuses_to_look_past_a_parameter():
    class Prompted(AuxiliaryClassifier):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.prompt = torch.nn.Parameter(torch.ones(()))

        def features(self, image):
            return super().features(image * self.prompt)

    module = Prompted((5, 5), labeler=HumanLabels(), trunk=Trunk(), combiner=SLGrad())
    with pytest.raises(InputError, match="must lie in submodules"):
        fit(module)


def test_with_accumulated_gradients_a_teacher_moves_once_a_step(monkeypatch):
    moved = []
    monkeypatch.setattr(ExemplarTask, "before_step", lambda task, trunk: moved.append(1))
    trainer = fit(make(WeightedSum(), None, [ExemplarTask()]), accumulate_grad_batches=2)
    assert len(moved) == trainer.global_step == 2


def test_a_rule_that_draws_further_batches_needs_a_data_module():
    loader = torch.utils.data.DataLoader([batch()], batch_size=None)
    with pytest.raises(InputError, match=r"`combiner` AuxiNash draws images .* needs an auxlight data module"):
        L.Trainer(max_epochs=1, **SILENT).fit(make(AuxiNash(), HumanLabels()), loader)


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
@pytest.mark.parametrize("combiner", COMBINERS)
def test_bf16_mixed(combiner):
    """Gradients are combined in full precision there."""
    rule = COMBINERS[combiner]()
    if hasattr(rule, "combine"):
        combine = rule.combine

        def watched(gradients, means, context):
            update = combine(gradients, means, context)
            assert not torch.is_autocast_enabled("cpu")
            assert (gradients.matrix.dtype, update.shared.dtype) == (torch.float32, torch.float32)
            return update

        rule.combine = watched
    module = make(rule, HumanLabels(), [RotationTask()])
    fit(module, precision="bf16-mixed", limit_train_batches=2)
    assert torch.isfinite(shared_weights(module)).all()


def test_gradients_of_a_step_with_an_own_features_method_are_of_that_method():
    class Doubled(AuxiliaryClassifier):
        def features(self, image):
            return 2 * super().features(image)

    torch.manual_seed(0)
    module = Doubled((5, 5), Trunk(), labeler=HumanLabels(), combiner=SLGrad()).double()
    module.next_batch = lambda stream, split: batch(1)
    context = step_context(module, batch())
    features = 2 * module.trunk(batch(1).image)
    expected = module.primary_losses(module.primary_head(features), batch(1)).mean()
    torch.testing.assert_close(context.judged(), expected)


def test_a_task_that_is_given_twice():
    task = RotationTask()
    with pytest.raises(InputError, match=r"`tasks` must be different objects. Found one RotationTask twice"):
        make(None, None, [task, task])


def test_the_labelers_weights_are_logged_without_those_of_other_tasks():
    trainer = fit(make(None, HumanLabels(), [RotationTask(0.25)], aux_weight=2.0))
    assert trainer.callback_metrics["train/weight_mean"] == 2
    assert trainer.callback_metrics["train/weight_std"] == 0
    assert "train/weight_mean" not in fit(make(None, None, [RotationTask()])).callback_metrics


def shared_weights(module):
    return torch.cat([p.flatten() for p in module.trunk.parameters()])


def test_tasks_that_can_be_evaluated_are():
    module = make(None, HumanLabels(), [PlaceTask(), RotationTask()])
    trainer = fit(module, limit_val_batches=1.0)
    data = trainer.datamodule
    module.eval()
    right = total = 0
    with torch.no_grad():
        for raw in data.val_dataloader():
            seen = data.pipeline(raw)
            place = module.tasks[1].head(module.trunk(seen.image)).argmax(1)
            right += int((place == seen.auxiliary % 5).sum())
            total += len(place)
    assert trainer.callback_metrics["val/place_accuracy"].item() == pytest.approx(right / total, abs=1e-6)
    assert not any("rotation" in name for name in trainer.callback_metrics if name.startswith("val/"))


@pytest.mark.parametrize("combiner", [aggregation.PCGrad(), AuxiNash])
def test_what_is_no_combiner(combiner):
    with pytest.raises(InputError, match=r"`combiner` must be an auxlight.Combiner. .*wrap an aggregator of TorchJD"):
        make(combiner, HumanLabels())


def test_tasks_that_are_no_list():
    with pytest.raises(InputError, match=r"`tasks` must be a list of auxiliary tasks. Found a RotationTask"):
        make(None, None, RotationTask())


def test_what_is_no_task():
    with pytest.raises(InputError, match=r"`tasks` must hold auxiliary tasks. Found a Linear"):
        make(None, None, [nn.Linear(1, 1)])
