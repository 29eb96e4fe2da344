/** States, downtimes, rentals, incidents and events on the line of time of the graphs. Pure; in seconds since 1970. */

import type { Interval } from '../api/history';
import type { Downtime, Event, Incident, Rental } from '../api/types';
import { scopeOf } from './downtime';
import { titleOf } from './event';
import { millis } from './format';
import type { Window } from './graph';
import { endOf } from './rental';
import { kindOf, nameOf, severity, type Kind } from './states';

export interface Span extends Window {
  kind: Kind;
}

const seconds = (time: string | null | undefined): number | undefined => {
  const ms = millis(time);
  return ms === undefined ? undefined : ms / 1000;
};

/** The part within the window; `undefined` if there is none. */
function within(window: Window, from: number, to: number): Window | undefined {
  const part = { from: Math.max(from, window.from), to: Math.min(to, window.to) };
  return part.to > part.from ? part : undefined;
}

/** The hard states of a service, or of the host itself, in a window that ends now or earlier. */
export function statesOf(intervals: readonly Interval[], service: string | undefined, window: Window): Span[] {
  const own = intervals.filter((one) => one.series === 'state' && (one.service ?? undefined) === (service || undefined));
  const unreachable = service ? [] : intervals.filter((one) => one.series === 'unreachable');
  const spans = own.flatMap((one) => {
    const part = within(window, seconds(one.from) ?? 0, seconds(one.until) ?? window.to);
    return part ? [{ ...part, kind: kindOf(one.value ?? '') }] : [];
  });
  const over = unreachable.flatMap((one) => within(window, seconds(one.from) ?? 0, seconds(one.until) ?? window.to) ?? []);
  return spans.flatMap((span) => split(span, over)).sort((a, b) => a.from - b.from);
}

/** A host that is down while its parents are is unreachable. */
function split(span: Span, over: readonly Window[]): Span[] {
  if (span.kind !== 'down') return [span];
  const cuts = [span.from, span.to, ...over.flatMap(({ from, to }) => [from, to])].filter((at) => at >= span.from && at <= span.to);
  const ordered = [...new Set(cuts)].sort((a, b) => a - b);
  return ordered.slice(1).map((to, i) => {
    const from = ordered[i]!;
    const covered = over.some((one) => one.from <= from && one.to >= to);
    return { from, to, kind: covered ? ('unreachable' as const) : span.kind };
  });
}

/** Each interval once: what touches two parts of a time is in the answers of both. */
export function distinct(intervals: readonly Interval[]): Interval[] {
  return [...new Map(intervals.map((one) => [`${one.service ?? ''} ${one.series} ${one.from}`, one])).values()];
}

/** A bar of at most `most` cells: of several states in a cell the worst is shown, so that a short outage is seen. `spans` are in order of time. */
export function cellsOf(spans: readonly Span[], window: Window, most: number): Span[] {
  const width = (window.to - window.from) / most;
  const cells: Span[] = [];
  let first = 0;
  for (let i = 0; i < most; i += 1) {
    const [from, to] = [window.from + i * width, window.from + (i + 1) * width];
    while (first < spans.length && spans[first]!.to <= from) first += 1;
    let kind: Kind | undefined;
    for (let n = first; n < spans.length && spans[n]!.from < to; n += 1) {
      const one = spans[n]!.kind;
      if (kind === undefined || severity(one) > severity(kind)) kind = one;
    }
    if (kind === undefined) continue;
    const last = cells.at(-1);
    if (last && last.kind === kind && last.to === from) last.to = to;
    else cells.push({ from, to, kind });
  }
  return cells;
}

/** `OK 97.9 %, Critical 2.1 % in 2 spells`; the time without a known state counts as none. */
export function statesInWords(spans: readonly Span[]): string {
  const total = spans.reduce((sum, { from, to }) => sum + to - from, 0);
  if (total === 0) return 'no state known';
  const kinds = [...new Set(spans.map(({ kind }) => kind))].sort((a, b) => severity(a) - severity(b));
  return kinds
    .map((kind) => {
      const own = spans.filter((span) => span.kind === kind);
      const share = (own.reduce((sum, { from, to }) => sum + to - from, 0) * 100) / total;
      const percent = share >= 99.95 && kinds.length > 1 ? '> 99.9' : share < 0.05 ? '< 0.1' : String(Math.round(share * 10) / 10);
      return `${nameOf(kind)} ${percent} %`;
    })
    .join(', ');
}

export function stateAt(spans: readonly Span[], at: number): Kind | undefined {
  return spans.find(({ from, to }) => from <= at && at < to)?.kind;
}

export type MarkKind = 'downtime' | 'rental' | 'incident' | 'event';

export interface PastMark {
  key: string;
  kind: MarkKind;
  from: number;
  /** The same as `from`: a moment. */
  to: number;
  text: string;
  /** Where it leads. */
  path?: string;
  /** Only of this service. */
  service?: string;
}

/** Planned and recorded downtimes. Of a recurring one the recorded windows count: the plan has only the next. */
export function downtimeMarks(downtimes: readonly Downtime[], intervals: readonly Interval[], window: Window): PastMark[] {
  const planned = downtimes
    .filter((one) => !one.recurrence)
    .flatMap((one) => {
      const end = Math.min(seconds(one.end) ?? 0, seconds(one.cancelled_at) ?? Infinity);
      const part = within(window, seconds(one.start) ?? 0, end);
      if (!part) return [];
      return [{ key: one.id, kind: 'downtime' as const, ...part, text: `Downtime: ${one.comment || scopeOf(one)}`, path: '/downtimes', ...(one.service ? { service: one.service } : {}) }];
    });
  const recorded = intervals
    .filter(({ series }) => series === 'downtime')
    .flatMap((one) => {
      const part = within(window, seconds(one.from) ?? 0, seconds(one.until) ?? window.to);
      const service = one.service ?? undefined;
      const known = part && planned.some((mark) => mark.service === service && mark.from <= part.from + 1 && mark.to >= part.to - 1);
      if (!part || known) return [];
      return [{ key: `downtime ${service ?? ''} ${one.from}`, kind: 'downtime' as const, ...part, text: 'Downtime', path: '/downtimes', ...(service ? { service } : {}) }];
    });
  return [...planned, ...recorded];
}

export function rentalMarks(rentals: readonly Rental[], window: Window, nameOfCustomer: (id: string) => string): PastMark[] {
  return rentals
    .filter(({ state }) => state !== 'cancelled' && state !== 'failed' && state !== 'held')
    .flatMap((one) => {
      const part = within(window, seconds(one.from) ?? 0, endOf(one) / 1000);
      return part ? [{ key: one.id, kind: 'rental' as const, ...part, text: `Rental: ${nameOfCustomer(one.customer)}`, path: '/rentals' }] : [];
    });
}

export function incidentMarks(incidents: readonly Incident[], window: Window): PastMark[] {
  return incidents.flatMap((one) => {
    const part = within(window, seconds(one.opened_at) ?? 0, seconds(one.closed_at) ?? window.to);
    return part ? [{ key: one.id, kind: 'incident' as const, ...part, text: `Incident: ${one.text}`, path: `/incidents/${one.id}` }] : [];
  });
}

/** The first parts of kinds without marks: states have their bar, incidents their spans, and messages say nothing about the device. */
export const UNMARKED: readonly string[] = ['state', 'message', 'notification', 'incident', 'check', 'acknowledgement', 'downtime', 'rental', 'booking', 'grant', 'flapping'];

export function eventMarks(events: readonly Event[], window: Window): PastMark[] {
  return events.flatMap((one) => {
    const at = seconds(one.at) ?? 0;
    if (UNMARKED.includes(one.kind.split('.')[0]!) || at < window.from || at >= window.to) return [];
    const service = one.service ?? undefined;
    return [{ key: `event ${one.seq}`, kind: 'event' as const, from: at, to: at, text: `${titleOf(one)}${service ? `: ${service}` : ''}`, ...(service ? { service } : {}) }];
  });
}

/** The marks that a graph of a service has: its own and those of its host. */
export function marksFor(marks: readonly PastMark[], service: string | undefined): PastMark[] {
  return marks.filter((mark) => mark.service === undefined || mark.service === service);
}

/** What is marked in a part of the time: a row of the table. */
export function marksWithin(marks: readonly PastMark[], from: number, to: number): PastMark[] {
  return marks.filter((mark) => mark.from < to && (mark.to > from || mark.from >= from));
}

/** A kind of marks that is not drawn as a whole. */
export interface Unmarked {
  /** `Events`. */
  name: string;
  /** So many are marked, the newest ones. */
  newest?: number;
  /** Why none could be loaded. */
  wrong?: string;
}

/** `Events: only the newest 500 of this time are marked; zoom in to see the others`. */
export function unmarkedWords({ name, newest, wrong }: Unmarked): string {
  return newest === undefined ? `${name} could not be loaded: ${wrong}` : `${name}: only the newest ${newest} of this time are marked; zoom in to see the others`;
}

/** What is marked at a moment, and `near` seconds around moments. */
export function marksAt(marks: readonly PastMark[], at: number, near: number): PastMark[] {
  return marks.filter((mark) => (mark.to > mark.from ? mark.from <= at && at < mark.to : Math.abs(mark.from - at) <= near));
}
