"""Experiments: what is varied, what is run how often in which order, what came of it, and where it is kept.

Nothing here starts a container: :mod:`nscontainer.sweeps`, above, hands in what does.
"""
