"""Tests of the pictures: of their data, not of their pixels."""
