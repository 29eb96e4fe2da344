import { describe, expect, it, vi } from 'vitest';

vi.hoisted(() => void (process.env.TZ = 'Europe/Vienna'));

import { inWords } from '../src/api/client';
import type { Customer, Rental } from '../src/api/types';
import { contactsFrom, contactWords, customerChanges, customerChoice, customerMatches, customerName, customerOf } from '../src/lib/customer';
import { maintenanceFrom, maintenanceRows, maintenanceWords, newMaintenance } from '../src/lib/maintenance';
import { accessChanges, blockTimes, callsOf, conflictWords, endOf, forwardedWords, freeWords, gateWords, occupiedUntil, ofDevice, queryOf, reasonBeside, reasonOf, rentalContacts, stateOf, viewOf, wholeFree } from '../src/lib/rental';

const at = (time: string): number => Date.parse(`2026-12-10T${time}Z`);
const rental = (of: Partial<Rental> = {}): Rental => ({
  id: 'l_1', booking: 'b_1', customer: 'k_1', device: 'h_1', device_name: 'cam-1', from: '2026-12-10T12:00:00Z', until: '2026-12-10T18:00:00Z',
  occupied_from: '2026-12-10T11:00:00Z', occupied_until: '2026-12-10T20:00:00Z', state: 'booked', awaits_handover: false, delivery: 'mounted', name: 'device-1',
  addresses: ['10.112.4.1', 'fd72::401'], access: [{ protocol: 'icmp', ports: [] }, { protocol: 'tcp', ports: [22] }], renters: null, cut_at_allowance: false, forwarded_bytes: 0,
  created_at: '2026-12-01T00:00:00Z', version: 1, ...of,
});
const customer = (id: string, of: Partial<Customer>): Customer => ({ id, name: '', contacts: [], created_at: '2026-12-01T00:00:00Z', version: 1, ...of });

describe('the maintenance of a rental', () => {
  it('has its times in the zone of the reader, and the comment', () => {
    const times = { from: '2026-12-10T12:00:00Z', until: '2026-12-10T13:00:00Z' };
    expect(maintenanceWords(times)).toMatch(/(01|13):00.* to .*(02|14):00/);
    expect(maintenanceWords({ ...times, comment: 'new lens' })).toMatch(/(02|14):00.*: new lens$/);
  });

  const planned = [{ from: '2026-12-10T12:00:07.250Z', until: '2026-12-10T13:00:00Z', comment: 'new lens' }, { from: '2026-12-10T15:00:00Z', until: '2026-12-10T16:00:00Z' }];

  it('is sent as it was read where the form leaves it, and as changed elsewhere', () => {
    const rows = maintenanceRows(planned);
    expect(rows[0]).toMatchObject({ from: '2026-12-10T13:00', until: '2026-12-10T14:00', comment: 'new lens' });
    expect(maintenanceFrom(rows, 'maintenance')).toEqual(planned);
    const changed = [{ ...rows[0]!, until: '2026-12-10T14:30', comment: ' ' }, rows[1]!];
    expect(maintenanceFrom(changed, 'maintenance')).toEqual([{ from: planned[0]!.from, until: '2026-12-10T14:30:00+01:00' }, planned[1]]);
    expect(maintenanceFrom([], 'maintenance')).toEqual([]);
  });

  it('without a time is refused by the page', () => {
    expect(() => maintenanceFrom([{ from: '2026-12-10T13:00', until: '', comment: '' }], 'maintenance')).toThrow('a date and a time');
  });

  it('begins anew within the window of the rental', () => {
    const window = { from: '2026-12-10T12:00:07Z', until: '2026-12-10T18:00:00Z' };
    const times = (now: string) => { const { from, until } = newMaintenance(window, at(now)); return [from, until]; };
    expect(times('09:00:00')).toEqual(['2026-12-10T13:01', '2026-12-10T14:01']);
    expect(times('15:30:30')).toEqual(['2026-12-10T16:31', '2026-12-10T17:31']);
    expect(times('17:40:00')).toEqual(['2026-12-10T18:40', '2026-12-10T19:00']);
  });
});

describe('the allowance of a rental', () => {
  const words = (forwarded_bytes: number, cut_at_allowance = false, allowance_bytes: number | null = 10_000_000_000) =>
    forwardedWords(rental({ forwarded_bytes, cut_at_allowance, allowance_bytes }));

  it('says how much of it is used, and whether it cuts', () => {
    expect(words(8_190_000_000)).toBe('8.19 GB of 10 GB (81 %)');
    expect(words(9_999_999_999, true)).toContain('(99 %), cut off there');
    expect(words(10_000_000_000, true)).toContain('(100 %), cut off until it is larger');
    expect(words(950, true, null)).toBe('950 B');
  });
});

describe('the state of a rental', () => {
  it('follows the clock, and the end of each window is excluded', () => {
    const states = ['10:59:59', '11:00:00', '12:00:00', '17:59:59', '18:00:00', '20:00:00'].map((time) => stateOf(rental(), at(time)));
    expect(states).toEqual(['booked', 'preparing', 'active', 'active', 'cleaning', 'closed']);
  });

  it('ends early with its rental', () => {
    const early = rental({ state: 'cleaning', ended_at: '2026-12-10T14:00:00Z', occupied_until: '2026-12-10T16:00:00Z' });
    // The page's clock may be behind that of the gateway.
    expect(stateOf(early, at('13:59:59'))).toBe('cleaning');
    expect([stateOf(early, at('15:59:59')), stateOf(early, at('16:00:00'))]).toEqual(['cleaning', 'closed']);
  });

  it('shows the window of one that was cancelled before it began', () => {
    expect(endOf(rental({ state: 'cancelled', ended_at: '2026-12-09T12:00:00Z' }))).toBe(at('18:00:00'));
    expect(endOf(rental({ ended_at: '2026-12-10T14:00:00Z' }))).toBe(at('14:00:00'));
  });

  it('stays as it is when it was cancelled, failed or not confirmed', () => {
    const of = (state: Rental['state']) => stateOf(rental({ state }), at('13:00:00'));
    expect([of('cancelled'), of('failed'), of('held')]).toEqual(['cancelled', 'failed', 'held']);
    expect(stateOf(rental({ state: 'held' }), at('18:00:00'))).toBe('cancelled');
  });

  it('is delayed while its device is not handed over, and fails at its end', () => {
    const waits = rental({ awaits_handover: true });
    expect(['11:59:59', '12:00:00', '17:59:59', '18:00:00'].map((time) => stateOf(waits, at(time)))).toEqual(['preparing', 'delayed', 'delayed', 'failed']);
    expect([gateWords(waits, at('13:00:00')), gateWords(waits, at('19:00:00'))]).toEqual(['opens when the device is handed over', '']);
    expect(stateOf({ ...waits, state: 'cleaning', ended_at: '2026-12-10T14:00:00Z' }, at('15:00:00'))).toBe('cleaning');
  });

  it('awaits a device that was sent until it is back', () => {
    const sent = rental({ dispatched_at: '2026-12-10T10:00:00Z' });
    expect(['17:59:59', '18:00:00', '20:00:00'].map((time) => stateOf(sent, at(time)))).toEqual(['active', 'returning', 'overdue']);
    const late = rental({ state: 'overdue', dispatched_at: '2026-12-10T10:00:00Z', occupied_until: null });
    expect([stateOf(late, at('23:00:00')), callsOf('overdue')]).toEqual(['overdue', ['return']]);
    const back = { ...late, state: 'cleaning' as const, returned_at: '2026-12-10T21:00:00Z', occupied_until: '2026-12-10T23:00:00Z' };
    expect([stateOf(back, at('22:59:59')), stateOf(back, at('23:00:00'))]).toEqual(['cleaning', 'closed']);
  });

  it('decides what can be done', () => {
    expect(callsOf('delayed')).toEqual(['hand-over', 'until', 'access', 'maintenance', 'swap', 'end']);
    expect(callsOf('held')).toEqual(['confirm', 'until', 'access', 'maintenance', 'swap', 'cancel']);
    expect(callsOf('preparing')).toEqual(['until', 'access', 'maintenance', 'swap', 'cancel']);
    expect(callsOf('active')).toEqual(['until', 'access', 'maintenance', 'swap', 'end']);
    expect([callsOf('cleaning'), callsOf('closed'), callsOf('cancelled'), callsOf('failed')]).toEqual([[], [], [], []]);
    expect(reasonOf('returned_early')).toBe('returned early');
    expect([reasonBeside('cancelled', 'cancelled'), reasonBeside('closed', 'no_show'), reasonBeside('active', null)]).toEqual(['', 'no show', '']);
  });
});

describe('a rental of a shipped device', () => {
  const sent = rental({ delivery: 'shipped', dispatched_at: '2026-12-10T08:00:00Z' });
  const late = { ...sent, state: 'overdue' as const };

  it('comes back before it is cleaned, and is overdue after the turnaround', () => {
    expect(['17:59:59', '18:00:00', '19:59:59', '20:00:00'].map((time) => stateOf(sent, at(time)))).toEqual(['active', 'returning', 'returning', 'overdue']);
    expect([stateOf({ ...late, occupied_until: null }, at('18:30:00')), stateOf({ ...sent, state: 'returning', occupied_until: null }, at('23:00:00'))]).toEqual(['overdue', 'returning']);
    expect(stateOf({ ...sent, returned_at: '2026-12-10T19:00:00Z', occupied_until: '2026-12-10T21:00:00Z' }, at('19:30:00'))).toBe('cleaning');
    expect(stateOf(rental({ delivery: 'shipped' }), at('18:00:00'))).toBe('cleaning');
    expect(stateOf({ ...sent, state: 'returning', ended_at: '2026-12-10T10:00:00Z' }, at('13:00:00'))).toBe('returning');
  });

  it('occupies its device until it is back', () => {
    expect([occupiedUntil(sent, at('17:00:00')), occupiedUntil(sent, at('19:00:00')), occupiedUntil(rental(), at('19:00:00'))]).toEqual([at('20:00:00'), undefined, at('20:00:00')]);
    expect([gateWords(sent, at('19:00:00')), gateWords(late, at('20:00:00'))]).toEqual(['closed 1 h ago', 'not returned in time']);
    expect(ofDevice([sent], at('23:00:00')).present?.id).toBe('l_1');
  });

  it('is dispatched once, not swapped after that, and returned', () => {
    expect(callsOf('preparing', sent)).toEqual(['until', 'access', 'maintenance', 'cancel']);
    expect(callsOf('booked', { delivery: 'shipped' })).toEqual(['dispatch', 'until', 'access', 'maintenance', 'swap', 'cancel']);
    expect(callsOf('delayed', { delivery: 'shipped' })).toEqual(['hand-over', 'dispatch', 'until', 'access', 'maintenance', 'swap', 'end']);
    for (const calls of [callsOf('booked', sent), callsOf('held', { delivery: 'shipped' }), callsOf('active', { delivery: 'shipped' })]) expect(calls).not.toContain('dispatch');
    expect([callsOf('returning', sent), callsOf('overdue', sent)]).toEqual([['return'], ['return']]);
  });
});

describe('the window of a rental', () => {
  it('opens and closes with the clock', () => {
    const words = ['09:55:00', '11:59:30', '12:00:00', '17:59:59', '18:00:00', '18:12:00'].map((time) => gateWords(rental(), at(time)));
    expect(words).toEqual(['opens in 2 h 5 min', 'opens in 30 s', 'open, closes in 6 h', 'open, closes in 1 s', 'closed 0 s ago', 'closed 12 min ago']);
  });

  it('closes early with its rental', () => {
    const early = rental({ state: 'cleaning', ended_at: '2026-12-10T14:00:00Z', occupied_until: '2026-12-10T16:00:00Z' });
    expect(gateWords(early, at('14:30:00'))).toBe('closed 30 min ago');
    expect(gateWords({ ...early, state: 'failed' }, at('14:30:00'))).toBe('closed 30 min ago');
  });

  it('opens only once a hold is confirmed, and never after a cancellation', () => {
    const held = rental({ state: 'held' });
    expect([gateWords(held, at('11:00:00')), gateWords(held, at('13:00:00'))]).toEqual(['opens in 1 h if it is confirmed', 'opens when it is confirmed']);
    expect([gateWords(held, at('18:00:00')), gateWords(rental({ state: 'cancelled' }), at('13:00:00'))]).toEqual(['', '']);
  });
});

it('a change of access has what differs, in whatever form it was written', () => {
  const before = rental({ access: [{ protocol: 'tcp', ports: [22] }, { protocol: 'tcp', ports: ['8000-8100'] }, { protocol: 'icmp' }], renters: ['w_2', 'w_1'] });
  const same = [{ protocol: 'icmp' as const, ports: [] }, { protocol: 'tcp' as const, ports: [22, '8000-8100'] }];
  const rest = { allowance: null, cut: false, ssh: false, contacts: [], thresholds: [] };
  expect(accessChanges(before, { name: 'device-1', access: same, renters: ['w_1', 'w_2'], ...rest })).toEqual({});
  expect(accessChanges(before, { name: 'lens', access: [], renters: null, ...rest })).toEqual({ name: 'lens', access: [], renters: null });
  expect(accessChanges(rental({ renters: undefined }), { name: 'device-1', access: rental().access, renters: null, ...rest })).toEqual({});
});

it('a change of allowance, logins and contacts has what differs', () => {
  const before = rental({ allowance_bytes: 20e9, cut_at_allowance: true, ssh: true, contacts: [{ email: 'ada@example.org', name: null }] });
  const same = { name: 'device-1', access: before.access, renters: null, allowance: 20e9, cut: true, ssh: true, contacts: [{ email: 'ada@example.org' }], thresholds: [] };
  expect(accessChanges(before, same)).toEqual({});
  const disk = { service: 'disk', metric: 'used', warn: '80', crit: null };
  expect(accessChanges(before, { ...same, thresholds: [disk] })).toEqual({ thresholds: [disk] });
  expect(accessChanges({ ...before, thresholds: [disk] }, same)).toEqual({ thresholds: [] });
  expect(accessChanges(before, { ...same, allowance: null, cut: false, ssh: false, contacts: [] })).toEqual({ allowance_bytes: null, cut_at_allowance: false, ssh: false, contacts: [] });
  expect(rentalContacts([{ name: ' Ada ', email: ' ada@example.org' }, { name: '', email: ' ' }, { name: '', email: 'b@example.org' }])).toEqual([{ name: 'Ada', email: 'ada@example.org' }, { email: 'b@example.org' }]);
});

describe('a customer', () => {
  const ada = customer('k_1', { name: 'Ada Ltd', external_ref: 'crm-17' });
  const [bob, twin] = [customer('k_2', { name: 'Bob' }), customer('k_3', { name: 'bob', external_ref: 'crm-18' })];
  const all = [ada, bob, twin, customer('k_4', { external_ref: 'crm-19', contacts: [{ email: 'eve@example.org' }] })];

  it('is found by id, reference and name, unless two have the name', () => {
    expect(['k_1', ' crm-17 ', 'ada ltd', 'bob', 'nobody'].map((text) => customerOf(text, all))).toEqual(['k_1', 'k_1', 'k_1', 'bob', 'nobody']);
    expect(all.map((one) => customerChoice(one, all))).toEqual(['Ada Ltd', 'k_2', 'crm-18', 'crm-19']);
  });

  it('has a name, and is searched by all that it has', () => {
    expect(all.map(customerName)).toEqual(['Ada Ltd', 'Bob', 'bob', 'crm-19']);
    expect(all.filter((one) => customerMatches(one, 'EVE@')).map(({ id }) => id)).toEqual(['k_4']);
  });
});

describe('a form of a customer', () => {
  it('has contacts without empty fields and lines', () => {
    const rows = [{ name: ' Ada ', email: 'ada@example.org', phone: '' }, { name: '', email: ' ', phone: '' }];
    expect(contactsFrom(rows)).toEqual([{ name: 'Ada', email: 'ada@example.org' }]);
    expect(contactWords({ name: 'Ada', phone: '+43 1' })).toBe('Ada, +43 1');
  });

  it('sends only what was changed, and null for a reference that was dropped', () => {
    const before = { name: 'Ada', external_ref: 'crm-17', contacts: [{ name: 'Ada', email: 'ada@example.org' }] };
    expect(customerChanges(before, { ...before, contacts: [{ email: 'ada@example.org', name: 'Ada' }] })).toEqual({});
    expect(customerChanges(before, { name: 'Ada Ltd', external_ref: null, contacts: [] })).toEqual({ name: 'Ada Ltd', external_ref: null, contacts: [] });
    expect(customerChanges({ ...before, external_ref: undefined }, { ...before, external_ref: null })).toEqual({});
  });
});

it('a block ends with its end or when it is ended; one that never came has no time', () => {
  const times = { from: '2026-12-10T12:00:00Z', until: '2026-12-10T18:00:00Z' };
  expect(blockTimes(times)).toEqual({ from: at('12:00:00'), until: at('18:00:00') });
  expect(blockTimes({ ...times, ended_at: '2026-12-10T13:00:00Z' })?.until).toBe(at('13:00:00'));
  expect(blockTimes({ from: times.from, until: null })).toEqual({ from: at('12:00:00'), until: undefined });
  expect(blockTimes({ ...times, ended_at: '2026-12-10T11:00:00Z' })).toBeUndefined();
});

it('a device has one rental at present, and others that come', () => {
  const next = rental({ id: 'l_2', from: '2026-12-11T12:00:00Z', until: '2026-12-12T12:00:00Z', occupied_from: '2026-12-11T11:00:00Z', occupied_until: '2026-12-12T13:00:00Z' });
  const of = (time: string) => { const { present, next: coming } = ofDevice([next, rental()], at(time)); return [present?.id, coming.map(({ id }) => id)]; };
  expect(of('10:00:00')).toEqual([undefined, ['l_1', 'l_2']]);
  expect(of('11:30:00')).toEqual(['l_1', ['l_1', 'l_2']]);
  expect(of('13:00:00')).toEqual(['l_1', ['l_2']]);
  expect(of('19:00:00')).toEqual(['l_1', ['l_2']]);
  expect(of('21:00:00')).toEqual([undefined, ['l_2']]);
});

describe('a conflict', () => {
  const occupied = { device_name: 'cam-1', from: '2026-12-09T12:30:00Z', until: '2026-12-11T10:00:00Z' };

  it('names the device and its time in the zone of the reader', () => {
    expect(conflictWords(occupied)).toMatch(/^cam-1 is occupied .*9.* to .*11.*\(UTC\+01:00\), preparation and turnaround included\.$/);
    expect(conflictWords({ device_name: 'cam-1', from: occupied.from })).toContain('is occupied from');
    expect(conflictWords({ item: 0 })).toBe('No device of the selection is free in this window.');
  });

  it('says the latest end that is possible', () => {
    expect(conflictWords({ ...occupied, latest_until: '2026-12-09T11:00:00Z' })).toMatch(/The latest possible end is .*\(UTC\+01:00\)\.$/);
  });

  it('is what the page says of a refused booking', () => {
    expect(inWords({ code: 'occupied', detail: 'cam-1 is occupied from 2026-12-09T12:30:00Z', conflict: occupied }, 409)).toBe(conflictWords(occupied));
  });
});

it('a device is free if it is so in the whole window', () => {
  const [from, to] = ['2026-12-10T12:00:00Z', '2026-12-11T12:00:00Z'];
  const device = (name: string, free: [string, string][]) => ({ device: `h_${name}`, device_name: name, free: free.map(([a, b]) => ({ from: a, until: b })) });
  const found = { from, to, devices: 3, free: 1, items: [device('a', [[from, to]]), device('b', [[from, '2026-12-10T18:00:00Z']]), device('c', [])] };
  expect(wholeFree(found)).toEqual(['a']);
  expect(['a', 'b', 'd', ''].map((name) => freeWords(found, name))).toEqual(['a is free then.', 'b is not free then.', 'No rentable device has this name.', '1 of 3 rentable devices is free then.']);
  expect(freeWords({ ...found, devices: 0, free: 0, items: [] }, '')).toBe('No rentable device is selected.');
});

it('what the page shows stands in its address', () => {
  expect(queryOf(viewOf(''))).toBe('');
  for (const query of ['?view=list&state=held&customer=Ada+Ltd', '?device=cam-1&day=2026-12-10&days=7']) expect(queryOf(viewOf(query))).toBe(query);
  expect(viewOf('?state=lost&days=x')).toMatchObject({ list: false, state: undefined, days: 14 });
});
