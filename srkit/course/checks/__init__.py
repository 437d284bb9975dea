"""Checks of what a student wrote: right, not written yet, or wrong in a way that has a name.

    merge = checks.merge(merge)

A check prints one line and returns what the lesson goes on with: the student's own answer if it is right, srkit's if
not, so that nobody is stuck. A wrong answer is compared with wrong answers that are likely, and told which it is.
"""

from srkit.course.checks.check import Check, module
from srkit.course.checks.lesson_01 import Pairs, collate, degrade, split
from srkit.course.checks.lesson_01_measures import psnr, ssim
from srkit.course.checks.lesson_01b import bradley_terry, mos, normalised, spearman, ssim_map
from srkit.course.checks.lesson_02 import SRCNN, convolve, identity, parameters, receptive_field, sharpen
from srkit.course.checks.lesson_03 import charbonnier, cosine, moving_average, paper_loss, train
from srkit.course.checks.lesson_03_saving import load_training, save_training
from srkit.course.checks.lesson_04 import (
    expected_mse,
    feature_loss,
    feature_maps,
    gram,
    total_variation,
    weights_by_share,
)
from srkit.course.checks.lesson_05 import Dilated, Residual, TwoOutputs, inverse_psnr, multiply_adds, with_skip
from srkit.course.checks.lesson_06 import (
    adversarial_loss,
    discriminator_loss,
    discriminator_step,
    generator_step,
    mixed_weights,
    pixel_shuffle,
    transposed_convolution,
)
from srkit.course.checks.lesson_07 import freeze_norms, paired_change, project, train_only, two_means, warp
from srkit.course.checks.lesson_08 import fade, hyper_step, perturb, respond, to_range
from srkit.course.checks.lesson_09 import content_loss, instance_norm, shuffle, style_loss
from srkit.course.checks.lesson_10 import merge, merge_norm, pareto, quantised, teach

__all__ = ["SRCNN", "Check", "Dilated", "Pairs", "Residual", "TwoOutputs", "adversarial_loss", "bradley_terry",
           "charbonnier", "collate", "content_loss", "convolve", "cosine", "degrade", "discriminator_loss",
           "discriminator_step", "expected_mse", "fade", "feature_loss", "feature_maps", "freeze_norms",
           "generator_step", "gram", "hyper_step", "identity", "instance_norm", "inverse_psnr", "load_training",
           "merge", "merge_norm", "mixed_weights", "module", "mos", "moving_average", "multiply_adds", "normalised",
           "paired_change", "paper_loss", "parameters", "pareto", "perturb", "pixel_shuffle", "project", "psnr",
           "quantised", "receptive_field", "respond", "save_training", "sharpen", "shuffle", "spearman", "split",
           "ssim", "ssim_map", "style_loss", "teach", "to_range", "total_variation", "train", "train_only",
           "transposed_convolution", "two_means", "warp", "weights_by_share", "with_skip"]  # fmt: skip
