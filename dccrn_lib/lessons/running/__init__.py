"""Notebooks as programs: their parameters, their execution, their report."""
