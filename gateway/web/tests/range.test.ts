import { describe, expect, it } from 'vitest';
import { alerts, inWords, parseRange, place, scale, worstIn, zoneOf } from '../src/lib/range';

const over = (text: string, value: number): boolean => alerts(parseRange(text), value);

describe('a threshold range', () => {
  it('alerts outside, both ends being fine', () => {
    expect([-1, 0, 10, 10.1].map((value) => over('10', value))).toEqual([true, false, false, true]);
    expect([9, 10, 20, 21].map((value) => over('10:20', value))).toEqual([true, false, false, true]);
    expect([9.9, 10, 1e9].map((value) => over('10:', value))).toEqual([true, false, false]);
    expect([-1e9, 10, 11].map((value) => over('~:10', value))).toEqual([false, false, true]);
  });

  it('alerts inside with an at sign', () => expect([9, 10, 20, 21].map((v) => over('@10:20', v))).toEqual([false, true, true, false]));

  it('says which value is the worst', () => {
    const worst = (warn: string, crit: string): number | undefined => worstIn([30, 5, 45], parseRange(warn), parseRange(crit));
    expect([worst('', ''), worst('40', ''), worst('30:', ''), worst('30:', '90'), worst('', '20:40'), worst('', '@20:36')]).toEqual([45, 45, 5, 45, 5, 30]);
    expect(worst('', '@~:10')).toBe(5);
    expect(worstIn([], undefined, undefined)).toBeUndefined();
  });

  it('is nothing where it is nonsense', () => {
    for (const text of ['', '@', 'foo', '20:10', '10:~', null]) expect(parseRange(text), String(text)).toBeUndefined();
  });

  it('has words', () => {
    expect(['45', '10:45', '10:', '~:70', '@1:2'].map((text) => inWords(text))).toEqual(['above 45', 'outside 10 to 45', 'below 10', 'above 70', '1 to 2']);
  });
});

describe('a scale', () => {
  it('is painted from end to end without a gap', () => {
    const found = scale({ value: 61, uom: 'C', warn: '10:45', crit: '0:60' })!;
    expect(found.bands.map(({ zone }) => zone)).toEqual(['warning', 'ok', 'warning', 'critical']);
    expect(found.bands[0]!.from).toBe(found.low);
    expect(found.bands.at(-1)!.to).toBe(found.high);
    found.bands.slice(1).forEach((band, i) => expect(band.from).toBe(found.bands[i]!.to));
  });

  it('agrees with the state of the value', () => {
    for (const value of [-5, 5, 30, 50, 61, 1000]) {
      const found = scale({ value, uom: 'C', warn: '10:45', crit: '0:60' })!;
      const band = found.bands.find(({ from, to }) => value >= from && value <= to)!;
      expect(band.zone, String(value)).toBe(zoneOf(value, parseRange('10:45'), parseRange('0:60')));
    }
  });

  it('of a percentage goes to a hundred', () => expect(scale({ value: 3, uom: '%', warn: '80' })!.high).toBe(100));

  it('has no colours without limits', () => expect(scale({ value: 3, uom: '%' })!.bands.map(({ zone }) => zone)).toEqual(['plain']));

  it('is left out where there is nothing to compare with', () => expect(scale({ value: 3, uom: 'hPa' })).toBeUndefined());

  it('keeps what lies beyond at its end', () => expect(place({ low: 0, high: 10, bands: [] }, 99)).toBe(1));
});
