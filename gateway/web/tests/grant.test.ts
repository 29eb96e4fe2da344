import { describe, expect, it } from 'vitest';
import { accessFrom, accessOf, nameOf, parsePorts, phaseOf, portsPath, protocolsOf, selectionOf, selects, sourceOf, targetOf } from '../src/lib/grant';
import type { Host } from '../src/api/types';

const at = (time: string): number => Date.parse(`2026-01-01T${time}Z`);
const times = { from: '2026-01-01T10:00:00Z', until: '2026-01-01T12:00:00Z', withdrawn_at: null };
const host = (name: string, of: Partial<Host>) => ({ id: `h_${name}`, name, labels: {}, via: null, tunnel: null, ...of }) as Host;

describe('a grant', () => {
  it('is pending, active and ended by its window, whose end is excluded', () => {
    const phases = ['09:59:59', '10:00:00', '11:59:59', '12:00:00'].map((time) => phaseOf(times, at(time)));
    expect(phases).toEqual(['pending', 'active', 'active', 'ended']);
    expect(phaseOf({ from: null, until: null, withdrawn_at: null }, at('11:00:00'))).toBe('active');
    expect(phaseOf({ ...times, withdrawn_at: '2026-01-01T11:00:00Z' }, at('11:30:00'))).toBe('withdrawn');
  });

  it('names who, what and by which protocols', () => {
    expect([{ user: 'anna' }, { role: 'operator' as const }, { peer: 'anna-laptop' }].map(sourceOf)).toEqual(['User anna', 'Role operator', 'Operator anna-laptop']);
    expect([{ host: 'cam-07' }, { labels: { site: 'north', kind: 'nas' } }, { all_devices: true }].map(targetOf)).toEqual(['cam-07', 'hosts with site=north kind=nas', 'every device']);
    expect(nameOf({ source: { user: 'anna' }, target: { host: 'cam-07' } })).toBe('User anna to cam-07');
    expect(accessOf([{ protocol: 'icmp', ports: [] }, { protocol: 'tcp', ports: [22, '8000-8100'] }])).toEqual(['ping', 'TCP 22, 8000-8100']);
  });

  it('takes ports as they are typed, and leaves what is wrong to the API', () => {
    expect(parsePorts(' 22, 443 8000-8100 ssh')).toEqual([22, 443, '8000-8100', 'ssh']);
    expect(accessFrom({ ping: true, tcp: '22', udp: ' ' })).toEqual([{ protocol: 'icmp', ports: [] }, { protocol: 'tcp', ports: [22] }]);
    expect(accessFrom({ ping: false, tcp: '', udp: '' })).toEqual([]);
    expect(parsePorts('99999999999999999999')).toEqual(['99999999999999999999']);
    expect(portsPath({ ping: true, tcp: '22', udp: '53' }, 'udp')).toBe('access[2].ports');
    expect(portsPath({ ping: false, tcp: '22', udp: '53' }, 'tcp')).toBe('access[0].ports');
    expect(portsPath({ ping: true, tcp: ' ', udp: '' }, 'tcp')).toBeUndefined();
  });

  it('has its access in a form as people type it', () => {
    expect(protocolsOf([{ protocol: 'tcp', ports: [22, '8000-8100'] }, { protocol: 'icmp' }])).toEqual({ ping: true, tcp: '22, 8000-8100', udp: '' });
    expect(protocolsOf([{ protocol: 'udp', ports: [53] }])).toEqual({ ping: false, tcp: '', udp: '53' });
    expect(portsPath({ ping: true, tcp: '22', udp: '' }, 'tcp', 'items[0].access')).toBe('items[0].access[1].ports');
  });

  it('selects what the gateway selects', () => {
    const camera = host('cam', { tunnel: {} as Host['tunnel'], labels: { site: 'north' } });
    const behind = host('nas', { via: 'cam', labels: { site: 'north' } });
    const outside = host('pub', { labels: { site: 'north' } });
    const names = (target: Parameters<typeof selects>[0]) => [camera, behind, outside].filter((one) => selects(target, one)).map(({ name }) => name);
    expect(names({ all_devices: true })).toEqual(['cam']);
    expect(names({ labels: { site: 'north' } })).toEqual(['cam', 'nas']);
    expect(names({ labels: { site: 'nort' } })).toEqual([]);
    expect([names({ host: 'nas' }), names({ host: 'h_nas' }), names({ host: 'pub' })]).toEqual([['nas'], ['nas'], []]);
    expect(selectionOf([camera, behind])).toBe('2 hosts now: cam, nas');
    expect(selectionOf(Array.from({ length: 6 }, () => camera))).toBe('6 hosts now: cam, cam, cam, cam, cam, ...');
    expect(selectionOf([])).toBe('');
  });
});
