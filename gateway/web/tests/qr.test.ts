import { createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import { modulesOf, qrSvg } from '../src/lib/qr';

/** As another program (python-qrcode 8, level L) draws the same text with the same mask. */
const FLEETGATE = `
111111100011101111111
100000101110101000001
101110100011101011101
101110101100101011101
101110100100101011101
100000101001001000001
111111101010101111111
000000000100000000000
111110111001010101010
000100011111110011001
011011111000100000110
001111000011110001101
011011101000101100010
000000001100110111101
111111101111010001110
100000100100000011110
101110101011000000001
101110101011111111100
101110101110101001100
100000101101111101100
111111101010100001010`;
/** Of 450 characters: version 14, whose blocks differ in length. */
const LONG = '6b3b3d457dbb1a8966c5cbf0940e0de33a2f01324b09a494c318dba990383659';

const drawn = (text: string): string[] => modulesOf(text)!.map((row) => row.map((dark) => (dark ? '1' : '0')).join(''));

it('a code is drawn as other programs draw it', () => {
  expect(drawn('fleetgate')).toEqual(FLEETGATE.trim().split('\n'));
  const long = drawn('fleetgate '.repeat(45));
  expect([long.length, createHash('sha256').update(long.join('')).digest('hex')]).toEqual([73, LONG]);
});

it('a code is as small as its text allows, and a text that no code holds has none', () => {
  expect([17, 18, 2953].map((length) => modulesOf('x'.repeat(length))!.length)).toEqual([21, 25, 177]);
  expect(modulesOf('ü'.repeat(9))!.length).toBe(25);
  expect([modulesOf('x'.repeat(2954)), qrSvg('x'.repeat(2954))]).toEqual([undefined, undefined]);
});

it('an image has a quiet zone, and no more than shapes', () => {
  const svg = qrSvg('fleetgate')!;
  expect(svg).toContain('viewBox="0 0 29 29"');
  expect(svg).toContain('M4 4h1v1h-1z');
  expect(svg.replace(/<\/?(svg|rect|path)\b[^<>]*>/g, '')).toBe('');
});
