import { describe, expect, it } from 'vitest';
import type { Host } from '../src/api/types';
import { arrange, Fleet, fromQuery, PLAIN, toQuery, type View } from '../src/lib/fleet';

const NONE = { ok: 0, warning: 0, critical: 0, unknown: 0, pending: 0, stale: 0 };

function host(name: string, more: { state?: string; reachable?: boolean; critical?: number; labels?: Record<string, string>; since?: string } = {}): Host {
  const { state = 'up', reachable = true, critical = 0, labels = {}, since = '2026-01-01T00:00:00Z' } = more;
  return {
    id: `h_${name}`, name, labels, profile: 'default', route: 'auto', address: '10.112.0.7', via: null, direct_address: null,
    state: { state, last_result: state, state_type: 'hard', attempt: 1, max_attempts: 3, reachable, stale: false, asleep: false, since, last_check: null, next_check: null, source: '', text: '' },
    tunnel: null, services: { ...NONE, critical }, created_at: since,
  } as Host;
}

const listed = (hosts: Host[]): readonly Host[] => {
  const fleet = new Fleet();
  hosts.forEach((one) => fleet.put(one));
  return fleet.byName();
};
const names = (hosts: Host[]): string[] => hosts.map(({ name }) => name);
const view = (change: Partial<View>): View => ({ ...PLAIN, ...change });

describe('a check that changed no state', () => {
  it('changes times and figures of the row alone', () => {
    const fleet = new Fleet();
    const before = { ...host('a'), tunnel: { public_key: 'k', rx_bytes: 1, last_packet: 'then' } } as Host;
    fleet.put({ ...before, state: { ...before.state, check_requested_at: 'then' } });
    fleet.patch({ id: 'h_a', last_check: 'now', tunnel: { rx_bytes: 2 } });
    const row = fleet.rows.get('h_a')!;
    expect(row.state).toMatchObject({ state: 'up', last_check: 'now', next_check: null });
    expect(row.state.check_requested_at).toBeUndefined();
    expect(row.tunnel).toMatchObject({ public_key: 'k', rx_bytes: 2, last_packet: 'then' });
    expect(fleet.byName()[0]).toBe(row);
  });

  it('makes no row', () => {
    const fleet = new Fleet();
    fleet.patch({ id: 'h_a', last_check: 'now' });
    expect(fleet.rows.size).toBe(0);
  });
});

describe('a load in pages', () => {
  it('does not undo what the stream said meanwhile', () => {
    const fleet = new Fleet();
    fleet.beginLoad();
    fleet.put(host('a', { state: 'down' }));
    fleet.remove('h_b');
    fleet.addPage([host('a'), host('b'), host('c')]);
    fleet.endLoad();
    expect(fleet.rows.get('h_a')!.state.state).toBe('down');
    expect([...fleet.rows.keys()].sort()).toEqual(['h_a', 'h_c']);
  });

  it('drops what is gone at its end, not before', () => {
    const fleet = new Fleet();
    fleet.put(host('old'));
    fleet.beginLoad();
    fleet.addPage([host('new')]);
    expect(fleet.rows.size).toBe(2);
    fleet.endLoad();
    expect([...fleet.rows.keys()]).toEqual(['h_new']);
  });

  it('keeps a host that appeared during it', () => {
    const fleet = new Fleet();
    fleet.beginLoad();
    fleet.put(host('fresh'));
    fleet.endLoad();
    expect(fleet.byNameOrId('fresh')?.id).toBe('h_fresh');
  });
});

describe('the list', () => {
  const fleet = listed([host('cam-10'), host('cam-2', { critical: 1 }), host('nas', { state: 'down', labels: { site: 'Berlin' } }), host('router', { state: 'down', reachable: false })]);

  it('counts like people do', () => expect(names(arrange(fleet, PLAIN))).toEqual(['cam-2', 'cam-10', 'nas', 'router']));

  it('goes from the worst on by state, equals by name', () => {
    expect(names(arrange(fleet, view({ sort: 'state' })))).toEqual(['nas', 'router', 'cam-2', 'cam-10']);
  });

  it('knows the later of two times in one second', () => {
    const times = ['2026-01-01T00:00:07Z', '2026-01-01T00:00:07.3Z', '2026-01-01T00:00:07.25Z'];
    const hosts = times.map((since, i) => host(`h${i}`, { since }));
    expect(names(arrange(listed(hosts), view({ sort: 'since' })))).toEqual(['h1', 'h2', 'h0']);
  });

  it('does not depend on the order of arrival', () => {
    expect(listed([...fleet].reverse())).toEqual(fleet);
  });

  it('shows the newest row and follows a new name', () => {
    const made = new Fleet();
    ['a', 'b', 'c'].forEach((name) => made.put(host(name)));
    made.byName();
    made.put(host('b', { state: 'down' }));
    expect(made.byName()[1]!.state.state).toBe('down');
    made.put({ ...host('a'), name: 'z' });
    expect(names([...made.byName()])).toEqual(['b', 'c', 'z']);
    made.remove('h_c');
    expect(names([...made.byName()])).toEqual(['b', 'z']);
  });

  it('finds every word somewhere', () => {
    expect(names(arrange(fleet, view({ query: 'site=berlin' })))).toEqual(['nas']);
    expect(names(arrange(fleet, view({ query: 'cam 10.112' })))).toEqual(['cam-2', 'cam-10']);
    expect(names(arrange(fleet, view({ query: 'cam berlin' })))).toEqual([]);
  });

  it('filters by the same partition as the strip counts', () => {
    expect(names(arrange(fleet, view({ state: 'down' })))).toEqual(['nas']);
    expect(names(arrange(fleet, view({ state: 'unreachable' })))).toEqual(['router']);
    expect(names(arrange(fleet, view({ service: 'critical' })))).toEqual(['cam-2']);
  });

  it('stands in the address and comes back from it', () => {
    const made = view({ query: 'site=a&b', state: 'down', service: 'warning', mark: 'stale', sort: 'since', reversed: true });
    expect(fromQuery(toQuery(made))).toEqual(made);
    expect(toQuery(PLAIN)).toBe('');
    expect(fromQuery('?state=nonsense&sort=__proto__')).toEqual(PLAIN);
  });

  it('arranges 10,000 rows in the time of a frame or two', () => {
    const many = listed(Array.from({ length: 10_000 }, (_, i) => host(`cam-${(i * 7919) % 10_000}`)));
    expect(arrange(many, view({ query: 'cam-77' })).length).toBe(111);
  });
});
