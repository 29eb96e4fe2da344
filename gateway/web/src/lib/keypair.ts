/** WireGuard key pairs that the browser makes: the private key is in no request. It knows no more of the page than that. */

import type { Credentials } from '../api/types';
import { WrongField } from './fields';
import { qrSvg } from './qr';

/** Both as WireGuard writes them. */
export interface KeyPair {
  publicKey: string;
  privateKey: string;
}

/** Who makes the pair of a peer: this browser, the gateway, or its owner, who gives the public key. */
export type KeySource = 'here' | 'gateway' | 'own';

const KEY_BYTES = 32;
/** PKCS #8 has 16 bytes before a key of X25519, and nothing behind it (RFC 8410). */
const PKCS8_BYTES = 16 + KEY_BYTES;

/** `undefined` where the browser has no X25519, and where it has no cryptography because the page came over plain HTTP. */
export async function makePair(): Promise<KeyPair | undefined> {
  try {
    const pair = (await crypto.subtle.generateKey({ name: 'X25519' }, true, ['deriveBits'])) as CryptoKeyPair;
    const [pkcs8, raw] = await Promise.all([crypto.subtle.exportKey('pkcs8', pair.privateKey), crypto.subtle.exportKey('raw', pair.publicKey)]);
    if (pkcs8.byteLength !== PKCS8_BYTES || raw.byteLength !== KEY_BYTES) return undefined;
    return { publicKey: base64(new Uint8Array(raw)), privateKey: base64(clamped(new Uint8Array(pkcs8).slice(-KEY_BYTES))) };
  } catch {
    return undefined;
  }
}

/** The bits that X25519 ignores, as `wg genkey` sets them. The public key is the same. */
function clamped(key: Uint8Array): Uint8Array {
  key.set([key[0]! & 248]);
  key.set([(key[KEY_BYTES - 1]! & 127) | 64], KEY_BYTES - 1);
  return key;
}

function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}

/** The keys for a request. Without a public key the gateway makes the pair. */
export async function keysFrom(source: KeySource, own: string): Promise<Partial<KeyPair>> {
  if (source === 'gateway') return {};
  if (source === 'own') return { publicKey: own.trim() };
  const pair = await makePair();
  if (!pair) throw new WrongField('public_key', 'this browser cannot make a pair: let the gateway make it');
  return pair;
}

/** Credentials with the private key that stayed here, and with the QR code that the gateway cannot make of it. */
export function completed(credentials: Credentials, privateKey: string | undefined): Credentials {
  if (privateKey === undefined) return credentials;
  const conf = withPrivateKey(credentials.conf, privateKey);
  return { ...credentials, conf, qr_svg: qrSvg(conf) };
}

/** The key stands where `wg` has it. The gateway leaves a comment in its place. */
function withPrivateKey(conf: string, key: string): string {
  return conf.replace(/^# *PrivateKey\b.*\n?/m, '').replace(/^\[Interface\] *\n/m, (head) => `${head}PrivateKey = ${key}\n`);
}
