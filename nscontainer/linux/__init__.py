"""One file per kernel facility: wrappers named as the man pages are, without policy."""
