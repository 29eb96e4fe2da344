import { describe, expect, it } from 'vitest';
import { bytes, digits, metric, millis, plural, relative, skew, span, upcoming } from '../src/lib/format';

const S = 1000;
const MIN = 60 * S;
const H = 60 * MIN;
const D = 24 * H;

describe('spans', () => {
  it('have the two units that matter', () => {
    expect(span(59 * S)).toBe('59 s');
    expect(span(60 * S)).toBe('1 min');
    expect(span(2 * H + 5 * MIN + 59 * S)).toBe('2 h 5 min');
    expect(span(3 * D)).toBe('3 d');
    expect(span(13 * D + 5 * H)).toBe('13 d 5 h');
    expect(span(400 * D + 5 * H)).toBe('400 d');
  });

  it('never run backwards', () => expect(span(-5 * S)).toBe('0 s'));

  it('say which way they lie', () => {
    expect(relative(10 * S, 10 * S)).toBe('just now');
    expect(relative(0, 12 * S)).toBe('12 s ago');
    expect(relative(14 * S, 12 * S)).toBe('just now');
    expect(relative(192 * S, 12 * S)).toBe('in 3 min');
  });

  it('call an awaited check due once its time has come', () => {
    expect(upcoming(5 * S, 0)).toBe('in 5 s');
    expect(upcoming(0, 7 * S)).toBe('due now');
  });

  it('say how wrong a clock is', () => {
    expect(skew(0.2)).toBe('accurate to 1 s');
    expect(skew(-7265)).toBe('2 h 1 min behind');
    expect(skew(90)).toBe('1 min ahead');
  });
});

describe('figures', () => {
  it('keep three digits', () => {
    expect(digits(0.0123456)).toBe('0.0123');
    expect(digits(74.43)).toBe('74.4');
    expect(digits(1013.25)).toBe('1013');
    expect(digits(1234567)).toBe('1\u2009234\u2009567');
  });

  it('give bytes a readable unit', () => {
    expect(bytes(0)).toBe('0 B');
    expect(bytes(999)).toBe('999 B');
    expect(bytes(999_600)).toBe('1 MB');
    expect(bytes(1_240_000)).toBe('1.24 MB');
  });

  it('never make a number of what a plugin does not know', () => expect(metric(null, '%')).toBe('unknown'));

  it('carry their unit', () => {
    expect(metric(0.42, 'ms')).toBe('420 µs');
    expect(metric(12.5, '%')).toBe('12.5 %');
    expect(metric(2048, 'KB')).toBe('2.05 MB');
    expect(metric(61.4, 'C')).toBe('61.4 °C');
    expect(metric(90_061, 's')).toBe('1 d 1 h');
    expect(metric(-600, 's')).toBe('-10 min');
    expect(metric(1013.25, 'hPa')).toBe('1013 hPa');
  });

  it('count in words', () => {
    expect(plural(1, 'host')).toBe('1 host');
    expect(plural(10_000, 'host')).toBe('10\u2009000 hosts');
  });
});

it('nonsense is no time', () => {
  expect(millis('yesterday')).toBeUndefined();
  expect(millis(null)).toBeUndefined();
  expect(millis('2026-01-01T00:00:00Z')).toBe(Date.UTC(2026, 0, 1));
});
