"""The documented calls, with `requests`.

Without arguments: initiate, read the payment both ways, validate a phone. With a reference and a
checkout id: read that payment again, both ways.
"""

from __future__ import annotations

import json
import sys

import requests

BASE = "https://paynexus.co.ke/api"
SECRET = {"X-API-Key": "sk_your_secret_key_here"}
PUBLIC = {"X-API-Key": "pk_your_public_key_here"}
SECONDS = 30


def read(reference: str, checkout_id: str) -> dict[str, object]:
    by_reference = requests.get(f"{BASE}/payments/{reference}", headers=PUBLIC, timeout=SECONDS)
    by_checkout_id = requests.post(
        f"{BASE}/payments/status-by-checkout-id",
        headers=PUBLIC,
        json={"checkout_request_id": checkout_id},
        timeout=SECONDS,
    )
    return {"by_reference": by_reference.json(), "by_checkout_id": by_checkout_id.json()}


def pay() -> dict[str, object]:
    initiated = requests.post(
        f"{BASE}/mpesa/payment/initiate",
        headers=SECRET,
        json={"amount": 100, "phone": "0746990866", "description": "Order #12345"},
        timeout=SECONDS,
    ).json()
    validated = requests.post(
        f"{BASE}/mpesa/validate-phone",
        headers=PUBLIC,
        json={"phone": "0746990866"},
        timeout=SECONDS,
    )
    payment = initiated["data"]
    return {
        "initiate": initiated,
        **read(payment["reference"], payment["checkout_request_id"]),
        "validate_phone": validated.json(),
    }


if __name__ == "__main__":
    print(json.dumps(read(*sys.argv[1:]) if len(sys.argv) == 3 else pay()))
