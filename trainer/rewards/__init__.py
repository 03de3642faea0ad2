"""Rewards: named, weighted channels of a rollout; the papers' are presets of one function."""
