"""Building images: a Dockerfile's instructions, or a cell of shell lines, each a cached layer.

``dockerfile`` reads the text, ``stages`` says which part of it is needed, ``expand`` puts variables in,
``context`` and ``union`` are the two kinds of trees that files are copied from, ``copying`` and
``newlayer`` make a layer of them, ``execute`` makes one by running a command, ``cache`` remembers what
made which layer, and ``builder`` goes through it all. Only ``execute`` needs the engine.
"""
