import { describe, expect, it } from 'vitest';
import type { QueriedSeries } from '../src/api/history';
import type { Host } from '../src/api/types';
import { comparedOf, comparisonOf, comparisonSearch, isComplete, labelsOf, selectedOf } from '../src/lib/compare';
import { compareCsv } from '../src/lib/compare-csv';
import { aloneOf, alignedOf } from '../src/lib/samples';
import { culpritOf, sparkOf } from '../src/lib/spark';
import { daysOf, monthOf, topOf } from '../src/lib/traffic';

const START = '2026-12-01T00:00:00Z';
const series = (host: string | null, avg: (number | null)[], more: Partial<QueriedSeries> = {}): QueriedSeries => ({
  host, host_id: host && `h_${host}`, start: START, step_s: 300, tier: '5m', uom: 'ms', min: avg, avg, max: avg, count: avg.map((one) => (one === null ? 0 : 1)), ...more,
});

describe('a comparison', () => {
  it('stands in the address, and leaves the window there', () => {
    const search = '?range=30d&label=site%3Dberlin&label=uplink%3Dlte&host=cam-1&service=ping&metric=rta&group_by=site';
    const of = comparisonOf(search);
    expect(of).toEqual({ hosts: ['cam-1'], labels: ['site=berlin', 'uplink=lte'], service: 'ping', metric: 'rta', groupBy: 'site' });
    expect(comparisonOf(comparisonSearch('?range=30d', of))).toEqual(of);
    expect(comparisonSearch('?range=30d', of)).toContain('range=30d');
    expect(comparisonSearch(search, { hosts: [], labels: [], service: '', metric: '', groupBy: '' })).toBe('?range=30d');
    expect(isComplete(of)).toBe(true);
    expect(isComplete({ ...of, hosts: [], labels: [] })).toBe(false);
    expect(comparisonOf('?label=nonsense&label==x').labels).toEqual([]);
  });

  it('selects hosts that have all labels, of those that are named', () => {
    const hosts = [{ id: 'h_1', name: 'a', labels: { site: 'x', up: 'lte' } }, { id: 'h_2', name: 'b', labels: { site: 'x' } }] as unknown as Host[];
    expect(selectedOf(hosts, { hosts: [], labels: ['site=x'] })).toHaveLength(2);
    expect(selectedOf(hosts, { hosts: [], labels: ['site=x', 'up=lte'] }).map(({ name }) => name)).toEqual(['a']);
    expect(selectedOf(hosts, { hosts: ['b'], labels: ['up=lte'] })).toEqual([]);
    expect(selectedOf(hosts, { hosts: [], labels: [] })).toEqual([]);
    expect(labelsOf(hosts)).toEqual(['site=x', 'up=lte']);
  });

  it('gives its colours to the highest averages, and none to what has no values', () => {
    const rows = comparedOf([series('low', [1, 1]), series('none', [null, null]), series('high', [9, 9]), series('mid', [5, 5])], 2, '');
    expect(rows.map(({ name, color }) => [name, color])).toEqual([['high', 0], ['mid', 1], ['low', 'quiet'], ['none', 'quiet']]);
    const groups = comparedOf([series(null, [1], { group: 'berlin', hosts: 3, worst: [7] }), series(null, [1], { group: null, hosts: 2 })], 8, 'site');
    expect(groups.map(({ name, hosts }) => [name, hosts])).toEqual([['berlin', 3], ['without site', 2]]);
    expect(comparedOf([series(null, [1])], 8, 'all')[0]!.name).toBe('all hosts');
  });

  it('keeps what has another unit than the first apart', () => {
    const rows = comparedOf([series('a', [1, 2]), series('b', [900, 900], { uom: 's' }), series('c', [3, 3])], 8, '');
    expect(rows.map(({ name, uom, color }) => [name, uom, color])).toEqual([['c', 'ms', 0], ['a', 'ms', 1], ['b', 's', 'quiet']]);
    expect(compareCsv({ start: START, step_s: 300 }, rows).split('\n')[0]).toBe('time,unix,c (ms),a (ms),b (s)');
    const groups = comparedOf([series(null, [1], { group: 'x' }), series(null, [1], { group: 'x', uom: 's' })], 8, 'site');
    expect(new Set(groups.map(({ key }) => key)).size).toBe(2);
  });

  it('is a CSV with a column per host', () => {
    const rows = comparedOf([series('a', [9, null]), series('b,c', [1, 3])], 8, '');
    expect(compareCsv({ start: START, step_s: 300 }, rows)).toBe('time,unix,a (ms),"b,c (ms)"\n2026-12-01T00:00:00Z,1796083200,9,1\n2026-12-01T00:05:00Z,1796083500,,3\n');
  });
});

describe('lines on common times', () => {
  const columns = (avg: (number | null)[], raw: boolean) => ({ start: 0, step: 10, raw, min: avg, avg, max: avg, count: avg.map(() => 1) });

  it('go on where samples are only seldom, and break in a gap', () => {
    expect(alignedOf(columns([null, 1, null, 2, null, 3, null, null, null, null, null, null, null, 4, null, 5], true))).toEqual(
      [null, 1, undefined, 2, undefined, 3, null, null, null, null, null, null, null, 4, undefined, 5],
    );
    expect(alignedOf(columns([1, null, 2, 3, 4], false))).toEqual([1, null, 2, 3, 4]);
    expect(alignedOf(columns([null, null], true))).toEqual([null, null]);
  });

  it('have points where a value is alone', () => {
    expect(aloneOf([1, null, 2, undefined, 3, null, 4])).toEqual([0, 6]);
    expect(aloneOf([null, undefined, 2, undefined, null])).toEqual([2]);
    expect(aloneOf([])).toEqual([]);
  });
});

describe('a sparkline', () => {
  it('has a move at each gap, and stays in its box', () => {
    const spark = sparkOf(series('a', [1, 2, null, 4, 3]))!;
    expect(spark.path.match(/M/g)).toHaveLength(2);
    expect(spark.summary).toMatchObject({ min: 1, max: 4, last: 3 });
    const numbers = spark.path.match(/[\d.]+/g)!.map(Number);
    expect(Math.max(...numbers)).toBeLessThanOrEqual(100);
    expect(sparkOf(series('a', [null, null]))).toBeUndefined();
    expect(sparkOf(series('a', [5, 5]))!.path).not.toContain('NaN');
    expect(sparkOf(series('a', [5]))!.path).not.toContain('NaN');
  });

  it('of a problem is that of the metric beyond its limit', () => {
    const metrics = [{ label: 'a' }, { label: 'b', crit: '5' }, { label: 'c', crit: '5' }];
    expect(culpritOf(metrics, ({ label }) => (label === 'c' ? 'critical' : label === 'a' ? 'warning' : 'ok'))!.label).toBe('c');
    expect(culpritOf(metrics, () => 'ok')!.label).toBe('b');
    expect(culpritOf([{ label: 'x' }], () => 'ok')!.label).toBe('x');
    expect(culpritOf([], () => 'ok')).toBeUndefined();
  });
});

describe('the traffic of a device', () => {
  const today = Date.parse('2026-12-02T10:00:00Z');
  const day = (name: string, bytes: number) => ({ day: name, rx_bytes: bytes, tx_bytes: 0, bytes });

  it('has every day, also one without a datagram', () => {
    const bars = daysOf([day('2026-12-02', 30), day('2026-11-30', 10)], 4, today, 20);
    expect(bars.map(({ day, bytes, over }) => [day, bytes, over])).toEqual([['2026-11-29', 0, false], ['2026-11-30', 10, false], ['2026-12-01', 0, false], ['2026-12-02', 30, true]]);
    expect(monthOf(bars, '2026-12')).toBe(30);
  });

  it('has an axis with its bars, and with a budget that is near', () => {
    const bars = daysOf([day('2026-12-02', 26e6)], 2, today, undefined);
    expect(topOf(bars, undefined)).toBe(30e6);
    expect(topOf(bars, 50e6)).toBe(60e6);
    expect(topOf(bars, 1e12)).toBe(30e6);
    expect(topOf([], undefined)).toBeGreaterThan(0);
  });
});
