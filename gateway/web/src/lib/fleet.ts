/**
 * The rows of the host list: loaded in pages, patched by the event stream. Pure: promises that
 * whatever comes over the stream while a load runs is newer than the pages, and that the order is
 * total, so that rows do not jump among equals.
 */

import type { Host } from '../api/types';
import { type HostKind, hostPart, hostSeverity, SERVICE_STATES, type ServiceKind } from './states';

/** A result or packet that changed no state. An absent field is as before. */
export interface Checked {
  id: string;
  last_check?: string;
  next_check?: string;
  tunnel?: Partial<NonNullable<Host['tunnel']>>;
}

export class Fleet {
  readonly rows = new Map<string, Host>();
  /** Hosts that the stream changed since the load began: pages must not undo that. */
  private touched: Set<string> | undefined;
  /** Hosts that the load has not seen yet. Those left at its end were removed. */
  private unseen = new Set<string>();
  /** All rows by name, and the place of each. Recomputed when a name is added, removed or changed. */
  private sorted: Host[] | undefined;
  private places = new Map<string, number>();

  /** Begins a load from the first page. Rows that were removed disappear at its end. */
  beginLoad(): void {
    this.touched = new Set();
    this.unseen = new Set(this.rows.keys());
  }

  addPage(hosts: Host[]): void {
    for (const host of hosts) {
      this.unseen.delete(host.id);
      if (!this.touched?.has(host.id)) this.set(host);
    }
  }

  endLoad(): void {
    for (const id of this.unseen) {
      if (!this.touched?.has(id)) this.drop(id);
    }
    this.unseen.clear();
    this.touched = undefined;
  }

  put(host: Host): void {
    this.touched?.add(host.id);
    this.set(host);
  }

  /** Ignores a host without a row: its page brings it. */
  patch(checked: Checked): void {
    const row = this.rows.get(checked.id);
    if (!row) return;
    const { last_check = row.state.last_check, next_check = row.state.next_check } = checked;
    const tunnel = row.tunnel && { ...row.tunnel, ...checked.tunnel };
    // A result answers the request for a check.
    const check_requested_at = checked.last_check ? undefined : row.state.check_requested_at;
    this.set({ ...row, tunnel, state: { ...row.state, last_check, next_check, check_requested_at } });
  }

  remove(id: string): void {
    this.touched?.add(id);
    this.drop(id);
  }

  /** `cam-2` before `cam-10`. Cheap while names stay: 10,000 rows change several times a second. */
  byName(): readonly Host[] {
    if (!this.sorted) {
      this.sorted = [...this.rows.values()].sort((a, b) => names.compare(a.name, b.name) || byText(a.id, b.id));
      this.places = new Map(this.sorted.map((host, place) => [host.id, place]));
    }
    return this.sorted;
  }

  private set(host: Host): void {
    const same = this.rows.get(host.id)?.name === host.name;
    this.rows.set(host.id, host);
    const place = same ? this.places.get(host.id) : undefined;
    if (this.sorted && place !== undefined) this.sorted[place] = host;
    else this.sorted = undefined;
  }

  private drop(id: string): void {
    if (this.rows.delete(id)) this.sorted = undefined;
  }

  byNameOrId(key: string): Host | undefined {
    const direct = this.rows.get(key);
    if (direct) return direct;
    for (const host of this.rows.values()) if (host.name === key) return host;
    return undefined;
  }
}

export const SORTS = ['name', 'state', 'since', 'packet', 'check'] as const;
export type SortKey = (typeof SORTS)[number];

export interface View {
  query: string;
  state: HostKind | undefined;
  /** Hosts with at least one service in that state. */
  service: ServiceKind | undefined;
  /** The other counters. */
  mark: 'stale' | 'handled' | 'asleep' | undefined;
  sort: SortKey;
  /** Reverses the usual order of the column. */
  reversed: boolean;
}

export const PLAIN: View = {
  query: '', state: undefined, service: undefined, mark: undefined, sort: 'name', reversed: false,
};

export function isFiltered(view: View): boolean {
  return Boolean(view.query.trim() || view.state || view.service || view.mark);
}

function wordsOf(query: string): string[] {
  return query.toLowerCase().split(/\s+/).filter(Boolean);
}

/** Every word must occur in the name, an address, a label (`site=berlin`) or the profile. */
function matches(host: Host, view: View, words: string[]): boolean {
  if (view.state && hostPart(host) !== view.state) return false;
  if (view.service && host.services[view.service] === 0) return false;
  if (view.mark === 'stale' && hostPart(host) !== 'stale') return false;
  if (view.mark === 'handled' && hostPart(host) !== 'handled') return false;
  if (view.mark === 'asleep' && !host.state.asleep) return false;
  if (words.length === 0) return true;
  const text = searchable(host);
  return words.every((word) => text.includes(word));
}

const texts = new WeakMap<Host, string>();

/** Kept per row object: typing in the search box asks for 10,000 of them at each key. */
function searchable(host: Host): string {
  let text = texts.get(host);
  if (text === undefined) {
    const labels = Object.entries(host.labels).map(([key, value]) => `${key}=${value}`);
    const addresses = [host.address, host.direct_address, host.tunnel?.endpoint, host.via];
    text = [host.name, host.id, host.profile, ...addresses, ...labels].join('\n').toLowerCase();
    texts.set(host, text);
  }
  return text;
}

type Compare = (a: Host, b: Host) => number;

type Time = string | null | undefined;

const byText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** Without the "Z" the times of the API sort as texts, also those without a fraction of a second. */
const bare = (time: Time): string => time?.slice(0, -1) ?? '';
const latestFirst = (a: Time, b: Time): number => byText(bare(b), bare(a));

const names = new Intl.Collator('en', { numeric: true });

const COMPARE: Record<Exclude<SortKey, 'name'>, Compare> = {
  state: (a, b) => hostSeverity(b) - hostSeverity(a),
  since: (a, b) => latestFirst(a.state.since, b.state.since),
  packet: (a, b) => latestFirst(b.tunnel?.last_packet, a.tunnel?.last_packet),
  check: (a, b) => latestFirst(b.state.last_check, a.state.last_check),
};

/** `hosts` are sorted by name; equal rows keep that order in both directions. */
export function arrange(hosts: readonly Host[], view: View): Host[] {
  const words = wordsOf(view.query);
  const found = hosts.filter((host) => matches(host, view, words));
  if (view.sort === 'name') return view.reversed ? found.reverse() : found;
  const compare = COMPARE[view.sort];
  const sign = view.reversed ? -1 : 1;
  return found.sort((a, b) => sign * compare(a, b));
}

/** Converts the view to the query of the address and back. Defaults are left out. */
export function toQuery(view: View): string {
  const query = new URLSearchParams();
  if (view.query.trim()) query.set('q', view.query.trim());
  if (view.state) query.set('state', view.state);
  if (view.service) query.set('service', view.service);
  if (view.mark) query.set('mark', view.mark);
  if (view.sort !== PLAIN.sort) query.set('sort', view.sort);
  if (view.reversed) query.set('reversed', '1');
  const text = query.toString();
  return text ? `?${text}` : '';
}

export function fromQuery(text: string): View {
  const query = new URLSearchParams(text);
  const one = <T extends string>(key: string, of: readonly T[]): T | undefined =>
    of.find((value) => value === query.get(key));
  return {
    query: query.get('q') ?? '',
    state: one('state', ['up', 'down', 'unreachable', 'pending'] as const),
    service: one('service', SERVICE_STATES),
    mark: one('mark', ['stale', 'handled', 'asleep'] as const),
    sort: one('sort', SORTS) ?? PLAIN.sort,
    reversed: query.get('reversed') === '1',
  };
}
