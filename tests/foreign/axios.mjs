// The documented calls, with axios. Without arguments: initiate, read the payment both ways, validate
// a phone. With a reference and a checkout id: read that payment again, both ways.
import axios from 'axios';

const BASE = 'https://paynexus.co.ke/api';
const SECRET = { 'X-API-Key': 'sk_your_secret_key_here', 'Content-Type': 'application/json' };
const PUBLIC = { 'X-API-Key': 'pk_your_public_key_here' };

async function read(reference, checkoutId) {
  const byReference = await axios.get(`${BASE}/payments/${reference}`, { headers: PUBLIC });
  const byCheckoutId = await axios.post(
    `${BASE}/payments/status-by-checkout-id`,
    { checkout_request_id: checkoutId },
    { headers: PUBLIC },
  );
  return { by_reference: byReference.data, by_checkout_id: byCheckoutId.data };
}

async function pay() {
  const initiated = await axios.post(
    `${BASE}/mpesa/payment/initiate`,
    { amount: 100, phone: '0746990866', description: 'Order #12345' },
    { headers: SECRET },
  );
  const { reference, checkout_request_id: checkoutId } = initiated.data.data;
  const validated = await axios.post(
    `${BASE}/mpesa/validate-phone`,
    { phone: '0746990866' },
    { headers: PUBLIC },
  );
  return {
    initiate: initiated.data,
    ...(await read(reference, checkoutId)),
    validate_phone: validated.data,
  };
}

const [reference, checkoutId] = process.argv.slice(2);
console.log(JSON.stringify(await (checkoutId ? read(reference, checkoutId) : pay())));
