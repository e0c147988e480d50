"""`python -m examples.checkout_fastapi`: the shop, and a PayNexus for it, on this machine."""

import os
import secrets
import time

import uvicorn

from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY, Ledger, SandboxServer

PORT = 8000

if __name__ == "__main__":
    ledger = Ledger(clock=time.time, plan="basic", seed=time.time_ns())
    webhook = ledger.webhooks.register(f"http://127.0.0.1:{PORT}/paynexus/webhooks")
    with SandboxServer(ledger, port=8765) as sandbox:
        os.environ |= {
            "PAYNEXUS_BASE_URL": sandbox.url,
            "PAYNEXUS_SECRET_KEY": SECRET_KEY,
            "PAYNEXUS_PUBLIC_KEY": PUBLIC_KEY,
            "PAYNEXUS_WEBHOOK_SECRET": webhook.secret,
            "PAYNEXUS_CHECKOUT_SECRET": secrets.token_urlsafe(),
        }
        print(f"The shop:   http://127.0.0.1:{PORT}/")
        print(f"The phones: {sandbox.page_url}  (the PIN is 1234)", flush=True)
        uvicorn.run("examples.checkout_fastapi.app:app", port=PORT, log_level="warning")
