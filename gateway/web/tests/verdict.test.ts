import { expect, it } from 'vitest';
import { sentence, toneOf } from '../src/lib/verdict';

it('a verdict is as loud as it is sure', () => {
  expect(['ok', 'pending'].map((kind) => toneOf({ kind }))).toEqual(['calm', 'calm']);
  expect(toneOf({ kind: 'undetermined' })).toBe('open');
  expect(['device_gone', 'a_word_of_tomorrow'].map((kind) => toneOf({ kind }))).toEqual(['wrong', 'wrong']);
});

it('a verdict is written as a sentence', () => {
  expect(sentence('undetermined: device gone or uplink of north lost')).toBe('Undetermined: device gone or uplink of north lost');
  expect(sentence('')).toBe('');
});
