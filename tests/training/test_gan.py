"""GANTrainer: who learns from whom, what a checkpoint holds, what the diagnosis says, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import photograph

from srkit import live, losses, models
from srkit.data import ImageDataset, load_dataset
from srkit.models.pretrained import weights_sha256
from srkit.settings import SRKitError
from srkit.training import GANConfig, GANTrainer, History, TrainConfig, Trainer, checkpoint, resume
from srkit.training.gan import diagnose

SMALL = {
    "batch_size": 2, "patch_size": 32, "warmup": 0, "log_freq": 1, "val_freq": 2, "save_freq": 4, "device": "cpu",
    "discriminator": 4, "features": "squeezenet", "feature_weights": "random", "content": ("fire2",),
    "loss": {"mse": 0.0, "content": 10.0, "adversarial": 1e-3},
}  # fmt: skip


def generator(pretrained: bool = True, norm: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    model = models.create("srresnet", 2, channels=8, blocks=1, last_kernel=3, norm=norm)
    model.pretrained = pretrained
    return model


def gan(dataset, steps=8, out=None, validation=None, model=None, **settings) -> GANTrainer:
    config = GANConfig(steps=steps, **{**SMALL, **settings})
    return GANTrainer(model or generator(), dataset, config, validation=validation, out=out)


def sha(model: torch.nn.Module) -> str:
    return weights_sha256(model.state_dict())


def shas(trainer: GANTrainer) -> list[str]:
    return [sha(network) for network in (trainer.result, trainer.model, trainer.discriminator)]


def gradients(model: torch.nn.Module) -> float:
    return sum(p.grad.abs().sum().item() for p in model.parameters() if p.grad is not None)


# ---------------------------------------------------------------------------------- who learns from whom


def test_each_networks_step_leaves_no_gradient_in_the_other(dataset):
    subject = gan(dataset)
    subject.backward_discriminator(subject.batch())
    assert gradients(subject.discriminator) > 0 and gradients(subject.model) == 0
    subject = gan(dataset, loss={"content": 0.0, "adversarial": 1.0})
    subject.step(subject.batch())
    assert gradients(subject.model) > 0 and not any(p.requires_grad for p in subject.discriminator.parameters())


def test_the_adversarial_terms_gradient_is_that_of_minus_log_d(dataset):
    subject = gan(dataset, loss={"adversarial": 1.0}, precision="fp32")
    batch = subject.batch()
    subject.backward(batch)
    mine = [p.grad.clone() for p in subject.model.parameters()]
    subject.model.zero_grad()
    (-subject.discriminator(subject.model(batch.low)).sigmoid().log().mean()).backward()
    for a, b in zip(mine, subject.model.parameters(), strict=True):
        assert torch.allclose(a, b.grad, rtol=1e-3, atol=1e-6)


def test_in_the_warm_up_the_discriminator_learns_alone(dataset):
    subject = gan(dataset, 3, discriminator_warmup=2)
    before, discriminator = [p.clone() for p in subject.model.parameters()], sha(subject.discriminator)
    next(subject), next(subject)
    assert all(torch.equal(a, b) for a, b in zip(before, subject.model.parameters(), strict=True))
    assert sha(subject.discriminator) != discriminator and "loss" not in subject.history.rows[-1]
    assert "warming up" in subject.diagnose()
    next(subject)
    assert not torch.equal(before[0], next(subject.model.parameters())) and "loss" in subject.history.rows[-1]


def test_the_discriminator_learns_to_tell():
    sharp = ImageDataset([(photograph(32, 32, seed) > 0.5).byte() * 255 for seed in range(6)])
    subject = gan(sharp, 50, discriminator_warmup=50, lr=2e-3, batch_size=4, discriminator=8)
    rows = subject.fit(progress=False).rows
    assert abs(rows[0]["D/real"] - rows[0]["D/fake"]) < 0.3 and rows[-1]["D/real"] - rows[-1]["D/fake"] > 0.4


def test_the_discriminator_has_a_learning_rate_of_its_own(dataset):
    subject = gan(dataset, discriminator_lr=4.0)
    subject.change(lr=1e-5)
    next(subject)
    assert [optimizer.param_groups[0]["lr"] for optimizer in subject.optimizers] == pytest.approx([1e-5, 4e-5])


def test_memory_that_runs_out_in_the_generators_half_lets_the_discriminator_step_once(dataset):
    subject, steps = gan(dataset, 2, model=generator(norm=False)), []
    step, backward = subject.discriminator_optimizer.step, subject.backward

    def tight(batch, share=1.0):
        if len(batch.low) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return backward(batch, share)

    subject.discriminator_optimizer.step = lambda *a, **k: steps.append(1) or step(*a, **k)
    subject.backward, subject.log = tight, lambda line: None
    next(subject)
    assert len(steps) == 1 and subject.history.moves == [(0, "accumulate", 1, 2)]
    twin = gan(dataset, 2, model=generator(norm=False))
    twin.change(accumulate=2)
    next(twin)
    assert shas(twin) == shas(subject)
    twin.change(accumulate_discriminator=2)
    next(twin)
    assert twin.history.rows[-1]["D/gradient"] > 0


# ---------------------------------------------------------------------------------- resuming and replaying


@pytest.mark.parametrize("settings", [{}, {"discriminator_warmup": 3, "ema": 0, "precision": "fp32"}])
def test_n_and_n_more_steps_are_2n_steps_bit_for_bit(dataset, tmp_path, settings):
    whole = gan(dataset, 8, **settings)
    whole.fit(progress=False)
    gan(dataset, 4, tmp_path, **settings).fit(progress=False)
    resumed = gan(dataset, 8, tmp_path, **settings)
    resumed.fit(resume=True, progress=False)
    assert shas(resumed) == shas(whole)
    moments = [s.discriminator_optimizer.state_dict()["state"] for s in (whole, resumed)]
    assert all(torch.equal(moments[0][i]["exp_avg"], moments[1][i]["exp_avg"]) for i in moments[0])
    other = generator()
    next(other.parameters()).data += 0.1  # another first stage is another training
    assert gan(dataset, 8, tmp_path, model=other, **settings).restore().step_number == 0


def test_resume_makes_the_gan_again_from_its_checkpoint_alone(tmp_path):
    gan(load_dataset("bundled", size=48), 2, tmp_path).fit(progress=False)
    again = resume(tmp_path / "last.pt", steps=3)
    assert isinstance(again, GANTrainer) and again.config.content == ("fire2",) and again.step_number == 2
    assert sha(again.discriminator) == sha(checkpoint.load_discriminator(tmp_path / "last.pt"))
    again.fit(progress=False)


def test_moves_of_a_running_gan_are_replayed_bit_for_bit(dataset):
    run = live.Run(gan(dataset, 4), photograph(48, 48))
    run.weights.set(adversarial=1e-2)
    run.start()
    run.wait()
    assert not run.error and [move.name for move in run.history.moves] == ["adversarial"]
    assert shas(live.replay(run)) == shas(run.trainer)


def test_best_is_nearest_in_features_whatever_the_content_weighs(dataset, tmp_path):
    subject = gan(dataset, 6, tmp_path, validation=dataset, lr=1e-3)
    for step in subject:
        if step == 1:
            subject.change(content=0.0, mse=1.0)  # not minimised for a while, and measured all the same
        if step == 3:
            subject.change(content=1.0)
    _, distances = subject.history.series("val/content")
    assert len(distances) == 3 and subject.best == -min(distances) and "val/adversarial" not in subject.history.names()


@pytest.mark.parametrize("which", ["discriminator", "model"])
def test_a_network_that_breaks_stops_the_training_and_leaves_the_last_checkpoint(dataset, tmp_path, which):
    subject = gan(dataset, 20, tmp_path)
    for _ in range(4):
        next(subject)
    saved = sha(models.load(tmp_path / "last.pt"))
    next(getattr(subject, which).parameters()).data.fill_(math.nan)
    with pytest.raises(SRKitError, match=r"last\.pt"):
        subject.fit(progress=False)
    assert sha(models.load(tmp_path / "last.pt")) == saved


# ---------------------------------------------------------------------------------- the diagnosis


STATES = {
    "healthy": (0.7, 0.3, 0.2), "D wins": (0.99, 0.02, 0.2), "cannot tell": (0.51, 0.50, 0.2),
    "undecided": (0.55, 0.45, 0.2), "a tenth of its weight": (0.7, 0.3, 0.95),
    "ten times its weight": (0.7, 0.3, 0.001), "weighs nothing": (0.7, 0.3, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("words", STATES)
def test_the_diagnosis_tells_states_apart(words):
    history = History()
    assert diagnose(history) == "no step yet"
    real, fake, adversarial = STATES[words]
    row = {"loss": 1.0, "weighted/adversarial": adversarial, "D/real": real, "D/fake": fake, "G/gradient": 1.0}
    for step in range(1, 20):
        history.add({"step": step, **row})
    history.add({"step": 20, "val/dB": 30.0})
    said = diagnose(history)
    assert words in said and not any(other in said for other in STATES if other != words)


# ---------------------------------------------------------------------------------- refused


def test_what_can_be_no_generator_is_refused(dataset):
    for model in (generator(pretrained=False), models.Discriminator(4), models.create("superresnet-multi")):
        with pytest.raises(SRKitError):
            gan(dataset, model=model)
    next(gan(dataset, model=generator(pretrained=False), from_scratch=True))


def test_losses_sizes_and_checkpoints_that_are_no_gans_are_refused(dataset, tmp_path):
    config = TrainConfig(steps=1, batch_size=2, patch_size=32, device="cpu")
    Trainer(generator(), dataset, config, out=tmp_path).fit(progress=False)
    for refused in (
        lambda: GANTrainer(generator(), dataset, GANConfig(**SMALL), losses.WeightedLoss({"mse": 1})),
        lambda: Trainer(generator(), dataset, TrainConfig(loss={"mse": 1, "adversarial": 1})),
        lambda: gan(dataset, discriminator_size=96),
        lambda: gan(dataset).load_state(checkpoint.load(tmp_path / "last.pt")),
        lambda: checkpoint.load_discriminator(tmp_path / "last.pt"),
    ):
        with pytest.raises(SRKitError):
            refused()


@pytest.mark.parametrize(
    "wrong",
    [{"real_label": 0.4}, {"discriminator": 0}, {"discriminator_warmup": -1}, {"discriminator_lr": 0},
     {"loss": {"mse": 1}}],
)  # fmt: skip
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(SRKitError):
        GANConfig(**wrong)
