import { describe, expect, it, vi } from 'vitest';

vi.hoisted(() => void (process.env.TZ = 'Europe/Vienna'));

import type { DeviceBlock, Rental } from '../src/api/types';
import { momentWithOffset, offsetOf, windowIn, windowOf, withOffset } from '../src/lib/moment';
import { barAfter, dateOf, fromDate, midnight, placeOf, rangeOf, rowsOf, ticksOf, weekendsOf, zoomed, zoomOf } from '../src/lib/timeline';

const at = (text: string): number => Date.parse(text);
const HOUR = 3_600_000;
const local = (ms: number): string => withOffset(ms).slice(5, 16);

const rental = (id: string, of: Partial<Rental>): Rental => ({
  id, booking: 'b_1', customer: 'k_1', device: 'h_1', device_name: 'cam-1', from: '2026-12-10T12:00:00Z', until: '2026-12-11T12:00:00Z',
  occupied_from: '2026-12-10T11:00:00Z', occupied_until: '2026-12-11T14:00:00Z', state: 'booked', awaits_handover: false, delivery: 'mounted', created_at: '2026-12-01T00:00:00Z', version: 1, ...of,
});
const block = (id: string, of: Partial<DeviceBlock>): DeviceBlock => ({
  id, device: 'h_1', device_name: 'cam-1', from: '2026-12-12T12:00:00Z', until: null, reason: 'repair', author: 'user:ada', created_at: '2026-12-01T00:00:00Z', ...of,
});
const devices = [{ id: 'h_1', name: 'cam-1' }, { id: 'h_2', name: 'cam-2' }];
const week = rangeOf(at('2026-12-09T23:30:00+01:00'), 7);
const now = at('2026-12-09T12:00:00Z');

describe('a range', () => {
  it('has whole days of the calendar, also those of 23 and 25 hours', () => {
    const hours = (day: string): number => { const { from, until } = rangeOf(at(day), 1); return (until - from) / HOUR; };
    expect([hours('2026-03-28T12:00:00Z'), hours('2026-03-29T12:00:00Z'), hours('2026-10-25T12:00:00Z')]).toEqual([24, 23, 25]);
    expect(local(midnight(at('2026-03-28T12:00:00+01:00'), 2))).toBe('03-30T00:00');
    expect(local(week.from)).toBe('12-09T00:00');
  });

  it('is found again by its date, and by what it shows', () => {
    expect(fromDate(dateOf(week.from))).toBe(week.from);
    expect([fromDate(null), fromDate('tomorrow'), fromDate('2026-99-99')]).toEqual([undefined, undefined, undefined]);
    expect([zoomed(7, -1), zoomed(7, 1), zoomed(1, -1), zoomed(84, 1)]).toEqual([3, 14, 1, 84]);
    expect([zoomOf(7), zoomOf(5), zoomOf(1000), zoomOf(Number.NaN)]).toEqual([7, 7, 84, 84]);
  });
});

it('a device stays occupied until it is returned', () => {
  const sent = { delivery: 'shipped' as const, dispatched_at: '2026-12-08T00:00:00Z' };
  const bar = (time: string) => rowsOf(devices, [rental('l_1', sent)], [], week, at(time))[0]!.bars[0]!;
  expect([bar('2026-12-11T11:00:00Z'), bar('2026-12-11T15:00:00Z')].map(({ state, after }) => [state, after])).toEqual([['active', false], ['overdue', true]]);
});

describe('the ticks', () => {
  it('are midnights, however long the days are', () => {
    const ticks = ticksOf(rangeOf(at('2026-03-27T12:00:00Z'), 7), 8);
    expect(ticks.map(local)).toEqual(['27', '28', '29', '30', '31'].map((day) => `03-${day}T00:00`).concat(['04-01T00:00', '04-02T00:00']));
    expect(ticks[3]! - ticks[2]!).toBe(23 * HOUR);
  });

  it('are hours of the clock on short ranges; the hour that is missing has none', () => {
    const ticks = ticksOf(rangeOf(at('2026-03-29T12:00:00Z'), 1), 24);
    expect(ticks.length).toBe(23);
    expect(ticks.slice(0, 4).map(local)).toEqual(['03-29T00:00', '03-29T01:00', '03-29T03:00', '03-29T04:00']);
    expect(ticksOf(rangeOf(at('2026-10-25T12:00:00Z'), 1), 9).map(local).at(-1)).toBe('10-25T21:00');
  });

  it('are as many as there is room for', () => {
    for (const days of [1, 3, 7, 14, 28, 84]) for (const most of [3, 5, 12, 40]) expect(ticksOf(rangeOf(now, days), most).length).toBeLessThanOrEqual(most);
    expect(ticksOf(rangeOf(now, 14), 4).map(local)).toEqual(['12-09T00:00', '12-16T00:00']);
  });

  it('leave the days off apart', () => {
    const [saturday, sunday] = weekendsOf(week);
    expect(saturday!.left).toBeCloseTo((3 / 7) * 100);
    expect(sunday!.left + sunday!.width).toBeCloseTo((5 / 7) * 100);
  });
});

describe('an interval', () => {
  it('is cut at the edges, and absent outside', () => {
    const day = rangeOf(at('2026-12-10T12:00:00Z'), 1);
    expect(placeOf(day, day.from + 6 * HOUR, day.from + 12 * HOUR)).toEqual({ left: 25, width: 25 });
    expect(placeOf(day, day.from - HOUR, undefined)).toEqual({ left: 0, width: 100 });
    expect([placeOf(day, day.until, day.until + 1), placeOf(day, day.from - 1, day.from)]).toEqual([undefined, undefined]);
  });

  it('takes its share of a day of 23 hours', () => {
    const short = rangeOf(at('2026-03-29T12:00:00Z'), 1);
    expect(placeOf(short, at('2026-03-29T03:00:00+02:00'), short.until)).toEqual({ left: expect.closeTo((2 / 23) * 100), width: expect.closeTo((21 / 23) * 100) });
  });
});

describe('the rows', () => {
  it('have each device, with preparation, rental and turnaround in one bar', () => {
    const [first, second] = rowsOf(devices, [rental('l_1', {})], [], week, now);
    expect([first!.name, second!.name, second!.bars]).toEqual(['cam-1', 'cam-2', []]);
    const [bar] = first!.bars;
    expect(bar).toMatchObject({ key: 'l_1', state: 'booked', before: false, after: false, lane: 0 });
    expect(bar!.pieces.map(({ kind, share }) => [kind, Math.round(share)])).toEqual([['preparation', 4], ['rental', 89], ['turnaround', 7]]);
    expect(bar!.left).toBeCloseTo((36 / 168) * 100);
    expect(bar!.width).toBeCloseTo((27 / 168) * 100);
  });

  it('leave out what occupies nothing, and end early what ended early', () => {
    const over = rental('l_1', { state: 'cancelled', occupied_until: null, ended_at: '2026-12-09T10:00:00Z' });
    const early = rental('l_2', { state: 'closed', ended_at: '2026-12-10T18:00:00Z', occupied_until: '2026-12-10T20:00:00Z' });
    const never = block('x_1', { ended_at: '2026-12-11T00:00:00Z' });
    const [row] = rowsOf(devices, [over, early], [never], week, at('2026-12-12T00:00:00Z'));
    expect(row!.bars.map(({ key }) => key)).toEqual(['l_2']);
    expect(row!.bars[0]!.width).toBeCloseTo((9 / 168) * 100);
  });

  it('go on beyond the edges, and a block without an end too', () => {
    const long = rental('l_1', { occupied_from: '2026-12-01T00:00:00Z', from: '2026-12-01T00:00:00Z' });
    const [row] = rowsOf(devices, [long], [block('x_1', {})], week, now);
    expect(row!.bars.map(({ key, before, after }) => [key, before, after])).toEqual([['l_1', true, false], ['x_1', false, true]]);
  });

  it('have a lane for each bar that overlaps, such as a block over a rental', () => {
    const over = block('x_1', { from: '2026-12-11T00:00:00Z', until: '2026-12-13T00:00:00Z' });
    const after = rental('l_2', { from: '2026-12-11T15:00:00Z', occupied_from: '2026-12-11T14:00:00Z', until: '2026-12-12T00:00:00Z', occupied_until: '2026-12-12T01:00:00Z' });
    const [row] = rowsOf(devices, [rental('l_1', {}), after], [over], week, now);
    expect(row!.bars.map(({ key, lane }) => [key, lane])).toEqual([['l_1', 0], ['x_1', 1], ['l_2', 0]]);
    expect(row!.lanes).toBe(2);
  });

  it('have a device that is rented without being rentable any more', () => {
    expect(rowsOf(devices, [rental('l_1', { device: 'h_0', device_name: 'cam-0' })], [], week, now).map(({ name }) => name)).toEqual(['cam-0', 'cam-1', 'cam-2']);
  });
});

it('arrows lead to the neighbour, and to the nearest bar of the next row that has one', () => {
  const later = { from: '2026-12-13T12:00:00Z', occupied_from: '2026-12-13T12:00:00Z', until: '2026-12-14T12:00:00Z', occupied_until: '2026-12-14T12:00:00Z' };
  const third = { id: 'h_3', name: 'cam-3' };
  const rentals = [rental('l_1', {}), rental('l_2', later), rental('l_3', { ...later, device: 'h_3', device_name: 'cam-3' })];
  const rows = rowsOf([...devices, third], rentals, [], week, now);
  expect(barAfter(rows, 'l_1', 'ArrowRight')).toBe('l_2');
  expect(barAfter(rows, 'l_2', 'ArrowRight')).toBeUndefined();
  expect(barAfter(rows, 'l_2', 'Home')).toBe('l_1');
  expect(barAfter(rows, 'l_1', 'ArrowDown')).toBe('l_3');
  expect(barAfter(rows, 'l_3', 'ArrowUp')).toBe('l_2');
  expect([barAfter(rows, 'l_3', 'ArrowDown'), barAfter(rows, 'l_9', 'Home')]).toEqual([undefined, undefined]);
});

describe('a moment', () => {
  it('has the offset of its own day', () => {
    expect([offsetOf(at('2026-12-10T12:00:00Z')), offsetOf(at('2026-07-10T12:00:00Z'))]).toEqual(['+01:00', '+02:00']);
    expect(withOffset(at('2026-07-10T12:00:05Z'))).toBe('2026-07-10T14:00:05+02:00');
    expect(at(withOffset(at('2026-10-25T01:30:00Z')))).toBe(at('2026-10-25T01:30:00Z'));
    expect(momentWithOffset(at('2026-12-10T12:00:00Z'))).toMatch(/\(UTC\+01:00\)$/);
  });

  it('says the offset twice in a window over a change of the clock', () => {
    const offsets = (from: string, until: string | undefined): number => (windowOf(at(from), until === undefined ? undefined : at(until)).match(/UTC/g) ?? []).length;
    expect([offsets('2026-12-10T12:00:00Z', '2026-12-11T12:00:00Z'), offsets('2026-03-28T12:00:00Z', '2026-03-29T12:00:00Z'), offsets('2026-12-10T12:00:00Z', undefined)]).toEqual([1, 2, 1]);
  });

  it('is shown in the zone of the booking too, if that is another one', () => {
    const [from, until] = [at('2026-12-10T12:00:00Z'), at('2026-12-11T12:00:00Z')];
    expect(windowIn('America/New_York', from, until)).toMatch(/0?7:00/);
    expect([windowIn('Europe/Vienna', from, until), windowIn(null, from, until), windowIn('Mars/Base', from, until)]).toEqual(['', '', '']);
  });
});
