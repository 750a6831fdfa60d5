"""Lesson 04: its figures, widgets and exercises."""
