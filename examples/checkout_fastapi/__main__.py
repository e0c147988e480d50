"""`python -m examples.checkout_fastapi [--durable] [PORT]`: the shop, with a PayNexus for it."""

import os
import secrets
import sys
import tempfile
import time

import uvicorn

from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY, Ledger, SandboxServer

if __name__ == "__main__":
    is_durable = "--durable" in sys.argv
    port = int(next((word for word in sys.argv[1:] if word != "--durable"), 8000))
    ledger = Ledger(clock=time.time, plan="basic", seed=time.time_ns())
    webhook = ledger.webhooks.register(f"http://127.0.0.1:{port}/paynexus/webhooks")
    with SandboxServer(ledger) as sandbox, tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "PAYNEXUS_BASE_URL": sandbox.url,
            "PAYNEXUS_SECRET_KEY": SECRET_KEY,
            "PAYNEXUS_PUBLIC_KEY": PUBLIC_KEY,
            "PAYNEXUS_WEBHOOK_SECRET": webhook.secret,
            "PAYNEXUS_CHECKOUT_SECRET": secrets.token_urlsafe(),
            "PAYNEXUS_DURABLE_SECRET": secrets.token_urlsafe(),
            "SHOP_DATABASE": f"sqlite:///{folder}/shop.sqlite",  # this PayNexus forgets, too
        }
        print(f"The shop:   http://127.0.0.1:{port}/")
        print(f"The phones: {sandbox.page_url}  (the PIN is 1234)", flush=True)
        module = "durable" if is_durable else "app"
        uvicorn.run(f"examples.checkout_fastapi.{module}:app", port=port, log_level="warning")
