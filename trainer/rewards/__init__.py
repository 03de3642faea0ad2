"""Rewards: named, weighted channels of a rollout; those of the papers are presets of one function."""
