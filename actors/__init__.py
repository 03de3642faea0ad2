"""Podium: actors."""
