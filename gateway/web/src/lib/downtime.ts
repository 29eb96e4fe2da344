/** Downtimes for people: what they cover, when they end, and how a change is sent. Pure. */

import type { Downtime, DowntimeChange } from '../api/types';

export type DowntimePhase = 'active' | 'planned' | 'ended' | 'cancelled';

export function phaseOf(downtime: Pick<Downtime, 'start' | 'end' | 'cancelled_at'>, now: number): DowntimePhase {
  if (downtime.cancelled_at) return 'cancelled';
  if (Date.parse(downtime.end) <= now) return 'ended';
  return Date.parse(downtime.start) <= now ? 'active' : 'planned';
}

/** `cam-07`, `cam-07/disk`, `hosts with site=north`, `disk of hosts with site=north`. */
export function scopeOf(downtime: Pick<Downtime, 'host' | 'host_name' | 'labels' | 'service'>): string {
  const { host, host_name, labels, service } = downtime;
  if (host) return service ? `${host_name ?? host}/${service}` : (host_name ?? host);
  const words = Object.entries(labels ?? {}).map(([key, value]) => `${key}=${value}`);
  return `${service ? `${service} of ` : ''}hosts with ${words.join(' ')}`;
}

/** `sun 02:00 to 04:00, Europe/Vienna`. */
export function recurrenceOf({ recurrence }: Pick<Downtime, 'recurrence'>): string {
  if (!recurrence) return '';
  const { every, from, to, time_zone } = recurrence;
  return `${every} ${from} to ${to}${time_zone ? `, ${time_zone}` : ''}`;
}

/** The fields that differ from the downtime as it is. */
export function changes(of: Downtime, to: { start: string; end: string; comment: string }): DowntimeChange {
  const same = (a: string, b: string): boolean => new Date(a).getTime() === new Date(b).getTime();
  return {
    ...(same(of.start, to.start) ? {} : { start: to.start }),
    ...(same(of.end, to.end) ? {} : { end: to.end }),
    ...(of.comment === to.comment ? {} : { comment: to.comment }),
  };
}

const two = (n: number): string => String(n).padStart(2, '0');

/** The value of `<input type="datetime-local">`, in the reader's own zone. */
export function toLocal(ms: number): string {
  const d = new Date(ms);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}T${two(d.getHours())}:${two(d.getMinutes())}`;
}

/** `undefined` for an empty or invalid value. */
export function fromLocal(text: string): number | undefined {
  const ms = text ? new Date(text).getTime() : Number.NaN;
  return Number.isNaN(ms) ? undefined : ms;
}
