"""What the lessons have built so far: the classes that the reader writes, word for word, for the lessons after.

One file a lesson; ``tests/lessons/test_built.py`` holds each of them to the cells tagged ``built`` of its notebook.
"""
