"""Images in files: ``load``, ``save``, ``import``, ``export`` and ``bootstrap``.

What is what, by file: ``tarindex`` (what members a tar has, and where), ``source`` (an archive or a
directory as named parts), ``contents`` (which images an archive has), ``load`` and ``save``, ``dest`` (the
file that is written), ``rootfs`` (a tar of a whole root filesystem, in and out), ``merge`` (layers seen as one
tree), ``bootstrap`` (Debian and Ubuntu, by mmdebstrap or debootstrap).

No member's name is ever used as a path: what an archive holds goes into the store by its digest.
"""
