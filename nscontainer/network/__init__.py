"""Networks: bridges of the engine's own, with addresses, names, ports and a speed.

Nothing here is made before a container asks for a network, and nothing is left once none does.
"""
