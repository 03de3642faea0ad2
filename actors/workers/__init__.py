"""Podium: actors/workers."""
