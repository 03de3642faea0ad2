"""Podium: podium."""
