/** What the page of comparisons shows: its place in the address, and its lines. Pure. */

import type { QueriedSeries, QueryLimits } from '../api/history';
import type { Host } from '../api/types';
import { columnsOf } from './spark';
import { alignedOf, summaryOf, type Summary } from './samples';

export interface Comparison {
  hosts: string[];
  /** `key=value`; a host has all of them. */
  labels: string[];
  service: string;
  metric: string;
  /** The key of a label, `all`, or empty: each host. */
  groupBy: string;
}

export function comparisonOf(search: string): Comparison {
  const query = new URLSearchParams(search);
  const labels = query.getAll('label').filter((label) => /^[^=]+=/.test(label));
  return { hosts: query.getAll('host').filter(Boolean), labels, service: query.get('service') ?? '', metric: query.get('metric') ?? '', groupBy: query.get('group_by') ?? '' };
}

/** The query of an address; the window in it stays. */
export function comparisonSearch(search: string, { hosts, labels, service, metric, groupBy }: Comparison): string {
  const query = new URLSearchParams(search);
  for (const key of ['host', 'label', 'service', 'metric', 'group_by']) query.delete(key);
  hosts.forEach((host) => query.append('host', host));
  labels.forEach((label) => query.append('label', label));
  if (service) query.set('service', service);
  if (metric) query.set('metric', metric);
  if (groupBy) query.set('group_by', groupBy);
  const text = query.toString();
  return text ? `?${text}` : '';
}

/** Whether there is something to ask for. */
export function isComplete({ hosts, labels, metric }: Comparison): boolean {
  return metric !== '' && (hosts.length > 0 || labels.length > 0);
}

/** The hosts that a comparison selects, as far as the page knows them. */
export function selectedOf(hosts: readonly Host[], { hosts: named, labels }: Pick<Comparison, 'hosts' | 'labels'>): Host[] {
  if (named.length === 0 && labels.length === 0) return [];
  const pairs = labels.map((label) => [label.slice(0, label.indexOf('=')), label.slice(label.indexOf('=') + 1)] as const);
  return hosts.filter((host) => (named.length === 0 || named.includes(host.name) || named.includes(host.id)) && pairs.every(([key, value]) => host.labels[key] === value));
}

/** `key=value` of all hosts, those of the most hosts first. */
export function labelsOf(hosts: readonly Host[]): string[] {
  const counts = new Map<string, number>();
  for (const { labels } of hosts) for (const [key, value] of Object.entries(labels)) counts.set(`${key}=${value}`, (counts.get(`${key}=${value}`) ?? 0) + 1);
  return [...counts].sort(([a, m], [b, n]) => n - m || a.localeCompare(b)).map(([label]) => label);
}

export interface Compared {
  key: string;
  name: string;
  /** The host that it leads to. */
  host: string | undefined;
  hosts: number | undefined;
  uom: string;
  summary: Summary | undefined;
  values: readonly (number | null | undefined)[];
  /** Of a group: the worst of its hosts, by its limits. */
  worst: readonly (number | null)[] | undefined;
  limits: QueryLimits | undefined;
  /** The number of its colour. Only so many can be told apart. */
  color: number | 'quiet';
}

/** The highest average first; those get the colours. What has another unit than the first series has no place on its axis: it comes last. */
export function comparedOf(series: readonly QueriedSeries[], colors: number, groupBy: string): Compared[] {
  const uom = series[0]?.uom ?? '';
  const rows = series.map((one) => {
    const columns = columnsOf(one);
    const name = one.host ?? (groupBy === 'all' ? 'all hosts' : one.group || `without ${groupBy}`);
    return {
      key: one.host_id ?? `group ${one.group ?? ''} ${one.uom}`, name, host: one.host ?? undefined, hosts: one.hosts ?? undefined, uom: one.uom,
      summary: summaryOf(columns), values: alignedOf(columns), worst: one.worst ?? undefined, limits: one.limits ?? undefined,
    };
  });
  const foreign = (row: { uom: string }): number => Number(row.uom !== uom);
  const ordered = rows.sort((a, b) => foreign(a) - foreign(b) || (b.summary?.avg ?? -Infinity) - (a.summary?.avg ?? -Infinity) || a.name.localeCompare(b.name));
  return ordered.map((row, i) => ({ ...row, color: row.summary && i < colors && !foreign(row) ? i : 'quiet' }));
}
