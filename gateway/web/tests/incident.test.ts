import { describe, expect, it } from 'vitest';
import type { Event, Notification } from '../src/api/types';
import { phaseOf, tally, timeline } from '../src/lib/incident';

const event = (seq: number, at: string, kind: string, principal = 'system'): Event => ({
  seq, at, kind, principal, object: 'incident', object_id: 'i_1', cause: 'why', evidence: '', data: {},
});

const told = (id: string, at: string, host: string, more: Partial<Notification> = {}): Notification => ({
  id, at, host, host_id: 'h_1', type: 'problem', state: 'down', previous_notified_state: 'up', since: at, cause: '', note: '',
  outcome: 'sent', outcomes: [], ...more,
});

describe('an incident', () => {
  it('is open, all well for a moment, over, or part of another', () => {
    expect(phaseOf({ state: 'open', open_members: 2 })).toBe('open');
    expect(phaseOf({ state: 'open', open_members: 0 })).toBe('well');
    expect(phaseOf({ state: 'closed', open_members: 0 })).toBe('over');
    expect(phaseOf({ state: 'merged', open_members: 0 })).toBe('merged');
  });

  it('counts what it knows to be hosts or services', () => {
    const at = '2026-01-01T00:00:00Z';
    const host = { host_name: 'cam-1', began_at: at, joined_at: at };
    const ssh = { ...host, service: 'ssh' };
    expect(tally({ open_members: 1, members: 1, listed: [host] })).toBe('1 host');
    expect(tally({ open_members: 8, members: 12, listed: [host] })).toBe('8 of 12 hosts');
    expect(tally({ open_members: 2, members: 2, listed: [ssh] })).toBe('2 services');
    expect(tally({ open_members: 2, members: 3, listed: [host, ssh] })).toBe('2 of 3');
  });
});

describe('what happened', () => {
  it('is told the newest first, with who did it', () => {
    const events = [event(2, '2026-01-01T00:01:00Z', 'incident.acknowledged', 'user:ada'), event(1, '2026-01-01T00:00:00Z', 'incident.opened')];
    const moments = timeline({ events, notifications: [told('n_1', '2026-01-01T00:00:30Z', 'cam-1')] });
    expect(moments.map(({ what, text, by }) => [what, text, by])).toEqual([
      ['Acknowledged', 'why', 'user:ada'],
      ['Told: down', 'cam-1', undefined],
      ['Opened', 'why', undefined],
    ]);
  });

  it('counts what was told together, and says why something was not', () => {
    const many = Array.from({ length: 30 }, (_, i) => told(`n_${i}`, `2026-01-01T00:00:${30 - i}Z`.replace(/:(\d)Z/, ':0$1Z'), `cam-${i}`));
    const held = told('n_99', '2026-01-01T00:00:40Z', 'cam-7', {
      outcome: 'held', service: 'ssh', outcomes: [{ outcome: 'held', reason: 'acknowledged', text: 'somebody knows', evidence: '', attempts: 0 }],
    });
    const moments = timeline({ events: [], notifications: [held, ...many] });
    expect(moments.map(({ what, text }) => [what, text])).toEqual([
      ['Told to nobody: down', 'cam-7/ssh (somebody knows)'],
      ['Told: down', 'cam-29, cam-28, cam-27 and 27 more'],
    ]);
  });
});
