"""Benchmarks: the textbook's way against srkit's in one run, and the trainings behind published numbers.

Never a test: timings are noisy, and trainings long.
"""
