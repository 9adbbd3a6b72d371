"""The engine: spawner, monitor, the container's first process, and the container as its user holds it."""
