/** Moments in the reader's own zone, with their offset. Pure apart from that zone. */

import { toLocal } from './downtime';

const two = (n: number): string => String(n).padStart(2, '0');

/** `+01:00`: the offset that holds at that moment. */
export function offsetOf(ms: number): string {
  const minutes = -new Date(ms).getTimezoneOffset();
  const size = Math.abs(minutes);
  return `${minutes < 0 ? '-' : '+'}${two(Math.floor(size / 60))}:${two(size % 60)}`;
}

/** RFC 3339 with the offset: `2026-12-10T14:00:00+01:00`. */
export function withOffset(ms: number): string {
  return `${toLocal(ms)}:${two(new Date(ms).getSeconds())}${offsetOf(ms)}`;
}

/** `Europe/Vienna`. */
export function zoneName(): string {
  return new Intl.DateTimeFormat().resolvedOptions().timeZone;
}

const MINUTES = { weekday: 'short', year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' } as const;
const MOMENT = new Intl.DateTimeFormat(undefined, MINUTES);

/** Weekday, date and time, to the minute. */
export function moment(ms: number): string {
  return MOMENT.format(ms);
}

/** `Thu, Dec 10, 2026, 14:00 (UTC+01:00)`. */
export function momentWithOffset(ms: number): string {
  return `${moment(ms)} (UTC${offsetOf(ms)})`;
}

/** A window, whose offset is said twice where it changes. Without an end: since, or from, its begin. */
export function windowOf(from: number, until: number | undefined): string {
  if (until === undefined) return `from ${momentWithOffset(from)}`;
  const changes = offsetOf(from) !== offsetOf(until);
  return `${changes ? momentWithOffset(from) : moment(from)} to ${momentWithOffset(until)}`;
}

/** The same window in another zone; empty for the reader's own zone and for one that the browser does not have. */
export function windowIn(zone: string | null | undefined, from: number, until: number): string {
  if (!zone || zone === zoneName()) return '';
  try {
    const format = new Intl.DateTimeFormat(undefined, { ...MINUTES, timeZone: zone });
    return `${format.format(from)} to ${format.format(until)}`;
  } catch {
    return '';
  }
}
