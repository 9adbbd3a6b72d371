"""Images: what a container's root filesystem is made from."""
