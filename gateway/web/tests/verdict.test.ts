import { expect, it } from 'vitest';
import { problemText, toneOf, wordingOf } from '../src/lib/verdict';

it('a verdict is as loud as it is sure', () => {
  expect(['ok', 'pending'].map((kind) => toneOf({ kind }))).toEqual(['calm', 'calm']);
  expect(toneOf({ kind: 'undetermined' })).toBe('open');
  expect(['device_gone', 'a_word_of_tomorrow'].map((kind) => toneOf({ kind }))).toEqual(['wrong', 'wrong']);
});

it('a verdict is a sentence, and an unknown cause is called that', () => {
  const of = (kind: string, text: string) => wordingOf({ kind, text });
  expect(of('device_gone', 'device gone')).toBe('Device gone');
  expect(of('undetermined', 'undetermined: device gone or uplink of north lost')).toBe('Cause unknown. Possible: device gone or uplink of north lost');
  expect(of('undetermined', 'other words')).toBe('Other words');
  expect(of('ok', 'ok')).toBe('OK');
  expect(of('pending', '')).toBe('');
});

it('the list of problems says a claim, and what the last check said where nothing is claimed', () => {
  const of = (kind: string) => ({ text: 'no answer: echo timed out', verdict: { kind, text: 'uplink of north lost' } });
  expect(problemText(of('site_uplink_lost'))).toBe('Uplink of north lost');
  expect(['undetermined', 'pending'].map((kind) => problemText(of(kind)))).toEqual(['no answer: echo timed out', 'no answer: echo timed out']);
  expect(problemText({ text: 'disk full', verdict: null })).toBe('disk full');
});
