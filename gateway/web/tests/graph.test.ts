import { describe, expect, it } from 'vitest';
import { afterKey, bounded, dragged, nowOf, panned, searchOf, shownOf, SHORTEST, viewOf, wholeOf, zoomed } from '../src/lib/graph';
import { instantOf, labelOf, marksOf, stepOf, wallOf } from '../src/lib/axis';

const DAY = 86_400;
const NOW = 1_764_560_000;
const at = (time: string): number => Date.parse(time) / 1000;

describe('the window of the graphs', () => {
  it('stands in the address, beside what else stands there', () => {
    const view = viewOf('?service=ping&range=30d&zoom=1764000000-1764003600');
    expect(view).toEqual({ range: '30d', zoom: { from: 1_764_000_000, to: 1_764_003_600 } });
    expect(viewOf(searchOf('?service=ping', view))).toEqual(view);
    expect(searchOf('?service=ping&range=30d', { range: '24h' })).toBe('?service=ping');
    expect(searchOf('?range=30d', { range: '24h' })).toBe('');
    const free = { range: '24h' as const, free: { from: 10, to: 5_000 } };
    expect(viewOf(searchOf('?range=1y&zoom=1-900', free))).toEqual(free);
  });

  it('is the usual one when the address says nonsense', () => {
    for (const search of ['?range=2d', '?from=5', '?from=20&to=10', '?from=1e3&to=5e5', '?zoom=5-6', '?zoom=a-b', '?from=0&to=99999999999']) {
      expect(viewOf(search), search).toEqual({ range: '24h' });
    }
    expect(shownOf(viewOf(''), NOW)).toEqual({ from: NOW - DAY, to: NOW });
    expect(wholeOf(viewOf('?range=3y&zoom=0-900'), NOW).from).toBe(NOW - 3 * 365 * DAY);
  });

  it('moves and zooms with keys, and never beyond now', () => {
    const day = { from: NOW - DAY, to: NOW };
    expect(afterKey('ArrowLeft', day, NOW)).toEqual({ from: NOW - 1.25 * DAY, to: NOW - 0.25 * DAY });
    expect(afterKey('ArrowRight', day, NOW)).toEqual(day);
    expect(afterKey('+', day, NOW)).toEqual({ from: NOW - 0.75 * DAY, to: NOW - 0.25 * DAY });
    expect(afterKey('-', day, NOW)).toEqual({ from: NOW - 2 * DAY, to: NOW });
    expect(afterKey('0', day, NOW)).toBeNull();
    expect(afterKey('x', day, NOW)).toBeUndefined();
  });

  it('keeps the moment under the pointer, and its bounds', () => {
    const zoom = zoomed({ from: 0, to: 1000 }, 0.5, NOW, 0.2);
    expect(zoom).toEqual({ from: 100, to: 600 });
    expect(zoomed({ from: 1000, to: 1000 + SHORTEST }, 0.1, NOW)).toEqual({ from: 1000, to: 1000 + SHORTEST });
    expect(bounded({ from: NOW, to: NOW + DAY }, NOW)).toEqual({ from: NOW - DAY, to: NOW });
    expect(panned({ from: 10, to: 1010 }, -1, NOW).from).toBe(0);
  });

  it('follows a finger, and two', () => {
    expect(dragged({ from: 0, to: 1000 }, [0.5], [0.75])).toEqual({ from: -250, to: 750 });
    const pinch = dragged({ from: 0, to: 1000 }, [0.4, 0.6], [0.2, 0.8]);
    expect(pinch.from).toBeCloseTo(333.3, 0);
    expect(pinch.to).toBeCloseTo(666.7, 0);
    expect(dragged({ from: 0, to: 1000 }, [0.4, 0.6], [0.6, 0.4])).toEqual({ from: 0, to: 1000 });
  });

  it('that ends now moves on in steps, so that all graphs ask the same', () => {
    const view = viewOf('?range=30d');
    expect(nowOf(view, 1_764_560_123_456)).toBe(nowOf(view, 1_764_560_124_456));
    expect(1_764_560_123 - nowOf(viewOf('?range=3y'), 1_764_560_123_456)).toBeLessThan(600);
  });
});

describe('the axis of time', () => {
  const vienna = 'Europe/Vienna';
  const spring = { from: at('2026-03-28T23:00:00Z'), to: at('2026-03-29T22:00:00Z') };
  const autumn = { from: at('2026-10-24T22:00:00Z'), to: at('2026-10-25T23:00:00Z') };
  const hours = (zone: string, { from, to }: { from: number; to: number }, count: number): number[] =>
    marksOf(zone, from, to, { unit: 'minute', count }).map((one) => wallOf(zone, one).hour);

  it('has round hours on a day of 23 and of 25 hours', () => {
    expect(hours(vienna, spring, 180)).toEqual([0, 3, 6, 9, 12, 15, 18, 21, 0]);
    expect(hours(vienna, autumn, 180)).toEqual([0, 3, 6, 9, 12, 15, 18, 21, 0]);
    expect(marksOf(vienna, spring.from, spring.to, { unit: 'minute', count: 60 })).toHaveLength(24);
    expect(marksOf(vienna, autumn.from, autumn.to, { unit: 'minute', count: 60 })).toHaveLength(26);
    expect(hours(vienna, autumn, 60).slice(0, 5)).toEqual([0, 1, 2, 2, 3]);
  });

  it('has midnights across the change of the clock, also where the day begins at one', () => {
    const days = marksOf(vienna, at('2026-03-27T00:00:00Z'), at('2026-03-31T12:00:00Z'), { unit: 'day', count: 1 });
    expect(days.map((one) => new Date(one * 1000).toISOString().slice(5, 13))).toEqual(['03-27T23', '03-28T23', '03-29T22', '03-30T22']);
    const beirut = marksOf('Asia/Beirut', at('2026-03-28T00:00:00Z'), at('2026-03-30T00:00:00Z'), { unit: 'day', count: 1 });
    expect(beirut.map((one) => wallOf('Asia/Beirut', one).hour)).toEqual([1, 0].slice(0, beirut.length));
  });

  it('agrees with zones of half and quarter hours', () => {
    expect(hours('Asia/Kathmandu', { from: at('2026-01-01T00:00:00Z'), to: at('2026-01-01T12:00:00Z') }, 180)).toEqual([6, 9, 12, 15]);
    const minutes = marksOf('Asia/Kathmandu', at('2026-01-01T00:00:00Z'), at('2026-01-01T03:00:00Z'), { unit: 'minute', count: 60 });
    expect(minutes.map((one) => wallOf('Asia/Kathmandu', one).minute)).toEqual([0, 0, 0]);
  });

  it('has months and years that begin with their first day', () => {
    const months = marksOf(vienna, at('2025-11-20T00:00:00Z'), at('2026-05-01T12:00:00Z'), { unit: 'month', count: 1 });
    expect(months.map((one) => wallOf(vienna, one))).toEqual([12, 1, 2, 3, 4, 5].map((month) => ({ year: month === 12 ? 2025 : 2026, month, day: 1, hour: 0, minute: 0 })));
    const years = marksOf(vienna, at('2023-06-01T00:00:00Z'), at('2026-06-01T00:00:00Z'), { unit: 'month', count: 12 });
    expect(years.map((one) => wallOf(vienna, one).year)).toEqual([2024, 2025, 2026]);
  });

  it('does not move its marks when the window moves', () => {
    for (const count of [2, 3, 7, 14]) {
      const begin = at('2026-06-03T05:00:00Z');
      const one = marksOf(vienna, begin, begin + 60 * DAY, { unit: 'day', count });
      const two = marksOf(vienna, begin + 3 * DAY, begin + 63 * DAY, { unit: 'day', count });
      expect(two.filter((mark) => mark <= begin + 60 * DAY)).toEqual(one.filter((mark) => mark >= begin + 3 * DAY));
    }
  });

  it('never has more marks than there is room, from minutes to decades', () => {
    for (const span of [120, 3600, 6 * 3600, DAY, 7 * DAY, 30 * DAY, 90 * DAY, 365 * DAY, 1095 * DAY, 20 * 365 * DAY]) {
      for (const most of [2, 4, 8, 12]) {
        const step = stepOf(NOW - span, NOW, most);
        const marks = marksOf(vienna, NOW - span, NOW, step);
        expect(marks.length, `${span} ${most}`).toBeLessThanOrEqual(most + 1);
        expect(marks).toEqual([...marks].sort((a, b) => a - b));
        marks.forEach((mark) => expect(labelOf(vienna, mark, step)).not.toBe(''));
      }
    }
  });

  it('finds the moment of a time on the clock, the first of two', () => {
    const wall = { year: 2026, month: 10, day: 25, hour: 2, minute: 30 };
    expect(instantOf(vienna, wall)).toBe(at('2026-10-25T00:30:00Z'));
    expect(instantOf(vienna, { ...wall, month: 3, day: 29 })).toBe(at('2026-03-29T01:30:00Z'));
    expect(instantOf('America/New_York', { year: 2026, month: 7, day: 1, hour: 0, minute: 0 })).toBe(at('2026-07-01T04:00:00Z'));
  });
});
