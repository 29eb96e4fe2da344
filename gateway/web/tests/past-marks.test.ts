import { describe, expect, it } from 'vitest';
import type { Interval } from '../src/api/history';
import type { Downtime, Event, Incident, Rental } from '../src/api/types';
import { cellsOf, distinct, downtimeMarks, eventMarks, incidentMarks, marksAt, marksFor, marksWithin, rentalMarks, stateAt, statesInWords, statesOf, unmarkedWords } from '../src/lib/past-marks';

const iso = (second: number): string => new Date(second * 1000).toISOString();
const state = (value: string, from: number, until?: number, service?: string): Interval => ({ series: 'state', value, from: iso(from), ...(until === undefined ? {} : { until: iso(until) }), ...(service ? { service } : {}) });
const WINDOW = { from: 1000, to: 2000 };

describe('the bar of states', () => {
  const intervals = [state('ok', 0, 1400, 'ping'), state('critical', 1400, 1410, 'ping'), state('ok', 1410, undefined, 'ping'), state('up', 0), state('warning', 0, undefined, 'disk')];

  it('has the states of one service in the window', () => {
    expect(statesOf(intervals, 'ping', WINDOW)).toEqual([{ kind: 'ok', from: 1000, to: 1400 }, { kind: 'critical', from: 1400, to: 1410 }, { kind: 'ok', from: 1410, to: 2000 }]);
    expect(statesOf(intervals, undefined, WINDOW)).toEqual([{ kind: 'up', from: 1000, to: 2000 }]);
    expect(stateAt(statesOf(intervals, 'ping', WINDOW), 1405)).toBe('critical');
    expect(stateAt([], 5)).toBeUndefined();
  });

  it('calls a host unreachable that is down behind a parent', () => {
    const down = [state('down', 1000, 1500), { series: 'unreachable', value: '', from: iso(1200), until: iso(1300) }];
    expect(statesOf(down, undefined, WINDOW).map(({ kind, from, to }) => [kind, from, to])).toEqual([['down', 1000, 1200], ['unreachable', 1200, 1300], ['down', 1300, 1500]]);
  });

  it('shows an outage of ten seconds even in ten cells', () => {
    const cells = cellsOf(statesOf(intervals, 'ping', WINDOW), WINDOW, 10);
    expect(cells.map(({ kind }) => kind)).toEqual(['ok', 'critical', 'ok']);
    expect(cells[1]).toEqual({ kind: 'critical', from: 1400, to: 1500 });
    expect(cellsOf([], WINDOW, 10)).toEqual([]);
  });

  it('shows the worst of each cell, however many spans there are', () => {
    const flapping = Array.from({ length: 10_000 }, (_, n) => ({ kind: n % 100 === 7 ? ('critical' as const) : ('ok' as const), from: 1000 + n / 10, to: 1000 + (n + 1) / 10 }));
    expect(cellsOf(flapping, WINDOW, 100)).toEqual([{ kind: 'critical', from: 1000, to: 2000 }]);
    expect(cellsOf(flapping, WINDOW, 200).map(({ kind }) => kind).slice(0, 4)).toEqual(['critical', 'ok', 'critical', 'ok']);
  });

  it('has what touches two parts of the time once', () => {
    const both = [state('ok', 0, 1400, 'ping'), state('ok', 0, 1400, 'disk')];
    expect(distinct([...both, ...both, state('critical', 1400, 1410, 'ping')])).toHaveLength(3);
  });

  it('says its shares, and does not round a problem away', () => {
    expect(statesInWords(statesOf(intervals, 'ping', WINDOW))).toBe('OK 99 %, Critical 1 %');
    expect(statesInWords([{ kind: 'ok', from: 0, to: 1e7 }, { kind: 'critical', from: 1e7, to: 1e7 + 1 }])).toBe('OK > 99.9 %, Critical < 0.1 %');
    expect(statesInWords([])).toBe('no state known');
  });
});

describe('marks', () => {
  it('have each downtime once, cut at its cancellation', () => {
    const planned = { id: 'd_1', start: iso(1100), end: iso(1500), cancelled_at: iso(1300), comment: 'works', host: 'h_1' } as unknown as Downtime;
    const recorded: Interval[] = [{ series: 'downtime', value: '', from: iso(1100), until: iso(1300) }, { series: 'downtime', value: '', from: iso(1700), until: iso(1800), service: 'disk' }];
    const marks = downtimeMarks([planned], recorded, WINDOW);
    expect(marks.map(({ from, to, text, service }) => [from, to, text, service])).toEqual([[1100, 1300, 'Downtime: works', undefined], [1700, 1800, 'Downtime', 'disk']]);
    expect(marksFor(marks, 'ping')).toHaveLength(1);
    expect(marksFor(marks, 'disk')).toHaveLength(2);
  });

  it('have rentals that took place, and incidents that are open', () => {
    const rental = { id: 'l_1', from: iso(1500), until: iso(3000), state: 'active', customer: 'k_1' } as unknown as Rental;
    expect(rentalMarks([rental, { ...rental, state: 'cancelled' }], WINDOW, () => 'Ada')).toMatchObject([{ from: 1500, to: 2000, text: 'Rental: Ada' }]);
    const incident = { id: 'i_1', opened_at: iso(900), text: 'uplink lost' } as unknown as Incident;
    expect(incidentMarks([incident, { ...incident, closed_at: iso(950) }], WINDOW)).toMatchObject([{ from: 1000, to: 2000, path: '/incidents/i_1' }]);
  });

  it('leave out events that stand elsewhere', () => {
    const event = (seq: number, kind: string, at: number) => ({ seq, kind, at: iso(at) }) as unknown as Event;
    const marks = eventMarks([event(1, 'state.changed', 1500), event(2, 'device.rekeyed', 1500), event(3, 'device.rekeyed', 2500), event(4, 'message.sent', 1500), event(5, 'incident.opened', 1500)], WINDOW);
    expect(marks.map(({ text }) => text)).toEqual(['Configuration reissued']);
    expect(marksAt(marks, 1503, 5)).toHaveLength(1);
    expect(marksAt(marks, 1510, 5)).toHaveLength(0);
  });

  it('stand in each row of a table that they touch', () => {
    const event = (seq: number, at: number) => ({ seq, kind: 'device.rekeyed', at: iso(at) }) as unknown as Event;
    const incident = { id: 'i_1', opened_at: iso(1200), closed_at: iso(1400), text: 'uplink lost' } as unknown as Incident;
    const marks = [...eventMarks([event(1, 1500)], WINDOW), ...incidentMarks([incident], WINDOW)];
    const rows = [1000, 1100, 1200, 1300, 1400, 1500, 1600].map((from) => marksWithin(marks, from, from + 100).length);
    expect(rows).toEqual([0, 0, 1, 1, 0, 1, 0]);
  });

  it('say which of them are left out', () => {
    expect(unmarkedWords({ name: 'Events', newest: 500 })).toBe('Events: only the newest 500 of this time are marked; zoom in to see the others');
    expect(unmarkedWords({ name: 'States', wrong: 'this time has too many changes' })).toBe('States could not be loaded: this time has too many changes');
  });
});
