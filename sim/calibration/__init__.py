"""Fits the efficiencies and fixed times of the step-time model to measurements, by gradient through the kernels."""
