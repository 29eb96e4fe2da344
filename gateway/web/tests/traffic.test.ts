import { describe, expect, it } from 'vitest';
import { daysOf, monthOf, topOf } from '../src/lib/traffic';

const day = (name: string, bytes: number) => ({ day: name, rx_bytes: bytes, tx_bytes: 0, bytes });
const at = (time: string): number => Date.parse(time);

describe('the traffic of days', () => {
  it('has each day of UTC once, also where the clocks change', () => {
    for (const today of ['2026-03-31T00:00:00Z', '2026-03-31T23:59:59Z', '2026-11-02T05:00:00Z']) {
      const days = daysOf([], 40, at(today), undefined).map((one) => one.day);
      expect(new Set(days).size, today).toBe(40);
      expect([days.at(-1), days.toSorted()], today).toEqual([today.slice(0, 10), days]);
    }
  });

  it('has a day without traffic as 0, and says which are over the budget', () => {
    const bars = daysOf([day('2026-03-01', 30), day('2026-03-03', 20), day('2026-01-01', 99)], 4, at('2026-03-03T12:00:00Z'), 20);
    expect(bars.map(({ day, bytes, over }) => [day, bytes, over])).toEqual([['2026-02-28', 0, false], ['2026-03-01', 30, true], ['2026-03-02', 0, false], ['2026-03-03', 20, false]]);
    expect(daysOf([day('2026-03-03', 1e12)], 1, at('2026-03-03T12:00:00Z'), undefined)[0]!.over).toBe(false);
    expect(monthOf(bars, '2026-03')).toBe(50);
  });

  it('has an axis with room for the budget, unless that is far above', () => {
    const bars = daysOf([day('2026-03-03', 9)], 1, at('2026-03-03T12:00:00Z'), undefined);
    expect([topOf(bars, undefined), topOf(bars, 20), topOf(bars, 1000), topOf([], undefined)]).toEqual([10, 25, 10, 1]);
  });
});
