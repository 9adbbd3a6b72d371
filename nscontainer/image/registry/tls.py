"""Whom to trust: the system's CAs, and per host what Docker and its kin keep in ``certs.d``.

``certs.d/<host[:port]>/`` holds ``*.crt`` (CAs to trust besides) and pairs ``NAME.cert``, ``NAME.key``
(certificates of ours), as docs.docker.com/engine/security/certificates says.
"""

from __future__ import annotations

import glob
import os
import ssl
from typing import Final

from nscontainer.errors import SpecError
from nscontainer.image.registry.hosts import config_dirs

_BUNDLES: Final = (  # where distributions have their CAs, for a Python whose OpenSSL looks elsewhere
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def certs_dirs(host: str) -> list[str]:
    """Give the directories that may hold certificates for that host."""
    roots = [*config_dirs(), os.path.expanduser("~/.config/docker"), "/etc/docker"]
    return [f"{root}/certs.d/{host}" for root in [*roots, "/etc/containers"]]


def context(host: str, *, verify: bool = True) -> ssl.SSLContext:
    """Make the TLS settings for one host.

    Raises
    ------
    SpecError
        A certificate of ``certs.d`` can't be used.
    """
    made = ssl.create_default_context()  # honours SSL_CERT_FILE and SSL_CERT_DIR
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):
        for bundle in filter(os.path.exists, _BUNDLES):
            made.load_verify_locations(bundle)
            break
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    for directory in certs_dirs(host):
        _add(made, directory)
    return made


def _add(made: ssl.SSLContext, directory: str) -> None:
    for path in sorted(glob.glob(f"{glob.escape(directory)}/*.crt")):
        _load(path, lambda path=path: made.load_verify_locations(path))
    for path in sorted(glob.glob(f"{glob.escape(directory)}/*.cert")):
        key = path.removesuffix(".cert") + ".key"
        # Without a password for it OpenSSL would ask on the terminal.
        _load(path, lambda path=path, key=key: made.load_cert_chain(path, key, password=""))


def _load(path: str, load: object) -> None:
    assert callable(load)
    try:
        load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise SpecError(
            f"{path}: a certificate (or its key) that can't be used: {reason}",
            hint="PEM files are needed: NAME.crt for a CA, NAME.cert and NAME.key for a client",
        ) from None
