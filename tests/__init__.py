"""The tests. A package by name, so that no other package called ``tests`` is taken for it."""
