"""Values on their way between the notebook and a cell in a container, from the owner's side.

- :mod:`.inputs` pickles what goes in,
- :mod:`.outfile` is the file that a container writes what comes out to,
- :mod:`.decode` (with :mod:`.arrays`, :mod:`.tables`) makes values of what is in it, trusting nothing.

The other side is :mod:`nscontainer.runner.values`.
"""
