import { expect, it } from 'vitest';
import { certificateFile, commandOf, keysOf, keyWords, mayLogIn } from '../src/lib/ssh';

const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti';

it('a command names the port only if it is another one, and there is none without an address', () => {
  expect(commandOf({ account: 'guest', port: 22, addresses: ['10.112.4.1', 'fd72::401'] })).toBe('ssh guest@10.112.4.1');
  expect(commandOf({ account: 'guest', port: 2222, addresses: ['fd72::401'] })).toBe('ssh -p 2222 guest@fd72::401');
  expect(commandOf({ account: 'guest', port: 22, addresses: [] })).toBe('');
});

it('a key is shown by its kind and its end, and its certificate has the name that ssh looks for', () => {
  expect(keyWords(KEY)).toBe('ed25519 ...PtFDJ/XFSqti');
  expect(keyWords('ecdsa-sha2-nistp256 AAAA')).toBe('nistp256 ...AAAA');
  expect([KEY, 'ssh-rsa AAAA', 'ecdsa-sha2-nistp256 AAAA'].map(certificateFile)).toEqual(['id_ed25519-cert.pub', 'id_rsa-cert.pub', 'id_ecdsa-cert.pub']);
});

it('each line of a text is a key, without empty ones', () => {
  expect(keysOf(` ${KEY} ada@laptop \n\r\n\nssh-rsa AAAA\r\n`)).toEqual([`${KEY} ada@laptop`, 'ssh-rsa AAAA']);
  expect(keysOf(' \n')).toEqual([]);
});

it('a login is shown until the rental is over', () => {
  const states = ['held', 'booked', 'delayed', 'active', 'returning', 'closed', 'cancelled'];
  expect(states.map((state) => mayLogIn({ ssh: true, state }))).toEqual([true, true, true, true, false, false, false]);
  expect(mayLogIn({ ssh: false, state: 'active' })).toBe(false);
});
