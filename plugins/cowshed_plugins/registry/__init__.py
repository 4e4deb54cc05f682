"""Registries: ``docker://``, a client of OCI's distribution-spec; see ``client`` and ``endpoint``.

Read from below: ``wire`` sends one request by ``asking`` or by ``streaming``, ``endpoint`` makes it
authorised, redirected and repeated where that helps, ``client`` speaks the specification,
``source`` and ``target`` are what Cowshed sees of it.

HTTP is urllib3's business wherever bytes flow: it streams in both directions, pools connections for
several threads, knows proxies and TLS, needs nothing else, and takes 40 to 70 ms to import where
httpx with a client takes 110 and requests, which sits on top of it, 90. That is still a quarter of
a pull that finds everything here, so what is only asked is asked with the standard library's
``http.client``, on which urllib3 sits anyway, and urllib3 comes with the first blob.
Python's registry clients fit nothing of this: oras-py reads blobs into memory or files without
ranges or resuming and is built on requests, the others are for administering registries.
"""
