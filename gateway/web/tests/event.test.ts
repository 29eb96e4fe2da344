import { describe, expect, it } from 'vitest';
import type { Event } from '../src/api/types';
import { causeOf, titleOf } from '../src/lib/event';

const changed = (seq: number, data: Record<string, unknown>): Event => ({
  seq, at: '', kind: 'service.changed', object: 'host', principal: 'user:ada', cause: 'service changed', evidence: '', data,
});
const limits = (seq: number, ...thresholds: object[]): Event => changed(seq, { service: 'disk', disabled: false, settings: { thresholds } });

describe('an event', () => {
  it('has a title in words', () => {
    const titles = ['notification.suppressed', 'device.created', 'renter.rekeyed', 'person.removed', 'incident.opened', 'flapping.started', 'a_word.of_tomorrow'].map((kind) => titleOf({ kind }));
    expect(titles).toEqual(['Notification not sent', 'Device added', 'Configuration reissued', 'Person removed', 'Opened', 'Flapping started', 'A word of tomorrow']);
  });

  it('of a changed service names the limits, with the former ones where they are known', () => {
    const [before, now] = [limits(1, { metric: 'used', warn: '80', crit: '95' }), limits(2, { metric: 'used', warn: '90', crit: '95' })];
    expect(causeOf(now, [before])).toBe('disk: warning limit 80 -> 90');
    expect(causeOf(now, [])).toBe('disk: warning limit 90, critical limit 95');
    const previous = { thresholds: [{ metric: 'used', warn: '70', crit: '95' }] };
    const whole = changed(2, { service: 'disk', disabled: false, settings: { thresholds: [{ metric: 'used', warn: '90', crit: '95' }] }, previous });
    expect(causeOf(whole, [before])).toBe('disk: warning limit 70 -> 90');
    expect(causeOf(limits(3), [now])).toBe('disk: warning limit 90 removed, critical limit 95 removed');
    expect(causeOf(limits(2, { metric: 'used', warn: '80' }, { metric: 'inodes', warn: '70' }), [])).toBe('disk: used warning limit 80, inodes warning limit 70');
  });

  it('of a disabled service says so, and any other has its own cause', () => {
    expect(causeOf(changed(1, { service: 'disk', disabled: true, settings: {} }), [])).toBe('disk: disabled');
    const of = (kind: string, cause: string) => causeOf({ ...changed(1, {}), kind, cause }, []);
    expect(of('ssh.key_pinned', 'first contact')).toBe('first contact');
    expect(of('device.created', 'added')).toBe('');
  });
});
