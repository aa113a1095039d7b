"""Verify a peer over TLS, with certificates on both sides.

python tls.py HOST PORT AE-TITLE CA CERTIFICATE KEY
"""

import sys

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title, ca, certificate, key = sys.argv[1:]
    context = dimse.tls_profile("bcp195", ca=ca, certificate=certificate, key=key)
    async with dimse.open_association(
        host, int(port), called_ae_title=ae_title, ssl_context=context
    ) as association:
        print((await association.echo()).status)


trio.run(main)
