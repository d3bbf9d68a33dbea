"""Adversarial inference: a critic estimates density ratios where densities are not available."""
