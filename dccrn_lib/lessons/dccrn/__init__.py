"""Lesson 02: its figures, widgets and exercises."""
