"""Lesson 05: its figures, widgets and exercises."""
