"""Lesson 07: its figures, widgets and exercises."""
