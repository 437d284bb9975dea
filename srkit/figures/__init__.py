"""The figures that students export: pages of pictures, curves, and the provenance that goes with each.

A page is 12 x 12 inches at 300 dots an inch: 3600 x 3600 pixels. Images are placed to the pixel and magnified by whole
numbers, so that each pixel of an image is a clean square.
"""

from srkit.figures.pages import ACCENT, DPI, INCHES, PAGE, Box, Page, busiest, comparison, grid, score, scored, show
from srkit.figures.plots import curves, differences, heat_map, preferences, tradeoff
from srkit.figures.saving import provenance, save
from srkit.figures.wipe import wipe

__all__ = ["ACCENT", "DPI", "INCHES", "PAGE", "Box", "Page", "busiest", "comparison", "curves", "differences", "grid",
           "heat_map", "preferences", "provenance", "save", "score", "scored", "show", "tradeoff", "wipe"]  # fmt: skip
