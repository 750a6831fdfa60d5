"""Lesson 03: its figures, widgets and exercises."""
