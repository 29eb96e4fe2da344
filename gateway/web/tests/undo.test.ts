import { describe, expect, it } from 'vitest';
import { inWords } from '../src/api/client';
import type { Downtime } from '../src/api/types';
import { confName, isShortened, loginSecret, mtuOf, mtuPatch, proposedEndpoint } from '../src/lib/device';
import { changes, fromLocal, phaseOf, recurrenceOf, scopeOf, toLocal } from '../src/lib/downtime';
import { phaseOf as tokenPhase, usesOf } from '../src/lib/token';
import { authorOf, endOf } from '../src/lib/who';

const downtime = (more: Partial<Downtime> = {}): Downtime => ({
  id: 'd_1', host: 'h_1', host_name: 'cam-1', start: '2026-01-01T10:00:00Z', end: '2026-01-01T12:00:00Z', fixed: true, author: 'user:ada', comment: 'disk',
  created_at: '2026-01-01T09:00:00Z', managed_by: 'api', ...more,
});
const at = (time: string): number => Date.parse(`2026-01-01T${time}Z`);

describe('a downtime', () => {
  it('is planned, active, ended or cancelled', () => {
    const times = ['09:59:59', '10:00:00', '11:59:59', '12:00:00'].map((time) => phaseOf(downtime(), at(time)));
    expect(times).toEqual(['planned', 'active', 'active', 'ended']);
    expect(phaseOf(downtime({ cancelled_at: '2026-01-01T10:30:00Z' }), at('11:00:00'))).toBe('cancelled');
  });

  it('names its object and recurrence', () => {
    expect(scopeOf(downtime())).toBe('cam-1');
    expect(scopeOf(downtime({ service: 'disk' }))).toBe('cam-1/disk');
    expect(scopeOf(downtime({ host: null, host_name: null, labels: { site: 'north', kind: 'cam' }, service: 'disk' }))).toBe('disk of hosts with site=north kind=cam');
    expect(recurrenceOf(downtime({ recurrence: { every: 'sun', from: '02:00', to: '04:00', time_zone: 'Europe/Vienna' } }))).toBe('sun 02:00 to 04:00, Europe/Vienna');
    expect(recurrenceOf(downtime())).toBe('');
  });

  it('sends only what was changed', () => {
    const former = downtime({ start: '2026-01-01T10:00:00Z', end: '2026-01-01T12:00:00Z', comment: 'works' });
    const same = { start: '2026-01-01T10:00:00.000Z', end: '2026-01-01T12:00:00.000Z', comment: 'works' };
    expect(changes(former, same)).toEqual({});
    expect(changes(former, { ...same, comment: 'longer' })).toEqual({ comment: 'longer' });
    expect(changes(former, { ...same, end: '2026-01-01T14:00:00Z' })).toEqual({ end: '2026-01-01T14:00:00Z' });
  });

  it('has times of the reader, to the minute', () => {
    const ms = new Date(2026, 2, 4, 5, 6, 7).getTime();
    expect(toLocal(ms)).toBe('2026-03-04T05:06');
    expect(fromLocal('2026-03-04T05:06')).toBe(ms - 7000);
    expect(fromLocal('')).toBeUndefined();
  });
});

describe('an acknowledgement', () => {
  it('names its author and end', () => {
    expect(['user:ada', 'user:ada/t_1', 'user:local', 'token:t_1'].map(authorOf)).toEqual(['ada', 'ada (token t_1)', 'the command line', 'token t_1']);
    expect(endOf({ sticky: true })).toBe('until it recovers');
    expect(endOf({ sticky: false })).toBe('until the state changes');
  });
});

describe('a configuration', () => {
  it('is saved under a name that wg-quick accepts', () => {
    expect(confName('cam-07')).toBe('cam-07.conf');
    expect(confName('exactly-15-char')).toBe('exactly-15-char.conf');
    expect(confName('bridge-north-camera-07')).toBe('bridge-north-ca.conf');
    expect(confName('bridge-north-x.-camera')).toBe('bridge-north-x.conf');
    expect([isShortened('cam-07'), isShortened('bridge-north-camera-07')]).toEqual([false, true]);
  });

  it('gets an endpoint that is proposed only if devices may reach it', () => {
    expect(proposedEndpoint('vpn.example.com', 51820)).toBe('vpn.example.com:51820');
    for (const host of ['localhost', '127.0.0.1', '[::1]', '10.1.2.3']) expect(proposedEndpoint(host, 51820), host).toBe('');
  });
});

it('a login link is found in pasted text', () => {
  expect(loginSecret(' https://gw.example/login#fgl_38h62q0e80001_9pht0gx\n')).toBe('fgl_38h62q0e80001_9pht0gx');
  expect(loginSecret('fgl_38h_9ph')).toBe('fgl_38h_9ph');
  expect(loginSecret('correct horse battery staple')).toBeUndefined();
});

describe('an enrolment token', () => {
  const token = { uses_left: 3, expires_at: '2026-01-01T12:00:00Z', revoked_at: null };

  it('is active until it is used up, expires or is revoked', () => {
    expect(tokenPhase(token, at('11:00:00'))).toBe('active');
    expect(tokenPhase(token, at('12:00:00'))).toBe('expired');
    expect(tokenPhase({ ...token, uses_left: 0 }, at('11:00:00'))).toBe('used');
    expect(tokenPhase({ ...token, revoked_at: '2026-01-01T10:00:00Z' }, at('11:00:00'))).toBe('revoked');
    expect(tokenPhase({ uses_left: null, expires_at: null }, at('11:00:00'))).toBe('active');
  });

  it('says how many devices may use it', () => expect([1, 20, null].map((uses_left) => usesOf({ uses_left }))).toEqual(['1 device left', '20 devices left', 'unlimited devices']));
});

it('a refused call names every wrong field', () => {
  expect(inWords({ detail: 'an operator is called "a" already' }, 409)).toBe('an operator is called "a" already');
  const errors = [{ field: 'name', detail: 'too long' }, { field: 'labels.site', detail: 'is empty' }];
  expect(inWords({ detail: 'name: too long', errors }, 422)).toBe('Name: too long; Site: is empty');
  expect(inWords({ code: 'changed_meanwhile', detail: 'load it again' }, 412)).toMatch(/^It was changed meanwhile/);
  expect(inWords({}, 502)).toBe('The gateway answered with status 502.');
});

it('an MTU is sent only if it was changed, and an empty field means the default', () => {
  expect([mtuOf(null), mtuOf(undefined), mtuOf(1400)]).toEqual(['1280 bytes (default)', '1280 bytes (default)', '1400 bytes']);
  expect([mtuPatch(undefined, null), mtuPatch(1400, 1400)]).toEqual([{}, {}]);
  expect([mtuPatch(null, 1400), mtuPatch(1400, null)]).toEqual([{ mtu: 1400 }, { mtu: null }]);
});
