/** The window of time that graphs show: its place in the address, and how keys and pointers move it. Pure; in whole seconds since 1970. */

/** `[from, to)`. */
export interface Window {
  from: number;
  to: number;
}

const HOUR = 3600;
const DAY = 24 * HOUR;

/** What the page offers, ending now. */
export const RANGES = [
  { name: '1h', text: '1 h', seconds: HOUR },
  { name: '6h', text: '6 h', seconds: 6 * HOUR },
  { name: '24h', text: '24 h', seconds: DAY },
  { name: '7d', text: '7 d', seconds: 7 * DAY },
  { name: '30d', text: '30 d', seconds: 30 * DAY },
  { name: '90d', text: '90 d', seconds: 90 * DAY },
  { name: '1y', text: '1 y', seconds: 365 * DAY },
  { name: '3y', text: '3 y', seconds: 3 * 365 * DAY },
] as const;

export type RangeName = (typeof RANGES)[number]['name'];

const USUAL: RangeName = '24h';
export const SHORTEST = 2 * 60;
export const LONGEST = 20 * 366 * DAY;

/** A range that ends now, or a free one; and what is zoomed into. */
export interface View {
  range: RangeName;
  free?: Window;
  zoom?: Window;
}

/** The seconds of a range. */
export function secondsOf(range: RangeName): number {
  return RANGES.find(({ name }) => name === range)!.seconds;
}

function whole(text: string | null | undefined): number | undefined {
  return text && /^\d{1,11}$/.test(text) ? Number(text) : undefined;
}

function windowFrom(from: number | undefined, to: number | undefined): Window | undefined {
  if (from === undefined || to === undefined || to - from < SHORTEST || to - from > LONGEST) return undefined;
  return { from, to };
}

/** `?range=30d`, or `?from=&to=`; and `&zoom=FROM-TO`. What is not valid counts as absent. */
export function viewOf(search: string): View {
  const query = new URLSearchParams(search);
  const range = RANGES.find(({ name }) => name === query.get('range'))?.name ?? USUAL;
  const free = windowFrom(whole(query.get('from')), whole(query.get('to')));
  const [from, to] = (query.get('zoom') ?? '').split('-');
  const zoom = windowFrom(whole(from), whole(to));
  return { range, ...(free ? { free } : {}), ...(zoom ? { zoom } : {}) };
}

/** The query of an address with this view; its other parts stay. */
export function searchOf(search: string, view: View): string {
  const query = new URLSearchParams(search);
  for (const key of ['range', 'from', 'to', 'zoom']) query.delete(key);
  if (view.free) {
    query.set('from', String(view.free.from));
    query.set('to', String(view.free.to));
  } else if (view.range !== USUAL) query.set('range', view.range);
  if (view.zoom) query.set('zoom', `${view.zoom.from}-${view.zoom.to}`);
  const text = query.toString();
  return text ? `?${text}` : '';
}

/** The whole range. `now` in seconds. */
export function wholeOf(view: View, now: number): Window {
  return view.free ?? { from: now - secondsOf(view.range), to: now };
}

export function shownOf(view: View, now: number): Window {
  return view.zoom ?? wholeOf(view, now);
}

/** Keeps a window in bounds: not too short or long, and not beyond `now`. */
export function bounded({ from, to }: Window, now: number): Window {
  const middle = (from + to) / 2;
  const span = Math.round(Math.min(LONGEST, Math.max(SHORTEST, to - from)));
  const end = Math.min(Math.max(Math.round(middle + span / 2), span), Math.max(now, span));
  return { from: end - span, to: end };
}

/** Moves by a share of its length: negative into the past. */
export function panned({ from, to }: Window, share: number, now: number): Window {
  const by = (to - from) * share;
  return bounded({ from: from + by, to: to + by }, now);
}

/** Below 1 it shows less time. The moment at `at` (0 to 1) stays where it is. */
export function zoomed({ from, to }: Window, factor: number, now: number, at = 0.5): Window {
  const span = Math.min(LONGEST, Math.max(SHORTEST, (to - from) * factor));
  const begin = from + (to - from - span) * at;
  return bounded({ from: begin, to: begin + span }, now);
}

/** How much a key moves the window. */
const STEP = 0.25;
const FACTOR = 0.5;

/** The window after a key; `null` for the whole range, and `undefined` for a key without a meaning. */
export function afterKey(key: string, window: Window, now: number): Window | null | undefined {
  switch (key) {
    case 'ArrowLeft':
      return panned(window, -STEP, now);
    case 'ArrowRight':
      return panned(window, STEP, now);
    case '+':
    case '=':
      return zoomed(window, FACTOR, now);
    case '-':
      return zoomed(window, 1 / FACTOR, now);
    case '0':
      return null;
    default:
      return undefined;
  }
}

const SHORTEST_BEAT = 10;
const LONGEST_BEAT = 600;

/** How often a window that ends now moves on, in seconds: not for less than a point. */
function beatOf(view: View): number {
  return Math.min(LONGEST_BEAT, Math.max(SHORTEST_BEAT, Math.round(secondsOf(view.range) / 600)));
}

/** Now, to the beat of the view, so that all graphs ask for the same window. */
export function nowOf(view: View, ms: number): number {
  const beat = beatOf(view) * 1000;
  return Math.floor((Math.floor(ms / beat) * beat) / 1000);
}

/** The window in which what was grabbed at `before` stands at `now` (shares of the width). */
export function dragged({ from, to }: Window, before: readonly number[], now: readonly number[]): Window {
  const span = to - from;
  if (before.length < 2 || now.length < 2) {
    const by = ((before[0] ?? 0) - (now[0] ?? 0)) * span;
    return { from: from + by, to: to + by };
  }
  const [a, b] = [from + before[0]! * span, from + before[1]! * span];
  const apart = now[1]! - now[0]!;
  const wide = Math.abs(apart) < 0.02 ? span : (b - a) / apart;
  if (!(wide > 0)) return { from, to };
  return { from: a - now[0]! * wide, to: a - now[0]! * wide + wide };
}
