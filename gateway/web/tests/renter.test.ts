import { createPrivateKey, createPublicKey } from 'node:crypto';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Credentials, Person, Renter } from '../src/api/types';
import { CallKey } from '../src/lib/call-key';
import { WrongField } from '../src/lib/fields';
import { completed, keysFrom, makePair } from '../src/lib/keypair';
import { qrSvg } from '../src/lib/qr';
import { admittedWords, byPerson, chosenRenters, listed, personChanges, personName, renterName } from '../src/lib/renter';

const person = (id: string, of: Partial<Person> = {}): Person => ({ id, customer: 'k_1', name: '', created_at: '2026-12-01T00:00:00Z', version: 1, ...of });
const renter = (id: string, name: string, owner: string) => ({ id, name, person: owner }) as Renter;
const people = [person('y_1', { name: 'Ada' }), person('y_2', { name: 'Bob' })];
const renters = [renter('w_1', 'phone', 'y_2'), renter('w_2', 'tablet', 'y_1'), renter('w_3', 'laptop', 'y_1')];

describe('a renter', () => {
  it('has the name of its person, and stands with the others of that person', () => {
    expect(byPerson(renters, people).map((one) => renterName(one, people))).toEqual(['laptop of Ada', 'tablet of Ada', 'phone of Bob']);
    expect(renterName(renter('w_4', 'laptop', 'y_9'), people)).toBe('laptop');
    expect(people.map(personName)).toEqual(['Ada', 'Bob']);
    expect([person('y_3', { email: 'eve@example.org' }), person('y_4')].map(personName)).toEqual(['eve@example.org', 'y_4']);
  });

  it('is let in by a rental, alone or with all of the customer', () => {
    expect([null, undefined, [], ['w_1', 'w_3']].map((ids) => admittedWords(ids, renters, people))).toEqual(['All of the customer', 'All of the customer', 'None', 'laptop of Ada, phone of Bob']);
    expect(admittedWords(['w_1', 'w_8'], renters, people)).toBe('phone of Bob, 1 renter that was removed');
    expect(admittedWords(['w_7', 'w_8'], renters, people)).toBe('2 renters that were removed');
  });

  it('is not left out by oversight', () => {
    expect([chosenRenters(null, 'renters'), chosenRenters(['w_1'], 'renters')]).toEqual([null, ['w_1']]);
    expect(() => chosenRenters([], 'items[0].renters')).toThrow(WrongField);
  });
});

it('a person is changed by what differs, and null drops the address', () => {
  const before = { name: 'Ada', email: 'ada@example.org' };
  expect(personChanges(before, before)).toEqual({});
  expect(personChanges(before, { name: 'Ada B', email: '' })).toEqual({ name: 'Ada B', email: null });
  expect(personChanges({ name: 'Ada' }, { name: 'Ada', email: '' })).toEqual({});
  expect([listed([]), listed(['a']), listed(['a', 'b', 'c'])]).toEqual(['', 'a', 'a, b and c']);
});

describe('a key pair of the browser', () => {
  afterEach(() => void vi.unstubAllGlobals());

  it('is one for WireGuard: the public key belongs to the private one, whose fixed bits are set', async () => {
    const pair = (await makePair())!;
    const key = Buffer.from(pair.privateKey, 'base64');
    const pkcs8 = Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), key]);
    const { x } = createPublicKey(createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })).export({ format: 'jwk' });
    expect(Buffer.from(x!, 'base64url').toString('base64')).toBe(pair.publicKey);
    expect([key.length, key[0]! & 7, key[31]! & 192]).toEqual([32, 0, 64]);
    expect((await makePair())!.privateKey).not.toBe(pair.privateKey);
  });

  it('is made only where that was chosen', async () => {
    expect(await keysFrom('gateway', 'x')).toEqual({});
    expect(await keysFrom('own', ' key= ')).toEqual({ publicKey: 'key=' });
    expect(Object.keys(await keysFrom('here', 'x'))).toEqual(['publicKey', 'privateKey']);
  });

  it('is refused at its field by a browser that has no X25519, or no cryptography at all', async () => {
    vi.stubGlobal('crypto', { subtle: { generateKey: () => Promise.reject(new Error('unrecognized name')) } });
    expect(await makePair()).toBeUndefined();
    vi.stubGlobal('crypto', {});
    await expect(keysFrom('here', '')).rejects.toMatchObject({ field: 'public_key' });
  });

  it('gets its private key into the configuration, in the place that the gateway left', () => {
    const credentials = { preshared_key: 'psk=', conf: "[Interface]\n# PrivateKey = (the device's own: it stays there)\nAddress = 10.112.0.9/32\n\n[Peer]\nPublicKey = gw=\n" } as Credentials;
    const { conf, qr_svg } = completed(credentials, 'secret=');
    expect(qr_svg).toBe(qrSvg(conf));
    expect(conf).toBe('[Interface]\nPrivateKey = secret=\nAddress = 10.112.0.9/32\n\n[Peer]\nPublicKey = gw=\n');
    expect(completed({ ...credentials, conf: '[Interface]\nAddress = 10.112.0.9/32\n' }, 'secret=').conf).toBe('[Interface]\nPrivateKey = secret=\nAddress = 10.112.0.9/32\n');
    expect(completed(credentials, undefined)).toBe(credentials);
  });
});

it('a call has the same key until it is edited or has succeeded, so that a repetition has one effect', () => {
  const key = new CallKey();
  const of = (body: object): string => key.header(body)['Idempotency-Key'];
  const first = of({ device: 'cam-1' });
  expect(first).toMatch(/^[0-9a-f]{32}$/);
  expect(of({ device: 'cam-1' })).toBe(first);
  const edited = of({ device: 'cam-2' });
  expect(edited).not.toBe(first);
  expect(of({ device: 'cam-2' })).toBe(edited);
  key.done();
  expect(of({ device: 'cam-2' })).not.toBe(edited);
});
