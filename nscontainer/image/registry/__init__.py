"""Pull from and push to any OCI or Docker registry.

What is what, by file: ``hosts`` (which servers may have an image, from configuration), ``tls``,
``credentials`` (Docker's config.json), ``auth`` (tokens), ``transport`` (HTTP by urllib3, proxies, to
be broken off at any moment), ``faults`` (failures as errors of ours), ``client`` (requests to one
repository on one server), ``manifests``, ``platform``, ``blobs`` (a download that resumes), ``crew``
(several at once, told to the caller's thread), ``pull`` and ``push``.

Facts are from the OCI distribution specification 1.1 and Docker's registry token documentation
(distribution/docs/spec/auth/token.md).
"""
