"""GANTrainer: who learns from whom, what a checkpoint holds, what the verdict says, and what is refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from conftest import photograph

from srkit import live, losses, models
from srkit.banks import Bank
from srkit.errors import SRKitError
from srkit.training import GANConfig, GANTrainer, History, TrainConfig, Trainer, checkpoint, load_discriminator
from srkit.training.gan import verdict

SMALL = {
    "batch_size": 2, "crop": 32, "warmup": 0, "log_freq": 1, "val_freq": 4, "save_freq": 4, "device": "cpu",
    "discriminator": 4, "features": "squeezenet", "feature_weights": "random", "content": ("fire2",),
    "loss": {"mse": 0.0, "content": 10.0, "adversarial": 1e-3},
}  # fmt: skip


def generator(trained: bool = True, norm: bool = True, **arguments) -> torch.nn.Module:
    torch.manual_seed(0)
    model = models.create("srresnet", 2, channels=8, blocks=1, last_kernel=3, norm=norm, **arguments)
    model.trained = trained
    return model


def gan(bank, steps=8, out=None, validation=None, model=None, **settings) -> GANTrainer:
    config = GANConfig(steps=steps, **{**SMALL, **settings})
    return GANTrainer(model or generator(), bank, config, validation=validation, out=out)


def sha(model: torch.nn.Module) -> str:
    return checkpoint.weights_sha256(model.state_dict())


def gradients(model: torch.nn.Module) -> float:
    """The sum of all gradients' sizes; 0 where there are none."""
    return sum(p.grad.abs().sum().item() for p in model.parameters() if p.grad is not None)


# ---------------------------------------------------------------------------------- who learns from whom


def test_the_discriminators_step_leaves_no_gradient_in_the_generator(bank):
    subject = gan(bank)
    subject.judge(subject._batch())
    assert gradients(subject.discriminator) > 0 and all(p.grad is None for p in subject.model.parameters())


@pytest.mark.parametrize("term", ["content", "adversarial"])
def test_each_term_reaches_the_generator_and_none_the_discriminator(bank, term):
    subject = gan(bank, loss={"content": 0.0, "adversarial": 0.0, term: 1.0})
    before = sha(subject.model)
    subject.discriminator.requires_grad_(False)
    values = subject.backward(subject._batch())
    assert gradients(subject.model) > 0 and gradients(subject.discriminator) == 0
    assert values[f"weighted/{term}"] == values["loss"] > 0
    subject.discriminator.requires_grad_(True)
    next(subject)
    assert sha(subject.model) != before


def test_the_adversarial_terms_gradient_is_that_of_minus_log_d(bank):
    subject = gan(bank, loss={"adversarial": 1.0}, precision="fp32")
    batch = subject._batch()
    subject.backward(batch)
    mine = [p.grad.clone() for p in subject.model.parameters()]
    subject.model.zero_grad()
    output = subject.model(batch.low)
    (-subject.discriminator(output).sigmoid().log().mean()).backward()
    for a, b in zip(mine, subject.model.parameters(), strict=True):
        assert torch.allclose(a, b.grad, rtol=1e-3, atol=1e-6)


def test_in_the_warm_up_the_discriminator_learns_alone(bank):
    subject = gan(bank, steps=6, discriminator_warmup=4)
    start, judge = sha(subject.model), sha(subject.discriminator)
    for _ in range(4):
        next(subject)
    weights = {name: value for name, value in subject.model.state_dict().items() if "running" not in name}
    fresh = {name: value for name, value in generator().state_dict().items() if "running" not in name}
    assert all(torch.equal(weights[n], fresh[n]) for n in weights if "num_batches" not in n)
    assert sha(subject.discriminator) != judge and "loss" not in subject.history.rows[-1]
    assert subject.verdict().startswith("warming up")
    next(subject)
    assert sha(subject.model) != start and "loss" in subject.history.rows[-1]


def test_the_discriminator_learns_to_tell(bank):
    sharp = Bank([(photograph(48, 48, seed) > 0.5).byte() * 255 for seed in range(6)])
    subject = gan(sharp, steps=60, discriminator_warmup=60, learning_rate=2e-3, batch_size=4, discriminator=8)
    first = next(subject) and subject.history.rows[0]
    last = subject.fit(progress=False).rows[-1]
    assert abs(first["D/real"] - first["D/fake"]) < 0.3 and last["D/real"] - last["D/fake"] > 0.6
    assert last["D/loss"] < first["D/loss"]


def test_the_discriminator_has_a_learning_rate_of_its_own(bank):
    subject = gan(bank, discriminator_rate=4.0, learning_rate=1e-4)
    next(subject)
    subject.change(learning_rate=1e-5)
    next(subject)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in (subject.optimizer, subject.discriminator_optimizer)]
    assert rates == pytest.approx([1e-5, 4e-5])
    with pytest.raises(SRKitError, match="discriminator_rate is 0"):
        GANConfig(discriminator_rate=0)


def test_label_smoothing_keeps_the_discriminator_from_being_sure():
    logits = torch.tensor([3.0])
    p = logits.sigmoid().item()
    for label in (1.0, 0.9, 0.0):
        by_hand = -label * math.log(p) - (1 - label) * math.log(1 - p)
        assert losses.judged(logits, label).item() == pytest.approx(by_hand, rel=1e-5)
    sure = torch.tensor([8.0])
    assert losses.judged(sure, 1.0) < losses.judged(logits, 1.0) and losses.judged(sure, 0.9) > losses.judged(
        logits, 0.9
    )


def test_a_batch_in_parts_trains_both_networks(bank):
    subject = gan(bank, model=generator(norm=False))
    subject.parts = 2
    before = sha(subject.model), sha(subject.discriminator)
    next(subject)
    assert sha(subject.model) != before[0] and sha(subject.discriminator) != before[1]


def test_the_generators_gradient_in_parts_is_that_of_the_whole_batch(bank):
    # Without the discriminator, whose normalisation by batch makes a half see other statistics than a whole.
    settings = {"loss": {"content": 1.0, "adversarial": 0.0}, "precision": "fp32"}
    subjects = [gan(bank, model=generator(norm=False), **settings) for _ in range(2)]
    subjects[1].parts = 2
    for subject in subjects:
        subject.in_parts(subject.backward, subject._batch())
    for a, b in zip(*(subject.model.parameters() for subject in subjects), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-7)


# ---------------------------------------------------------------------------------- resuming and replaying


@pytest.mark.parametrize("settings", [{}, {"discriminator_warmup": 3, "ema": 0, "precision": "fp32"}])
def test_n_and_n_more_steps_are_2n_steps_bit_for_bit(bank, tmp_path, settings):
    whole = gan(bank, 8, **settings)
    whole.fit(progress=False)
    gan(bank, 4, tmp_path, **settings).fit(progress=False)
    resumed = gan(bank, 8, tmp_path, **settings).pick_up()
    assert resumed.step_number == 4
    resumed.fit(progress=False)
    assert sha(whole.result) == sha(resumed.result) and sha(whole.model) == sha(resumed.model)
    assert sha(whole.discriminator) == sha(resumed.discriminator)
    moments = [s.discriminator_optimizer.state_dict()["state"] for s in (whole, resumed)]
    assert all(torch.equal(moments[0][i]["exp_avg"], moments[1][i]["exp_avg"]) for i in moments[0])


def test_resume_makes_the_gan_again_from_its_checkpoint_alone(tmp_path):
    from srkit.banks import open_bank

    small = open_bank("bundled", size=64)
    gan(small, 2, tmp_path).fit(progress=False)
    again = Trainer.resume(tmp_path / "last.pt", steps=3)
    assert isinstance(again, GANTrainer) and again.config.content == ("fire2",) and again.step_number == 2
    assert sha(again.discriminator) == sha(load_discriminator(tmp_path / "last.pt"))
    again.fit(progress=False)


def test_another_first_stage_is_another_training(bank, tmp_path, capsys):
    gan(bank, 4, tmp_path).fit(progress=False)
    other = generator()
    with torch.no_grad():
        other.leave.bias += 0.1
    assert gan(bank, 8, tmp_path, model=other).pick_up().step_number == 0
    assert "start" in capsys.readouterr().out


def test_moves_of_a_running_gan_are_replayed_bit_for_bit(bank):
    run = live.Run(gan(bank, 6), photograph(48, 48))
    run.weights.set(adversarial=1e-2)
    run.start()
    run.wait()
    assert not run.error and [move.term for move in run.history.moves()] == ["adversarial"]
    twin = live.replay(run)
    assert sha(twin.result) == sha(run.trainer.result) and sha(twin.discriminator) == sha(run.trainer.discriminator)
    assert twin.discriminator is not run.trainer.discriminator and run.verdict == run.trainer.verdict()


def test_the_average_is_what_is_used(bank):
    subject = gan(bank, 6, ema=0.9)
    subject.fit(progress=False)
    assert sha(subject.result) != sha(subject.model) and subject.result.trained


def test_best_is_what_looks_most_like_the_truth(bank, tmp_path):
    subject = gan(bank, 8, tmp_path, validation=bank, learning_rate=1e-3)
    subject.fit(progress=False)
    _, seen = subject.history.series("val/content")
    assert len(seen) == 2 and subject.best == -min(seen)
    assert "val/adversarial" not in subject.history.names()
    only = gan(bank, 4, validation=bank, loss={"adversarial": 1.0})
    only.fit(progress=False)
    assert only.best == 4


# ---------------------------------------------------------------------------------- the verdict


def history(real: float, fake: float, adversarial: float = 0.2, falls: float = 0.0) -> History:
    made = History()
    made.add({"step": 0, "val/dB": 30.0})
    for step in range(1, 20):
        made.add({"step": step, "loss": 1.0, "weighted/adversarial": adversarial, "weighted/content": 1 - adversarial,
                  "D/real": real, "D/fake": fake, "D/loss": 0.5, "D/gradient": 1.0, "G/gradient": 1.0})  # fmt: skip
    made.add({"step": 20, "val/dB": 30.0 - falls})
    return made


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ((0.7, 0.3), "healthy"),
        ((0.99, 0.02), "D wins"),
        ((0.51, 0.50), "D is blind"),
        ((0.55, 0.45), "undecided"),
        ((0.7, 0.3, 0.95, 6.5), "adversarial term rules, with 95% of the generator's loss (validation PSNR -6.5 dB)"),
        ((0.7, 0.3, 0.001), "D has no say"),
        ((0.7, 0.3, 0.0), "weighs nothing"),
    ],
)
def test_the_verdict_tells_states_apart(state, said):
    assert said in verdict(history(*state))


def test_no_verdict_before_the_first_step_nor_without_a_gan(bank):
    assert verdict(History()) == "no step yet"
    assert Trainer(generator(), bank, TrainConfig(batch_size=2, crop=32)).verdict() == ""


def test_far_too_high_an_adversarial_weight_is_diagnosed(bank):
    subject = gan(bank, 6, loss={"content": 1.0, "adversarial": 10.0})
    subject.fit(progress=False)
    assert "the adversarial term rules" in subject.verdict() and "a tenth" in subject.verdict()


# ---------------------------------------------------------------------------------- refused


def test_a_generator_that_was_never_trained_is_refused_unless_asked_for(bank):
    with pytest.raises(SRKitError, match=r"never trained.*--start.*from_scratch"):
        gan(bank, model=generator(trained=False))
    next(gan(bank, model=generator(trained=False), from_scratch=True))


def test_what_can_be_no_generator_is_refused(bank):
    with pytest.raises(SRKitError, match="discriminator: the generator must be"):
        gan(bank, model=models.Discriminator(4))
    with pytest.raises(SRKitError, match="one output"):
        gan(bank, model=models.create("superresnet-multi"))
    with pytest.raises(SRKitError, match="scale 3: an SRResNet doubles once or twice"):
        models.create("srgan", 3)


def test_a_training_that_is_all_warm_up_says_so(bank, capsys):
    gan(bank, 3, discriminator_warmup=3)
    assert "the generator will not learn" in capsys.readouterr().out


def test_a_loss_without_adversary_is_refused(bank):
    with pytest.raises(SRKitError, match="no term adversarial"):
        GANTrainer(generator(), bank, GANConfig(**SMALL), losses.WeightedLoss({"mse": 1}))
    with pytest.raises(SRKitError, match="needs the term adversarial"):
        GANConfig(loss={"mse": 1})
    with pytest.raises(SRKitError, match="adversarial"):
        Trainer(generator(), bank, TrainConfig(loss={"mse": 1, "adversarial": 1}, batch_size=2, crop=32))


@pytest.mark.parametrize("wrong", [{"real_label": 0.4}, {"discriminator": 0}, {"discriminator_warmup": -1}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(SRKitError):
        GANConfig(**wrong)


def test_a_generators_checkpoint_is_no_discriminators(bank, tmp_path):
    bank.recipe = {}
    Trainer(generator(), bank, TrainConfig(steps=1, batch_size=2, crop=32, device="cpu"), out=tmp_path).fit(False)
    with pytest.raises(SRKitError, match="holds srresnet and no discriminator"):
        load_discriminator(tmp_path / "last.pt")
    with pytest.raises(SRKitError, match="no GAN's"):
        gan(bank).load_state(checkpoint.load(tmp_path / "last.pt"))


def test_the_papers_discriminator_judges_96_pixels_only(bank):
    with pytest.raises(SRKitError, match="96 x 96 pixels, not 32 x 32"):
        gan(bank, judges="96")


@pytest.mark.parametrize("which", ["discriminator", "model"])
def test_a_network_that_breaks_stops_the_training_and_leaves_the_last_checkpoint(bank, tmp_path, which):
    subject = gan(bank, 20, tmp_path)
    for _ in range(4):
        next(subject)
    saved = sha(checkpoint.load_model(tmp_path / "last.pt"))
    with torch.no_grad():
        next(getattr(subject, which).parameters()).fill_(math.nan)
    with pytest.raises(SRKitError, match=rf"no longer a number near step 5.*{tmp_path.name}"):
        subject.fit(progress=False)
    assert sha(checkpoint.load_model(tmp_path / "last.pt")) == saved


def test_a_given_discriminator_goes_on_judging(bank):
    judge = models.Discriminator(4)
    before = copy.deepcopy(judge.state_dict())
    subject = GANTrainer(generator(), bank, GANConfig(**SMALL), discriminator=judge)
    assert subject.discriminator is judge
    next(subject)
    assert any(not torch.equal(before[name], value) for name, value in judge.state_dict().items())
