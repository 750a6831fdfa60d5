"""Lesson 00: its figures, widgets and exercises."""
