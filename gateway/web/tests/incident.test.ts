import { describe, expect, it } from 'vitest';
import type { Event, IncidentMember, Notification, Problem } from '../src/api/types';
import { outputOf, phaseOf, receipts, tally, timeline } from '../src/lib/incident';

const AT = '2026-01-01T00:00:00Z';

const event = (seq: number, at: string, kind: string, principal = 'system'): Event => ({
  seq, at, kind, principal, object: 'incident', object_id: 'i_1', cause: 'why', evidence: '', data: {},
});

type Outcome = Notification['outcomes'][number];

const mailed: Outcome = {
  outcome: 'sent', reason: 'sent', text: 'sent', evidence: '250 OK', attempts: 1, contact: 'default', channel: 'email', address: 'ops@example.com',
};
const suppressed: Outcome = { outcome: 'suppressed', reason: 'no_contact', text: 'add a contact', evidence: '', attempts: 0 };

const notified = (id: string, at: string, host: string, more: Partial<Notification> = {}): Notification => ({
  id, at, host, host_id: `h_${host}`, type: 'problem', state: 'down', previous_notified_state: 'up', since: at, cause: 'no answer', note: '',
  outcome: 'sent', outcomes: [mailed], ...more,
});

const member = (host: string, more: Partial<IncidentMember> = {}): IncidentMember => ({
  host: `h_${host}`, host_name: host, began_at: AT, joined_at: AT, ...more,
});

describe('an incident', () => {
  it('is open, recovered, closed, or merged into another', () => {
    expect(phaseOf({ state: 'open', open_members: 2 })).toBe('open');
    expect(phaseOf({ state: 'open', open_members: 0 })).toBe('recovered');
    expect(phaseOf({ state: 'closed', open_members: 0 })).toBe('closed');
    expect(phaseOf({ state: 'merged', open_members: 0 })).toBe('merged');
  });

  it('counts hosts and services by name where all are of one kind', () => {
    const [host, ssh] = [member('cam-1'), member('cam-1', { service: 'ssh' })];
    expect(tally({ open_members: 1, members: 1, listed: [host] })).toBe('1 host');
    expect(tally({ open_members: 8, members: 12, listed: [host] })).toBe('8 of 12 hosts');
    expect(tally({ open_members: 2, members: 2, listed: [ssh] })).toBe('2 services');
    expect(tally({ open_members: 2, members: 3, listed: [host, ssh] })).toBe('2 of 3');
  });
});

describe('the output of a member', () => {
  const problem = { host: 'h_cam-1', host_name: 'cam-1', service: 'disk', text: '/ 97 % used' } as Problem;
  const sources = { problems: [problem], notifications: [notified('n_1', AT, 'cam-2')], hostText: () => 'no answer to ping' };

  it('is that of the list of problems', () => expect(outputOf(member('cam-1', { service: 'disk' }), sources)).toBe('/ 97 % used'));

  it('is that of the host, if the list of problems does not have it', () => expect(outputOf(member('cam-2'), sources)).toBe('no answer to ping'));

  it('is that of the problem notification after the recovery', () => {
    expect(outputOf(member('cam-2', { left_at: AT }), sources)).toBe('no answer');
    expect(outputOf(member('cam-3', { left_at: AT }), sources)).toBe('');
  });
});

describe('who was notified', () => {
  it('is listed by address, the newest notification first, and with the reason where nothing was sent', () => {
    const list = [
      notified('n_3', '2026-01-01T00:03:00Z', 'cam-1', { type: 'recovery', state: 'up' }),
      notified('n_2', '2026-01-01T00:02:00Z', 'cam-2', { outcome: 'suppressed', outcomes: [suppressed] }),
      notified('n_1', '2026-01-01T00:01:00Z', 'cam-1'),
    ];
    expect(receipts(list).map(({ what, count, last, why }) => [what, count, last, why])).toEqual([
      ['Mailed ops@example.com', 2, 'recovery', ''],
      ['Not sent: no contact', 1, 'down', 'add a contact'],
    ]);
  });

  it('includes webhooks and what could not be sent', () => {
    const hook = { ...mailed, channel: 'webhook', address: 'hooks.example.com' };
    const failed = { ...mailed, outcome: 'given_up', text: 'the server refused it' };
    const found = receipts([notified('n_1', AT, 'cam-1', { outcomes: [failed, hook] })]);
    expect(found.map(({ what, why }) => [what, why])).toEqual([
      ['Posted to hooks.example.com', ''],
      ['Could not be sent to ops@example.com', 'the server refused it'],
    ]);
  });
});

describe('the timeline', () => {
  it('has the newest first, with the author', () => {
    const events = [event(2, '2026-01-01T00:01:00Z', 'incident.acknowledged', 'user:ada'), event(1, AT, 'incident.opened')];
    const moments = timeline({ events, notifications: [notified('n_1', '2026-01-01T00:00:30Z', 'cam-1')] });
    expect(moments.map(({ what, text, by }) => [what, text, by])).toEqual([
      ['Acknowledged', 'why', 'ada'],
      ['Mailed ops@example.com', 'down: cam-1', undefined],
      ['Opened', 'why', undefined],
    ]);
  });

  it('bundles notifications of one moment, apart from those that were not sent', () => {
    const many = Array.from({ length: 30 }, (_, i) => notified(`n_${i}`, `2026-01-01T00:00:${30 - i}Z`.replace(/:(\d)Z/, ':0$1Z'), `cam-${i}`));
    const held = notified('n_99', '2026-01-01T00:00:40Z', 'cam-7', { service: 'ssh', outcome: 'suppressed', outcomes: [{ ...suppressed, reason: 'acknowledged' }] });
    const moments = timeline({ events: [], notifications: [held, ...many] });
    expect(moments.map(({ what, text }) => [what, text])).toEqual([
      ['Not sent: acknowledged', 'down: cam-7/ssh'],
      ['Mailed ops@example.com', 'down: cam-29, cam-28, cam-27 and 27 more'],
    ]);
  });
});
