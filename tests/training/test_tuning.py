"""Self-tuning: the response against known answers, exact resuming, and what is refused."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from srkit import live, models
from srkit.data import Batch, ImageDataset
from srkit.data.degradation import Camera
from srkit.settings import SRKitError
from srkit.training import Hyper, RegularizedTrainer, TuningConfig, TuningTrainer, checkpoint
from srkit.training.hyper import HYPERS, WEIGHT_DECAY
from srkit.training.response import Dropout, Response
from srkit.training.tuning import Tuner

# ---------------------------------------------------------------------------------- the known answer


def ridge(count: int = 40, features: int = 12) -> tuple[Batch, Batch]:
    """Noisy linear data to train and to validate on."""
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(features, 1, generator=generator)
    low = torch.randn(2, count, features, generator=generator)
    low[0] = low[0] * torch.linspace(0.3, 1.5, features)
    high = low @ weight + 3 * torch.randn(2, count, 1, generator=generator)
    return Batch(low[0][: count // 2], high[0][: count // 2]), Batch(low[1], high[1])


def solution(train: Batch, log_decay: Tensor) -> Tensor:
    """The weights, (features, 1), that minimise mse + exp(log_decay) ‖w‖²."""
    low, high = train.low.double(), train.high.double()
    count = len(low)
    return torch.linalg.solve(low.T @ low / count + log_decay.exp() * torch.eye(low.shape[1]), low.T @ high / count)


def mse(output: Tensor, high: Tensor) -> Tensor:
    return (output - high).square().mean()


def optimum(train: Batch, valid: Batch) -> float:
    """The log weight decay with the least validation loss, by a fine grid."""
    grid = torch.linspace(-8, 4, 2401, dtype=torch.double)
    losses = [mse(valid.low.double() @ solution(train, one), valid.high.double()) for one in grid]
    return grid[int(torch.stack(losses).argmin())].item()


@pytest.mark.parametrize("start", [-3.0, 1.5])
def test_ridge_regressions_best_weight_decay_is_found_from_both_sides(start):
    train, valid = ridge()
    unit = train.high.var()
    torch.manual_seed(0)
    model = nn.Linear(train.low.shape[1], 1, bias=False)
    decay = Hyper("decay", math.exp(-6), math.exp(3), math.exp(start), at="weights", log=True)
    config = TuningConfig(hyper_lr=0.03, response_lr=0.03, perturbation=0.2)
    tuner, generator = Tuner(model, [decay], config), torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    many = Batch(*(half.repeat(4, 1) for half in train))

    def loss(output: Tensor, high: Tensor) -> Tensor:
        return mse(output, high) / unit

    for step in range(600):
        optimizer.zero_grad()
        penalty = tuner.values()[0] / unit * model.weight.square().sum()
        (loss(model(train.low), train.high) + penalty).backward()
        optimizer.step()
        values, delta = tuner.perturbed(len(many.low), generator)
        tuner.response_step(many, values / unit, delta, loss)
        if step >= 100 and step % 2 == 0:
            rest = (1 + math.cos(math.pi * step / 600)) / 2
            tuner.hyper_optimizer.param_groups[0]["lr"] = config.hyper_lr * rest
            tuner.hyper_step(valid, loss)
    raw = tuner.raw.detach()[0].double()
    slope = torch.autograd.functional.jacobian(lambda raw: solution(train, decay.value(raw).log())[:, 0], raw)
    learnt = (tuner.response.gates[0][0, 0] * tuner.response.kernels[0][0]).detach().double()
    assert torch.cosine_similarity(learnt, slope, dim=0) > 0.99
    assert (learnt.norm() / slope.norm()).item() == pytest.approx(1, abs=0.15)
    assert tuner.values()[0].log().item() == pytest.approx(optimum(train, valid), abs=0.1)  # of a range of 9


# ---------------------------------------------------------------------------------- the response of networks


@pytest.mark.parametrize(
    ("make", "two_pass"),
    [
        (lambda: models.create("srresnet-small", 4, channels=8, blocks=1), True),
        (lambda: models.create("srresnet", 4, channels=8, blocks=1), True),
        (lambda: models.create("efficient", 2, channels=8, blocks=1), True),
        (lambda: models.create("srcnn915", 2, channels=(8, 4), carry=False), True),
        (lambda: Gated(), False),
    ],
    ids=["srresnet-small", "batch normalisation", "efficient", "srcnn", "products"],
)
def test_the_linearised_output_is_the_slope_of_the_changed_network_however_it_is_made(make, two_pass):
    torch.manual_seed(0)
    model, low = make().double().eval(), torch.rand(3, 3, 8, 8, dtype=torch.double)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    response = Response(model, 2, example=low[:1])
    assert response.two_pass is two_pass
    for gate in response.gates:
        torch.nn.init.normal_(gate, std=0.1)
    delta, step = torch.randn(3, 2, dtype=torch.double), 1e-6
    with torch.no_grad():
        slope = (response(low, step * delta) - response(low, -step * delta)) / (2 * step)
    change = response.linearized(low, delta) - model(low)
    assert change.abs().max() > 1e-3
    assert torch.allclose(change, slope, rtol=1e-4, atol=1e-7)
    fast, slow = response._two_passes(low, delta, None), response._forward_mode(low, delta, None)
    assert torch.allclose(fast, slow, atol=1e-7) is two_pass
    assert torch.equal(response(low, 0 * delta), model(low))


class Gated(nn.Module):
    """Feature maps that multiply each other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, low: Tensor) -> Tensor:
        return self.a(low) * torch.sigmoid(self.b(low))


def test_each_example_answers_to_its_own_delta_and_squared_norm_is_that_of_the_changed_weights():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(), nn.Conv2d(4, 3, 1))
    response, low = Response(model, 2), torch.rand(3, 3, 6, 6)
    for gate in response.gates:
        torch.nn.init.normal_(gate)
    delta = torch.tensor([[0.0, 0.0], [1.0, -2.0], [0.5, 0.5]])
    together = response(low, delta)
    for number in range(3):
        assert torch.allclose(together[number], response(low[number][None], delta[number][None])[0], atol=1e-5)
    layers = [model[0], model[2]]
    for number, one in enumerate(delta):
        expected = sum(
            (layer.weight + response.gate(i, one[None], bias=False)[0].view(-1, 1, 1, 1) * kernel).square().sum()
            for i, (layer, kernel) in enumerate(zip(layers, response.kernels, strict=True))
        )
        assert response.squared_norm(delta)[number].item() == pytest.approx(expected.item(), rel=1e-4)


def test_dropout_drops_whole_feature_maps_by_each_examples_own_rate():
    mask = Dropout(torch.tensor([0.0, 0.5]), torch.Generator().manual_seed(0)).mask(torch.ones(2, 400, 3, 3))
    assert mask[0].eq(1).all()
    assert set(mask[1].flatten().tolist()) == {0.0, 2.0} and 140 < int(mask[1].eq(0).sum()) < 260


# ---------------------------------------------------------------------------------- the trainer


def pictures(seed: int, count: int = 2, camera: Camera | None = None) -> ImageDataset:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 12, 12, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (48, 48), mode="bicubic").clamp(0, 1)
    return ImageDataset((fine * 255).to(torch.uint8).unbind(), degradation=camera)


VALIDATION = pictures(1, camera=Camera(1.2, 0.02))


def network() -> nn.Module:
    torch.manual_seed(3)
    return models.create("srresnet-small", 2, channels=8, blocks=1)


def trainer(kind=TuningTrainer, hypers=HYPERS, model=None, dataset=None, validation=VALIDATION, out=None, **settings):
    config = {"steps": 12, "batch_size": 4, "patch_size": 24, "hyper_warmup": 3, "log_freq": 2, "device": "cpu"}
    config = TuningConfig(**config | settings)
    options = {"hypers": hypers, "validation": validation, "out": out}
    return kind(model or network(), dataset or pictures(0), config, **options)


def test_n_steps_a_checkpoint_and_n_more_are_2n_steps_bit_for_bit(tmp_path):
    whole = trainer()
    whole.fit(progress=False)
    half = trainer(steps=6, out=tmp_path)
    half.fit(progress=False)
    resumed = trainer(out=tmp_path)
    resumed.fit(resume=True, progress=False)
    assert torch.equal(whole.tuner.raw, resumed.tuner.raw)
    assert not torch.equal(half.tuner.raw, resumed.tuner.raw)
    for mine, other in ((whole.model, resumed.model), (whole.tuner.response, resumed.tuner.response)):
        for a, b in zip(mine.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    names = [name for name in whole.history.names() if "hyper/" in name or "response/" in name]
    assert {f"hyper/{one.name}" for one in HYPERS} < {*names}
    for name in names:
        assert whole.history.series(name) == resumed.history.series(name)


def test_a_checkpoint_with_other_hyper_parameters_is_another_training(tmp_path, capsys):
    trainer(steps=2, out=tmp_path).fit(progress=False)
    other = trainer(hypers=HYPERS[:2], out=tmp_path, steps=2)
    assert other.restore().step_number == 0 and "hyper-parameters" in capsys.readouterr().out
    with pytest.raises(SRKitError, match="other hyper-parameters"):
        other.load_state(checkpoint.load(tmp_path / "last.pt"))


def test_fixed_hyper_parameters_stay_and_self_tuned_ones_move_after_the_warm_up_until_told():
    fixed = trainer(RegularizedTrainer)
    fixed.fit(progress=False)
    assert torch.equal(fixed.values(), torch.tensor([one.start for one in HYPERS]))
    tuned = trainer(tune_from=2, tune_until=9, hyper_warmup=3, hyper_freq=2)
    moved, learnt, before, response = [], [], tuned.values(), copy.deepcopy(tuned.tuner.response.state_dict())
    for step in tuned:
        now, answer = tuned.values(), copy.deepcopy(tuned.tuner.response.state_dict())
        moved += [step] * (not torch.equal(now, before))
        learnt += [step] * (not all(map(torch.equal, answer.values(), response.values())))
        before, response = now, answer
    assert learnt == [3, 4, 5, 6, 7, 8, 9] and moved == [6, 8]


def test_strengths_are_each_examples_own_and_the_patches_stay_the_same():
    one = trainer()
    strong = torch.tensor([[3.0, 0.0, 0.0, 0.0, 1e-6]]).expand(4, -1).clone()
    strong[0, 0] = 0.1
    soft = one.regularized(strong)
    plain = one.regularized(torch.tensor([[0.1, 0.0, 0.0, 0.0, 1e-6]]).expand(4, -1))
    assert torch.equal(soft.high, plain.high) and torch.equal(soft.low[0], plain.low[0])
    assert all(not torch.equal(a, b) for a, b in zip(soft.low[1:], plain.low[1:], strict=True))
    warped = one.regularized(torch.tensor([[0.1, 0.0, 1.0, 0.0, 1e-6]]).expand(4, -1))
    assert not torch.equal(warped.high, plain.high)


def test_weight_decay_makes_weights_smaller_and_batch_normalisation_stays_frozen():
    norms = []
    for decay in (2e-7, 9e-3):
        model = models.create("srresnet", 2, channels=8, blocks=1)
        torch.manual_seed(0)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.1)
        before = [value.clone() for value in model.buffers()]
        one = trainer(RegularizedTrainer, [replace(WEIGHT_DECAY, start=decay)], model, lr=0.01, warmup=0)
        one.unit = 100.0  # so that 12 steps show it
        one.fit(progress=False)
        assert all(map(torch.equal, before, model.buffers()))
        norms.append(
            sum(layer.weight.square().sum().item() for layer in model.modules() if isinstance(layer, nn.Conv2d))
        )
    assert norms[1] < 0.99 * norms[0]


def test_live_run_shows_them_move_and_a_replay_moves_them_alike():
    run = live.Run(trainer())
    run.start()
    assert run.wait(60) and run.state == "finished", run.error
    again = live.replay(run)
    assert torch.equal(again.tuner.raw, run.trainer.tuner.raw)


# ---------------------------------------------------------------------------------- bad input


def still(low, strength, generator):
    return low


def test_what_cannot_be_tuned_is_refused_in_a_line_that_says_what_to_do():
    with pytest.raises(SRKitError, match="outside of its range"):
        Hyper("gray", 0, 1, start=2.0, act=still)
    with pytest.raises(SRKitError, match="at its end"):
        Hyper("gray", 0, 1, start=0.0, act=still)
    with pytest.raises(SRKitError, match="above 0"):
        Hyper("gray", 0, 1, act=still, log=True)
    with pytest.raises(SRKitError, match="needs act"):
        Hyper("gray", 0, 1)
    with pytest.raises(SRKitError, match="at least one"):
        trainer(hypers=[])
    with pytest.raises(SRKitError, match="one name"):
        trainer(hypers=[HYPERS[0], HYPERS[0]])
    with pytest.raises(SRKitError, match="keep the shape"):
        trainer(hypers=[Hyper("half", 0, 1, act=lambda low, strength, generator: low[..., ::2])])
    with pytest.raises(SRKitError, match="training and the validation"):
        trainer(validation=ImageDataset(pictures(0).pictures[:1], ["again"]))
    with pytest.raises(SRKitError, match="validation pictures"):
        trainer(validation=None)
    with pytest.raises(SRKitError, match="spoilt already"):
        trainer(dataset=pictures(0, camera=Camera(1, 0)))
    with pytest.raises(SRKitError, match="no convolution"):
        trainer(model=models.create("bicubic", 2))
    with pytest.raises(SRKitError, match="0 or more"):
        Camera(-1, 0)
    with pytest.raises(SRKitError, match="hyper_batch_size must be 1 or more"):
        TuningConfig(hyper_batch_size=0)
    for span in ({"tune_until": 0}, {"tune_from": 5, "tune_until": 5}):
        with pytest.raises(SRKitError, match="must be more than tune_from"):
            TuningConfig(**span)


def test_a_hyper_parameter_without_effect_is_named_once_after_fifty_steps(capsys):
    nothing = Hyper("nothing", 0, 1, act=still)
    trainer(hypers=[HYPERS[1], nothing], steps=101, patch_size=12, batch_size=2).fit(progress=False)
    told = capsys.readouterr().out
    assert told.count("nothing changes nothing") == 1 and "50 steps" in told and "noise changes" not in told


def test_nan_in_a_hyper_parameter_stops_with_the_last_good_checkpoint(tmp_path):
    one = trainer(out=tmp_path, save_freq=2)
    for _ in range(4):
        next(one)
    good = checkpoint.load(tmp_path / "last.pt")
    with torch.no_grad():
        one.tuner.raw[1] = math.nan
    with pytest.raises(SRKitError, match=r"hyper-parameter \w+ is no longer a number.*last\.pt"):
        one.fit(progress=False)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == good["step"] == 4
    assert torch.isfinite(checkpoint.load(tmp_path / "last.pt")["tuning"]["raw"]).all()
