"""The stand-in scalar: rules on gradients, whatever the optimizer makes of them."""

import pytest
import torch
from torch import nn
from torchjd.aggregation import IMTLG, MGDA, AlignedMTL, ConFIG, GradDrop, GradVac, PCGrad, Sum, UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward

from auxlight import (
    ARML,
    Aggregation,
    CombinationNetwork,
    GradientCombiner,
    GradientCosine,
    GradNorm,
    InputError,
    OnlineAuxiliary,
    StepContext,
    Update,
    WeightedSum,
)
from auxlight.combiners import TaskLosses
from auxlight.combiners.gradients import TaskGradients
from auxlight.seeding import derive_seed, isolated_rng
from tests.combiners.problems import Network, names, step


def bound(combiner, tasks=3):
    combiner.bind(names(tasks))
    return combiner


@pytest.mark.parametrize("rule", [AlignedMTL, ConFIG, GradDrop, GradVac, IMTLG, MGDA, PCGrad, Sum, UPGrad])
def test_torchjds_own_loop_leaves_the_same_gradients(rule):
    ours, theirs = Network(seed=3), Network(seed=3)
    data = ours.data(0)
    shared, own, _ = step(ours, bound(Aggregation(rule())), data)

    features = theirs.trunk(data[0])
    losses = [(head(features)[:, 0] - data[1][:, m]).square().mean() for m, head in enumerate(theirs.heads)]
    mtl_backward(losses, features=features, parallel_chunk_size=1)
    with isolated_rng(derive_seed(0, "aggregation", 0)):
        jac_to_grad(theirs.shared, aggregator=rule())
    torch.testing.assert_close(shared, torch.cat([p.grad.flatten() for p in theirs.shared]), rtol=1e-9, atol=1e-12)
    for mine, head in zip(own, theirs.heads, strict=True):
        torch.testing.assert_close(mine, head.weight.grad, rtol=1e-9, atol=1e-12)


def test_the_sum_is_the_weighted_sum():
    network, data = Network(), Network().data(0)
    one, other = (step(network, bound(rule), data) for rule in (Aggregation(Sum()), WeightedSum()))
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(torch.stack(one[1]), torch.stack(other[1]))
    torch.testing.assert_close(one[2], other[2])


class Told(GradientCombiner):
    def combine(self, gradients, means, context):
        self.seen = gradients
        return Update(torch.arange(gradients.matrix.shape[1]).to(gradients.matrix), torch.tensor([2.0, 3.0, 5.0]))


def test_shared_parameters_get_what_the_rule_says_and_heads_their_own_gradient_times_its_factor():
    network, told = Network(), bound(Told())
    data = network.data(0)
    shared, own, loss = step(network, told, data)
    torch.testing.assert_close(told.seen.matrix, network.rows(data), rtol=1e-12, atol=0)
    assert shared.tolist() == list(range(25))
    plain = step(network, WeightedSum(), data)
    for factor, mine, unweighted in zip((2, 3, 5), own, plain[1], strict=True):
        torch.testing.assert_close(mine, factor * unweighted, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss, plain[2])


def test_the_outer_factor_of_a_loss_scales_the_gradient():
    """As gradient accumulation and a loss scale do."""
    network = Network()
    combiner = bound(Told())
    loss = combiner(network.losses(network.data(0)), network.context())
    (0.25 * loss).backward()
    (0.25 * combiner(network.losses(network.data(0)), network.context())).backward()
    assert torch.cat([p.grad.flatten() for p in network.shared]).tolist() == [0.5 * i for i in range(25)]


def test_a_parameter_of_two_tasks_gets_the_sum_of_both():
    network = Network(tasks=2)
    network.heads[1] = network.heads[0]
    told = bound(Aggregation(Sum()), 2)
    _, own, _ = step(network, told, network.data(0))
    torch.testing.assert_close(own[0], step(network, WeightedSum(), network.data(0))[1][0])


def test_a_task_without_a_label_in_the_batch_has_no_gradient():
    network, told = Network(), bound(Told())
    data = network.data(0)
    losses = network.losses(data)
    nothing = losses.primary[:0]
    told(TaskLosses(losses.primary, (losses.auxiliary[0], nothing), (losses.weights[0], nothing)), network.context())
    assert told.seen.matrix[2].tolist() == [0] * 25
    torch.testing.assert_close(told.seen.matrix[:2], network.rows(data)[:2])
    detached = TaskLosses(
        losses.primary.detach().requires_grad_(), (torch.zeros(0), torch.zeros(0)), (torch.zeros(0),) * 2
    )
    told(detached, network.context())


def test_squares_neither_overflow_nor_vanish():
    network = Network(dtype=torch.float32)

    class Kept(GradientCombiner):
        def combine(self, gradients, means, context):
            self.gramian = gradients.gramian
            return Update(gradients.matrix.sum(0), torch.ones(3))

    kept = bound(Kept())
    scales = (1e25, 1.0, 1e-25)
    step(network, kept, network.data(0), scales=scales)
    rows = network.rows(network.data(0)).double() * torch.tensor(scales, dtype=torch.float64)[:, None]
    torch.testing.assert_close(kept.gramian, rows @ rows.T, rtol=1e-4, atol=0)


def test_no_shared_parameters():
    network = Network()
    with pytest.raises(InputError, match="needs shared parameters that train"):
        bound(Told())(network.losses(network.data(0)), StepContext([], network.own))


def test_what_is_no_aggregator():
    with pytest.raises(InputError, match=r"`aggregator` must be one of TorchJD's.*Found Linear"):
        Aggregation(nn.Linear(1, 1))


def test_an_aggregator_that_does_not_fit_the_number_of_tasks():
    from torchjd.aggregation import Constant

    network, combiner = Network(), bound(Aggregation(Constant(torch.ones(2))))
    with pytest.raises(InputError, match="`aggregator` Constant cannot aggregate 3 tasks"):
        step(network, combiner, network.data(0))


@pytest.mark.parametrize("rule", [PCGrad, GradDrop])
def test_what_a_rule_draws_depends_on_the_step_alone(rule):
    network, data = Network(dtype=torch.float32), Network(dtype=torch.float32).data(0)
    first, again = bound(Aggregation(rule())), bound(Aggregation(rule()))
    steps = [step(network, first, data)[0] for _ in range(6)]
    for number in range(3):
        torch.rand(number)
        torch.testing.assert_close(step(network, again, data)[0], steps[number], rtol=0, atol=0)
    resumed = bound(Aggregation(rule()))
    resumed.load_state_dict(again.state_dict())
    torch.testing.assert_close(step(network, resumed, data)[0], steps[3], rtol=0, atol=0)
    assert rule is PCGrad or any(not torch.equal(steps[0], other) for other in steps[1:])


def test_what_a_rule_remembered_on_another_device_goes_back_there():
    """A checkpoint comes to the CPU first. (The device "meta" computes nothing, and minds as others do.)"""
    from torchjd.aggregation import ExcessMTL

    def take(rule, device):
        network = Network(dtype=torch.float32).to(device)
        matrix = torch.ones(3, sum(p.numel() for p in network.shared), device=device)
        gradients = TaskGradients(matrix, matrix @ matrix.T, [])
        return rule.combine(gradients, torch.ones(3, device=device), network.context())

    there, here = bound(Aggregation(ExcessMTL())), bound(Aggregation(ExcessMTL()))
    take(there, "meta")
    take(here, "cpu")
    state, values = there.get_extra_state(), here.get_extra_state()
    for name, memory in state.items():  # as a checkpoint has them
        memory["values"] |= {key: values[name]["values"][key] for key in memory["elsewhere"]}
    assert any(memory["elsewhere"] for memory in state.values())
    assert not any(memory["elsewhere"] for memory in values.values())
    resumed = bound(Aggregation(ExcessMTL()))
    resumed.set_extra_state(state)
    # An agent's game asks for the state, and gives it back, before the rule is asked for anything.
    assert {name: memory["elsewhere"] for name, memory in resumed.get_extra_state().items()} == {
        name: memory["elsewhere"] for name, memory in state.items()
    }
    resumed.set_extra_state(resumed.get_extra_state())
    assert take(resumed, "meta").shared.device.type == "meta"


def test_a_rule_that_remembers_goes_on_from_a_checkpoint(tmp_path):
    from torchjd.aggregation import ExcessMTL

    for rule in (GradVac, ExcessMTL):
        network = Network()
        whole, resumed = bound(Aggregation(rule())), bound(Aggregation(rule()))
        for seed in range(3):
            step(network, whole, network.data(seed))
        torch.save(whole.state_dict(), tmp_path / "state.pt")
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        fresh = bound(Aggregation(rule()))
        fresh.steps.fill_(3)
        after = [step(network, each, network.data(3))[0] for each in (whole, resumed, fresh)]
        torch.testing.assert_close(after[1], after[0], rtol=0, atol=0)
        assert not torch.equal(after[2], after[0])


def test_the_backward_pass_of_a_task_does_not_go_through_the_others():
    """Which would cost their time, and make one task's infinity everybody's."""

    class Counted(torch.autograd.Function):
        calls = 0

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, slope):
            Counted.calls += 1
            return slope

    network = Network()
    losses = network.losses(network.data(0))
    losses = TaskLosses(losses.primary, (Counted.apply(losses.auxiliary[0]), losses.auxiliary[1]), losses.weights)
    bound(Aggregation(Sum()))(losses, network.context())
    assert Counted.calls == 1


def test_a_parameter_that_no_task_uses_gets_no_gradient():
    """A zero would let weight decay move it."""
    network = Network()
    unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    context = network.context()
    context = StepContext(context.shared, [*context.own, unused])
    bound(Aggregation(Sum()))(network.losses(network.data(0)), context).backward()
    assert unused.grad is None and network.heads[0].weight.grad is not None


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_losses_that_are_no_numbers_are_refused_before_a_rule_learns_from_them(value):
    network = Network()
    for rule in (ARML(), OnlineAuxiliary(), GradNorm(), GradientCosine(), Aggregation(MGDA())):
        combiner = bound(rule).double()
        before = str(combiner.state_dict()).replace("'steps', tensor(1)", "'steps', tensor(0)")
        with pytest.raises(InputError, match=r"losses and gradients must be finite"):
            step(network, combiner, network.data(0), scales=(1.0, value, 1.0))
        assert str(combiner.state_dict()) == before


def test_a_combiner_belongs_to_one_module():
    rule = bound(Aggregation(Sum()))
    with pytest.raises(InputError, match=r"A combiner belongs to one module. Found a Aggregation"):
        bound(rule)


def test_a_learned_rules_optimizer_follows_its_parameters():
    """As on a GPU, where a checkpoint's state comes before the module is moved."""
    network = Network()
    saved = bound(GradNorm())
    step(Network(dtype=torch.float32), saved, Network(dtype=torch.float32).data(0))
    moved = bound(GradNorm())
    moved.load_state_dict(saved.state_dict())
    moved.double()
    step(network, moved, network.data(0))
    assert moved.own_optimizer.state[moved.weights]["exp_avg"].dtype == torch.float64


@pytest.mark.parametrize("make", [GradNorm, lambda: CombinationNetwork(interval=1), GradientCosine])
def test_nothing_shared_that_trains(make):
    network, context = Network(), Network().context()
    context = StepContext([], network.own, another=context.another, judged=context.judged)
    with pytest.raises(InputError, match=r"needs (a shared layer|shared parameters) that trains?. Found none"):
        bound(make()).double()(network.losses(network.data(0)), context)


@pytest.mark.parametrize(
    ("update", "found"),
    [
        (torch.zeros(25), "Tensor"),
        (Update(torch.zeros(24), torch.ones(3)), r"\[\(24,\), \(3,\)\]"),
        (Update(torch.zeros(25), torch.ones(2)), r"\[\(25,\), \(2,\)\]"),
    ],
)
def test_what_is_no_update_of_these_tasks(update, found):
    class Wrong(GradientCombiner):
        def combine(self, gradients, means, context):
            return update

    network = Network()
    with pytest.raises(InputError, match=rf"`combine` of Wrong must return an Update of gradient .* Found {found}"):
        step(network, bound(Wrong()), network.data(0))


def test_parameters_may_be_given_as_they_come():
    network = Network()
    context = StepContext(network.trunk.parameters(), network.heads.parameters())
    for _ in range(2):
        bound(Aggregation(Sum()))(network.losses(network.data(0)), context).backward()
    assert network.heads[2].bias.grad is not None
