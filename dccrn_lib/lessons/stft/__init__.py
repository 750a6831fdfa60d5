"""Lesson 01: its figures, widgets and exercises."""
