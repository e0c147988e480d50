"""`python -m examples.checkout_aiohttp [PORT]`: the shop, and a PayNexus for it, right here."""

import os
import secrets
import sys
import time

from aiohttp import web

from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY, Ledger, SandboxServer

if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    ledger = Ledger(clock=time.time, plan="basic", seed=time.time_ns())
    webhook = ledger.webhooks.register(f"http://127.0.0.1:{port}/paynexus/webhooks")
    with SandboxServer(ledger) as sandbox:
        os.environ |= {
            "PAYNEXUS_BASE_URL": sandbox.url,
            "PAYNEXUS_SECRET_KEY": SECRET_KEY,
            "PAYNEXUS_PUBLIC_KEY": PUBLIC_KEY,
            "PAYNEXUS_WEBHOOK_SECRET": webhook.secret,
            "PAYNEXUS_CHECKOUT_SECRET": secrets.token_urlsafe(),
        }
        from .app import create_app  # the shop finds its keys

        print(f"The shop:   http://127.0.0.1:{port}/")
        print(f"The phones: {sandbox.page_url}  (the PIN is 1234)", flush=True)
        web.run_app(create_app(), host="127.0.0.1", port=port, print=None)
