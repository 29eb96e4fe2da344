/** Grants for people: who, what, by which protocols, and when. Pure. */

import type { Grant, GrantAccess, GrantSource, GrantTarget, Host } from '../api/types';
import { plural } from './format';

export type GrantPhase = 'active' | 'pending' | 'ended' | 'withdrawn';

/** The state by the page's clock: a window begins and ends without an event. */
export function phaseOf(grant: Pick<Grant, 'from' | 'until' | 'withdrawn_at'>, now: number): GrantPhase {
  if (grant.withdrawn_at) return 'withdrawn';
  if (grant.until && Date.parse(grant.until) <= now) return 'ended';
  return grant.from && Date.parse(grant.from) > now ? 'pending' : 'active';
}

/** `User anna`, `Role operator`, `Operator anna-laptop`. */
export function sourceOf(source: GrantSource): string {
  if (source.user) return `User ${source.user}`;
  if (source.peer) return `Operator ${source.peer}`;
  return `Role ${source.role ?? ''}`;
}

/** `cam-07`, `hosts with site=north kind=nas`, `every device`. */
export function targetOf(target: GrantTarget): string {
  if (target.host) return target.host;
  if (!target.labels) return 'every device';
  return `hosts with ${Object.entries(target.labels).map(([key, value]) => `${key}=${value}`).join(' ')}`;
}

/** `User anna to cam-07`, the name of a grant in sentences and for screen readers. */
export function nameOf(grant: Pick<Grant, 'source' | 'target'>): string {
  return `${sourceOf(grant.source)} to ${targetOf(grant.target)}`;
}

/** `ping`, `TCP 22, 8000-8100`: one text per protocol. */
export function accessOf(access: readonly GrantAccess[]): string[] {
  return access.map(({ protocol, ports }) => (protocol === 'icmp' ? 'ping' : `${protocol.toUpperCase()} ${(ports ?? []).join(', ')}`));
}

/** Ports as people type them. The API names those that are none, and takes no number with more digits. */
export function parsePorts(text: string): (number | string)[] {
  const words = text.split(/[\s,]+/).filter(Boolean);
  return words.map((word) => (/^\d{1,5}$/.test(word) ? Number(word) : word));
}

export interface Protocols {
  ping: boolean;
  tcp: string;
  udp: string;
}

/** The access of a form; a protocol without ports is left out. */
export function accessFrom({ ping, tcp, udp }: Protocols): GrantAccess[] {
  const entry = (protocol: 'tcp' | 'udp', text: string): GrantAccess[] => {
    const ports = parsePorts(text);
    return ports.length > 0 ? [{ protocol, ports }] : [];
  };
  return [...(ping ? [{ protocol: 'icmp' as const, ports: [] }] : []), ...entry('tcp', tcp), ...entry('udp', udp)];
}

/** A form with the access as it is; the ports as people type them. */
export function protocolsOf(access: readonly GrantAccess[]): Protocols {
  const ports = (protocol: 'tcp' | 'udp'): string => access.filter((entry) => entry.protocol === protocol).flatMap((entry) => entry.ports ?? []).join(', ');
  return { ping: access.some((entry) => entry.protocol === 'icmp'), tcp: ports('tcp'), udp: ports('udp') };
}

/** What a form proposes. */
export const USUAL: Protocols = { ping: true, tcp: '22, 80, 443', udp: '' };

/** Where the API finds the ports of a protocol in the access at `path`; `undefined` if the form has none of it. */
export function portsPath(protocols: Protocols, protocol: 'tcp' | 'udp', path = 'access'): string | undefined {
  const at = accessFrom(protocols).findIndex((entry) => entry.protocol === protocol);
  return at < 0 ? undefined : `${path}[${at}].ports`;
}

type Selectable = Pick<Host, 'id' | 'name' | 'labels' | 'via' | 'tunnel'>;

/** Has the same rules as the gateway: only what a tunnel leads to, and hosts behind a device only by name or label. */
export function selects(target: GrantTarget, host: Selectable): boolean {
  if (!host.tunnel && !host.via) return false;
  if (target.host) return target.host === host.name || target.host === host.id;
  if (target.labels) return Object.entries(target.labels).every(([key, value]) => host.labels[key] === value);
  return !host.via;
}

/** Names that a preview of a selection lists. */
const NAMED = 5;

/** `3 hosts now: a, b, c`; empty for a selection that selects none. */
export function selectionOf(hosts: readonly Pick<Host, 'name'>[]): string {
  if (hosts.length === 0) return '';
  const names = hosts.slice(0, NAMED).map((host) => host.name);
  return `${plural(hosts.length, 'host')} now: ${names.join(', ')}${hosts.length > NAMED ? ', ...' : ''}`;
}

const HOUR = 3_600_000;

/** Lengths of a window that a form offers. */
export const LASTS = [HOUR, 8 * HOUR, 24 * HOUR, 7 * 24 * HOUR];
