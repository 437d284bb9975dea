"""Benchmarks: the textbook's way against srkit's, side by side in one run. Never a test: timings are noisy."""
