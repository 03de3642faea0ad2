"""Podium: actors/policies."""
