"""Interactive views of the lessons (ipywidgets). Each only adds to a static figure in the cell before it.

Modules are named after the notebooks' topics and import nothing from each other.
"""
