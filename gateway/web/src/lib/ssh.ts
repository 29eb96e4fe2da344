/** SSH for customers: what they type and save. Pure. */

import type { MyRentalSsh } from '../api/mine';
import type { RentalState } from '../api/types';

const SSH_PORT = 22;
/** Characters of a key that are shown: the last ones, in which keys differ. */
const SHOWN = 12;

/** States in which the API says how to log in. */
const OPEN: readonly string[] = ['held', 'booked', 'preparing', 'delayed', 'active'] satisfies RentalState[];

export const mayLogIn = ({ ssh, state }: { ssh: boolean; state: string }): boolean => ssh && OPEN.includes(state);

/** Empty while the rental has no address. */
export function commandOf({ account, port, addresses }: Pick<MyRentalSsh, 'account' | 'port' | 'addresses'>): string {
  const options = port === SSH_PORT ? '' : `-p ${port} `;
  return addresses[0] ? `ssh ${options}${account}@${addresses[0]}` : '';
}

/** `ed25519 ...Fqti`. */
export function keyWords(key: string): string {
  const [kind = '', base64 = ''] = key.split(' ');
  return `${kind.replace(/^ssh-|^ecdsa-sha2-/, '')} ...${base64.slice(-SHOWN)}`;
}

/** Beside a key of the usual name, `ssh` finds its certificate under this one. */
export function certificateFile(key: string): string {
  const kind = key.startsWith('ecdsa-') ? 'ecdsa' : key.startsWith('ssh-rsa') ? 'rsa' : 'ed25519';
  return `id_${kind}-cert.pub`;
}

/** The keys of a text, one in each line. */
export function keysOf(text: string): string[] {
  return text.split('\n').map((line) => line.trim()).filter(Boolean);
}
