"""Experiments that were written for other tools."""
