"""Tests of the server: what it answers, and whom."""
