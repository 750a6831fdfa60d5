"""Lesson 06: its figures, widgets and exercises."""
