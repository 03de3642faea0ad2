"""Podium: protocol."""
