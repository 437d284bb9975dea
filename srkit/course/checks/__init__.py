"""Checks of what a student wrote: right, not written yet, or wrong in a way that has a name.

    merge = checks.merge(merge)

A check prints one line and returns what the lesson goes on with: the student's own answer if it is right, srkit's if
not, so that nobody is stuck. A wrong answer is compared with wrong answers that are likely, and told which it is.
"""

from srkit.course.checks.check import Check, module
from srkit.course.checks.lesson_01 import Pairs, collate, degrade, psnr, split, ssim
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
from srkit.course.checks.lesson_10 import merge

__all__ = ["SRCNN", "Check", "Dilated", "Pairs", "Residual", "TwoOutputs", "charbonnier", "collate", "convolve",
           "cosine", "degrade", "expected_mse", "feature_loss", "feature_maps", "gram", "identity", "inverse_psnr",
           "load_training", "merge", "module", "moving_average", "multiply_adds", "paper_loss", "parameters",
           "psnr", "receptive_field", "save_training", "sharpen", "split", "ssim", "total_variation", "train",
           "weights_by_share", "with_skip"]  # fmt: skip
