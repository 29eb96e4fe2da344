import { describe, expect, it, vi } from 'vitest';

vi.hoisted(() => void (process.env.TZ = 'Europe/Vienna'));

import { Refused } from '../src/api/client';
import type { Customer } from '../src/api/types';
import { blockFrom, bookingFrom, itemPath, wholeMinutes, type BookingInput } from '../src/lib/booking';
import { Form } from '../src/state/form.svelte';

const ada = { id: 'k_1', name: 'Ada Ltd', contacts: [], created_at: '2026-12-01T00:00:00Z', version: 1 } as Customer;
const input = (of: Partial<BookingInput>): BookingInput => ({
  customer: 'ada ltd', what: 'device', device: ' cam-07 ', labels: '', profile: '', from: '2026-12-10T14:00', until: '2026-12-12T10:00',
  name: '', access: 'all', protocols: { ping: true, tcp: '22', udp: '' }, renters: null, allowance: '', cut: false, ssh: false, contacts: [], hold: false, holdUntil: '', reference: '', notes: '', ...of,
});
const booking = (of: Partial<BookingInput>) => bookingFrom(input(of), [ada], 'Europe/Vienna');

describe('a booking', () => {
  it('is sent with the id of the customer and the offsets of the zone', () => {
    expect(booking({})).toEqual({
      customer: 'k_1', time_zone: 'Europe/Vienna', notes: '',
      items: [{ device: 'cam-07', from: '2026-12-10T14:00:00+01:00', until: '2026-12-12T10:00:00+01:00' }],
    });
  });

  it('keeps its times over a change of the clock; an hour that is missing is the one after it', () => {
    const [item] = booking({ from: '2026-03-28T12:00', until: '2026-03-29T12:00' }).items;
    expect([item!.from, item!.until]).toEqual(['2026-03-28T12:00:00+01:00', '2026-03-29T12:00:00+02:00']);
    expect(booking({ from: '2026-03-29T02:30' }).items[0]!.from).toBe('2026-03-29T03:30:00+02:00');
  });

  it('begins now without a begin, and is held only if that is wanted', () => {
    expect('from' in booking({ from: '' }).items[0]!).toBe(false);
    expect('hold_until' in booking({ holdUntil: '2026-12-09T12:00' })).toBe(false);
    expect(booking({ hold: true, holdUntil: '2026-12-09T12:00', reference: ' order-1 ' })).toMatchObject({ hold_until: '2026-12-09T12:00:00+01:00', external_ref: 'order-1' });
  });

  it('takes any device by labels and profile, of which a wrong one stands at its field', async () => {
    const [item] = booking({ what: 'labels', labels: 'kind=camera, site=north' }).items;
    expect([item!.labels, 'device' in item!]).toEqual([{ kind: 'camera', site: 'north' }, false]);
    expect(booking({ what: 'labels', labels: 'kind=camera', profile: ' kiosk ' }).items[0]).toMatchObject({ labels: { kind: 'camera' }, profile: 'kiosk' });
    expect('labels' in booking({ what: 'labels', profile: 'kiosk' }).items[0]!).toBe(false);
    const form = new Form();
    const field = { label: 'Labels', path: itemPath('labels') };
    form.add(field);
    await form.send(async () => booking({ what: 'labels', labels: 'camera' }));
    expect(form.wrongOf(field)).toContain('"camera" is not a label');
  });

  it('lets all renters in by all that the device allows, unless some are chosen', () => {
    const [item] = booking({ access: 'some', name: ' lens ', renters: ['w_1'] }).items;
    expect(item).toMatchObject({ name: 'lens', access: [{ protocol: 'icmp', ports: [] }, { protocol: 'tcp', ports: [22] }], renters: ['w_1'] });
    expect(() => booking({ renters: [] })).toThrow('choose a renter');
  });

  it('has an allowance, logins and contacts only where they are wanted', () => {
    const [item] = booking({ allowance: '20 GB', cut: true, ssh: true, contacts: [{ name: '', email: 'ada@example.org' }, { name: '', email: '' }] }).items;
    expect(item).toMatchObject({ allowance_bytes: 20_000_000_000, cut_at_allowance: true, ssh: true, contacts: [{ email: 'ada@example.org' }] });
    expect('cut_at_allowance' in booking({ cut: true }).items[0]!).toBe(false);
    expect(() => booking({ allowance: '20' })).toThrow('"20" is no amount');
  });

  it('has what the API refuses at the field of its window', async () => {
    const form = new Form();
    const field = { label: 'Begin', path: itemPath('from') };
    form.add(field);
    const errors = [{ field: 'items[0].from', detail: 'lies in the past' }];
    await form.send(() => Promise.reject(new Refused(422, 'refused', { errors })));
    expect([form.wrongOf(field), form.wrong]).toEqual(['Begin: lies in the past', '']);
  });
});

it('a free window that begins within a minute begins at the next one, and is as long', () => {
  const at = (text: string): number => Date.parse(text);
  const moved = [at('2026-12-10T12:01:00Z'), at('2026-12-10T14:00:40Z')];
  expect(wholeMinutes(at('2026-12-10T12:00:20Z'), at('2026-12-10T14:00:00Z'))).toEqual(moved);
  expect(wholeMinutes(moved[0]!, moved[1]!)).toEqual(moved);
});

it('a block without times is sent without them', () => {
  expect(blockFrom({ from: '', until: '', reason: ' repair ', force: false })).toEqual({ reason: 'repair', force: false });
  expect(blockFrom({ from: '2026-12-10T14:00', until: '2026-12-11T14:00', reason: 'repair', force: true })).toEqual({
    reason: 'repair', force: true, from: '2026-12-10T14:00:00+01:00', until: '2026-12-11T14:00:00+01:00',
  });
});
