"""Podium: replay."""
