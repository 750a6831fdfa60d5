"""Corpora: manifests, generated speech, noise and rooms, recipes for real recordings, and their mixtures."""
