import { describe, expect, it } from 'vitest';
import { bandsOf, endsOf, inWords, parseRange } from '../src/lib/range';
import { axisOf, csvOf, drawnOf, fileOf, gapsOf, rowsOf, summaryOf, type Columns } from '../src/lib/samples';
import { groupsOf } from '../src/lib/series';
import { axisLabels, marksBetween, valueText } from '../src/lib/unit';

/** Each value is the average; the minimum is one less, the maximum one more. */
const of = (values: (number | null)[], raw = false, step = 300): Columns => ({
  start: 1_764_547_200, step, raw, avg: values, min: values.map((one) => (one === null ? null : one - 1)), max: values.map((one) => (one === null ? null : one + 1)),
  count: values.map((one) => (one === null ? 0 : 5)),
});

describe('gaps', () => {
  it('of a roll-up are its empty buckets', () => {
    const columns = of([1, 2, null, 4, 5, 6]);
    expect(gapsOf(columns)).toEqual([{ from: columns.start + 600, to: columns.start + 900 }]);
    expect(drawnOf(columns).avg).toEqual([1, 2, null, 4, 5, 6]);
  });

  it('of single samples are what is longer than three usual distances', () => {
    const sparse = of([1, null, null, 2, null, null, 3, null, null, null, 4], true, 10);
    expect(gapsOf(sparse)).toEqual([]);
    expect(drawnOf(sparse).avg).toEqual([1, 2, 3, 4]);
    const broken = of([1, null, 2, null, 3, null, null, null, null, null, null, 4, null, 5], true, 10);
    expect(gapsOf(broken)).toEqual([{ from: broken.start + 50, to: broken.start + 110 }]);
    expect(drawnOf(broken).avg).toEqual([1, 2, 3, null, 4, 5]);
  });

  it('of a check that runs seldom are not each of its empty buckets', () => {
    expect(gapsOf(of([1, null, null, 2, null, null, 3, null, null, 4]))).toEqual([]);
  });

  it('are none where there is nothing, or one value', () => {
    expect(drawnOf(of([null, null])).at).toEqual([]);
    expect(summaryOf(of([null, null]))).toBeUndefined();
    expect(drawnOf(of([null, 7, null])).at).toHaveLength(1);
  });
});

describe('what a graph says', () => {
  it('has the mean of the samples, not of the buckets, and keeps a spike', () => {
    const columns: Columns = { ...of([10, 20]), max: [99, 21], count: [1, 9] };
    expect(summaryOf(columns)).toMatchObject({ min: 9, max: 99, avg: 19, last: 20, gaps: 0 });
  });

  it('is a table of at most so many rows, in which no sample is lost', () => {
    const columns = of(Array.from({ length: 1000 }, (_, i) => (i >= 100 && i < 200 ? null : i)));
    const rows = rowsOf(columns, 48);
    expect(rows.length).toBeLessThanOrEqual(48);
    expect(rows.reduce((sum, row) => sum + (row.values?.count ?? 0), 0)).toBe(900 * 5);
    expect(rows.some((row) => row.values === undefined)).toBe(true);
    expect(Math.max(...rows.map((row) => row.values?.max ?? 0))).toBe(1000);
    expect(rows.at(-1)!.to).toBe(columns.start + 1000 * 300);
  });

  it('is a CSV with a line per bucket and empty fields for gaps', () => {
    const text = csvOf(of([0.5, null]), 'ms');
    expect(text).toBe('time,unix,min (ms),avg (ms),max (ms),count\n2025-12-01T00:00:00Z,1764547200,-0.5,0.5,1.5,5\n2025-12-01T00:05:00Z,1764547500,,,,0\n');
    expect(csvOf(of([1]), 'a"b,c').split('\n')[0]).toBe('time,unix,"min (a""b,c)","avg (a""b,c)","max (a""b,c)",count');
  });

  it('has a file name without signs that a file cannot have', () => {
    expect(fileOf(['cam-07', 'disk', '/var/log $x'], 1_764_547_200, 1_764_633_600, 'csv')).toBe('cam-07_disk_var-log-x_2025-12-01_2025-12-02.csv');
    expect(fileOf(['cam-07', '', '../..'], 0, 0, 'png')).toBe('cam-07_..-.._1970-01-01_1970-01-01.png');
  });
});

describe('the axis of values', () => {
  it('begins at zero where the values are near it, and shows limits that are near', () => {
    expect(axisOf(1, 10, [], '')[0]).toBe(0);
    expect(axisOf(1000, 1010, [], 'hPa')[0]).toBeGreaterThan(990);
    expect(axisOf(50, 70, [80, 90], '%')[1]).toBeGreaterThan(90);
    expect(axisOf(0.04, 0.08, [0.5], 's')[1]).toBeLessThan(0.1);
    expect(axisOf(95, 100, [], '%')[1]).toBeLessThanOrEqual(100.1);
    expect(axisOf(0, 0, [], '')).toEqual([0, expect.any(Number)]);
    for (const value of [-5, 0, 5]) expect(axisOf(value, value, [], '')[1]).toBeGreaterThan(axisOf(value, value, [], '')[0]);
  });

  it('has marks that are round in its unit', () => {
    expect(axisLabels(marksBetween(0, 118, 50, 's'), 's')).toEqual(['0 min', '1 min']);
    expect(axisLabels(marksBetween(0, 300, 50, 's'), 's')).toEqual(['0 min', '1 min', '2 min', '3 min', '4 min', '5 min']);
    expect(axisLabels(marksBetween(0, 10_800, 2000, 's'), 's')).toEqual(['0 h', '1 h', '2 h', '3 h']);
    expect(marksBetween(66, 97.2, 5, '%')).toEqual([70, 75, 80, 85, 90, 95]);
    expect(marksBetween(-1.2e-3, 0, 5e-4, 's').map((mark) => Math.round(mark * 1e6))).toEqual([-1000, -500, 0]);
    expect(marksBetween(3, 3, 0, '')).toEqual([3]);
  });

  it('has one unit, and as many decimals as its step needs', () => {
    expect(axisLabels([0, 0.2, 0.4], 's')).toEqual(['0 ms', '200 ms', '400 ms']);
    expect(axisLabels([1013, 1013.5, 1014], 'hPa')).toEqual(['1013.0 hPa', '1013.5 hPa', '1014.0 hPa']);
    expect(axisLabels([0, 2.5, 5], '')).toEqual(['0.0', '2.5', '5.0']);
    expect(axisLabels([0, 500_000, 1_000_000], 'B')).toEqual(['0.0 MB', '0.5 MB', '1.0 MB']);
    expect(axisLabels([0, 20_000], '1/s')).toEqual(['0 k/s', '20 k/s']);
    expect(axisLabels([-10, 0], 'C')).toEqual(['-10 °C', '0 °C']);
    expect(axisLabels([0, 50, 100], '%')).toEqual(['0 %', '50 %', '100 %']);
    expect(axisLabels([], '')).toEqual([]);
    expect(valueText(3.2, '1/s')).toBe('3.2 /s');
    expect(valueText(null, '1/s')).toBe('unknown');
  });

  it('is painted with the zones of its limits', () => {
    const [warn, crit] = [parseRange('80'), parseRange('90')];
    expect(bandsOf(0, 100, endsOf(warn, crit), warn, crit).map(({ zone }) => zone)).toEqual(['ok', 'warning', 'critical']);
    expect(bandsOf(0, 70, endsOf(warn, crit), warn, crit).map(({ zone }) => zone)).toEqual(['ok']);
    expect(inWords('0.2', (value) => valueText(value, 's'))).toBe('above 200 ms');
  });
});

it('metrics stand with their service, those without one last', () => {
  const info = (service: string | null, label: string) => ({ service, label, uom: '' });
  const groups = groupsOf([info(null, 'rtt'), info('old', 'x'), info('disk', 'a'), info('ping', 'rtt'), info('disk', 'b')], ['ping', 'disk']);
  expect(groups.map(({ service, metrics }) => [service, metrics.length])).toEqual([['ping', 1], ['disk', 2], ['old', 1], [undefined, 1]]);
});
