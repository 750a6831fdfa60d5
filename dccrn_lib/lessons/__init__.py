"""What the notebooks show, ask and check: one package a lesson, and how lessons are run.

Figures are static, widgets (ipywidgets) only add to a figure in the cell before, exercises are graded.
"""
