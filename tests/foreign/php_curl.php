<?php
// The documented calls, with PHP's curl. Without arguments: initiate, read the payment both ways,
// validate a phone. With a reference and a checkout id: read that payment again, both ways.
declare(strict_types=1);

const BASE = 'https://paynexus.co.ke/api';
const SECRET_KEY = 'sk_your_secret_key_here';
const PUBLIC_KEY = 'pk_your_public_key_here';

function call(string $path, string $key, ?array $body = null): array
{
    $curl = curl_init(BASE . $path);
    $headers = ['X-API-Key: ' . $key];
    if ($body !== null) {
        $headers[] = 'Content-Type: application/json';
        curl_setopt($curl, CURLOPT_POST, true);
        curl_setopt($curl, CURLOPT_POSTFIELDS, json_encode($body));
    }
    curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
    curl_setopt($curl, CURLOPT_HTTPHEADER, $headers);
    $response = curl_exec($curl);
    if ($response === false) {
        fwrite(STDERR, curl_error($curl) . "\n");
        exit(1);
    }
    return json_decode($response, true, 512, JSON_THROW_ON_ERROR);
}

function read(string $reference, string $checkoutId): array
{
    return [
        'by_reference' => call('/payments/' . $reference, PUBLIC_KEY),
        'by_checkout_id' => call(
            '/payments/status-by-checkout-id',
            PUBLIC_KEY,
            ['checkout_request_id' => $checkoutId],
        ),
    ];
}

function pay(): array
{
    $initiated = call(
        '/mpesa/payment/initiate',
        SECRET_KEY,
        ['amount' => 100, 'phone' => '0746990866', 'description' => 'Order #12345'],
    );
    $payment = $initiated['data'];
    return [
        'initiate' => $initiated,
        ...read($payment['reference'], $payment['checkout_request_id']),
        'validate_phone' => call('/mpesa/validate-phone', PUBLIC_KEY, ['phone' => '0746990866']),
    ];
}

echo json_encode($argc === 3 ? read($argv[1], $argv[2]) : pay()), "\n";
