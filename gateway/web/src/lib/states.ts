/** The states, their names and their severity. Pure. */

import type { Host, HostCounts, ServiceCounts } from '../api/types';

/** The partition of the hosts; exactly one fits each host. */
export const HOST_STATES = ['up', 'down', 'unreachable', 'pending'] as const;
export const SERVICE_STATES = ['ok', 'warning', 'critical', 'unknown', 'pending'] as const;
export type HostKind = (typeof HOST_STATES)[number];
export type ServiceKind = (typeof SERVICE_STATES)[number];
export type Kind = HostKind | ServiceKind;

const NAMES: Record<Kind, string> = {
  up: 'Up',
  down: 'Down',
  unreachable: 'Unreachable',
  pending: 'Pending',
  ok: 'OK',
  warning: 'Warning',
  critical: 'Critical',
  unknown: 'Unknown',
};

/** The most severe last. */
const SEVERITY: Kind[] = ['up', 'ok', 'pending', 'unknown', 'unreachable', 'warning', 'critical', 'down'];

export function hostKind(host: Pick<Host, 'state'>): HostKind {
  const { state, reachable } = host.state;
  if (state === 'up' || state === 'pending') return state;
  return reachable ? 'down' : 'unreachable';
}

/** The counter that a host is in: its problem, or `handled`. */
export type HostPart = HostKind | 'stale' | 'handled';

export function isHandled(of: { acknowledged?: boolean; in_downtime?: boolean }): boolean {
  return Boolean(of.acknowledged || of.in_downtime);
}

/** Has the same rules as the counters of the server. */
export function hostPart(host: Pick<Host, 'state'>): HostPart {
  const kind = hostKind(host);
  const { stale, asleep } = host.state;
  const problem = kind === 'up' ? stale && !asleep : kind !== 'pending';
  if (!problem) return kind;
  if (isHandled(host.state)) return 'handled';
  return kind === 'up' ? 'stale' : kind;
}

/** A state that this page does not know is shown as unknown rather than hidden. */
export function kindOf(word: string): Kind {
  return word in NAMES ? (word as Kind) : 'unknown';
}

export function nameOf(kind: Kind): string {
  return NAMES[kind];
}

const SOURCES: Record<string, string> = {
  evidence: 'tunnel packet',
  echo: 'ping',
  tcp: 'TCP',
  ssh: 'SSH',
  handshake: 'handshake',
  direct: 'direct address',
  passive: 'passive result',
  silence: 'no result in time',
};

/** The source of a host's last result. */
export function sourceOf(source: string): string {
  return SOURCES[source] ?? source;
}

export function severity(kind: Kind): number {
  return SEVERITY.indexOf(kind);
}

export function hostsTotal(counts: HostCounts): number {
  return HOST_STATES.reduce((sum, kind) => sum + counts[kind], counts.stale + (counts.handled ?? 0));
}

export function servicesTotal(counts: ServiceCounts): number {
  return SERVICE_STATES.reduce((sum, kind) => sum + counts[kind], counts.stale + (counts.handled ?? 0));
}

/** The severity of a row: first its own state, then those of its services, then handled problems. */
export function hostSeverity(host: Host): number {
  const own = hostPart(host);
  if (own === 'handled') return severity('ok') + 0.5;
  if (own === 'stale') return severity('unknown') * 10;
  if (own !== 'up') return severity(own) * 10;
  const worst = SERVICE_STATES.filter((kind) => host.services[kind] > 0).map(severity);
  return Math.max(0, ...worst);
}
