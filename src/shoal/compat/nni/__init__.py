"""Experiments that were written for NNI: its files, and the module that its trials import."""
