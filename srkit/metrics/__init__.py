"""How good a picture is: PSNR and SSIM by the protocol, measures beyond it, and `evaluate`, which makes a table."""

from srkit.metrics.protocol import Change, Paired, Row, Table, evaluate, measure, paired, psnr, ssim
from srkit.metrics.quality import MEASURES, available, brisque, lpips

__all__ = [
    "MEASURES",
    "Change",
    "Paired",
    "Row",
    "Table",
    "available",
    "brisque",
    "evaluate",
    "lpips",
    "measure",
    "paired",
    "psnr",
    "ssim",
]
