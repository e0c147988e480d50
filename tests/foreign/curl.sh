#!/bin/sh
# The documented calls, with curl. Without arguments: initiate, read the payment both ways, validate
# a phone. With a reference and a checkout id: read that payment again, both ways.
set -eu

by_reference() {
  curl --silent --show-error -X GET "https://paynexus.co.ke/api/payments/$1" \
    -H "X-API-Key: pk_your_public_key_here"
}

by_checkout_id() {
  curl --silent --show-error -X POST "https://paynexus.co.ke/api/payments/status-by-checkout-id" \
    -H "X-API-Key: pk_your_public_key_here" \
    -H "Content-Type: application/json" \
    -d "{\"checkout_request_id\": \"$1\"}"
}

field() {
  printf '%s' "$2" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"
}

if [ $# -eq 2 ]; then
  printf '{"by_reference": %s, "by_checkout_id": %s}\n' "$(by_reference "$1")" "$(by_checkout_id "$2")"
  exit
fi

initiated=$(
  curl --silent --show-error -X POST "https://paynexus.co.ke/api/mpesa/payment/initiate" \
    -H "X-API-Key: sk_your_secret_key_here" \
    -H "Content-Type: application/json" \
    -d '{
      "amount": 100,
      "phone": "0746990866",
      "description": "Order #12345"
    }'
)
validated=$(
  curl --silent --show-error -X POST "https://paynexus.co.ke/api/mpesa/validate-phone" \
    -H "X-API-Key: pk_your_public_key_here" \
    -H "Content-Type: application/json" \
    -d '{"phone": "0746990866"}'
)
printf '{"initiate": %s, "by_reference": %s, "by_checkout_id": %s, "validate_phone": %s}\n' \
  "$initiated" \
  "$(by_reference "$(field reference "$initiated")")" \
  "$(by_checkout_id "$(field checkout_request_id "$initiated")")" \
  "$validated"
