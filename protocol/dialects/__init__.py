"""Podium: protocol/dialects."""
