"""How good a picture is: PSNR and SSIM by the protocol, measures beyond it, and `evaluate`, which makes a table."""

from srkit.metrics.protocol import Change, Paired, Row, Table, evaluate, paired, psnr, ssim
from srkit.metrics.quality import MEASURES, brisque, lpips

__all__ = [
    "MEASURES",
    "Change",
    "Paired",
    "Row",
    "Table",
    "brisque",
    "evaluate",
    "lpips",
    "paired",
    "psnr",
    "ssim",
]
