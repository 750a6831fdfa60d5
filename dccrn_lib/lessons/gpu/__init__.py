"""Lesson 05b: its figures and exercises."""
