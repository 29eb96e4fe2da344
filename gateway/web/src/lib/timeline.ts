/** Where rentals and blocks stand on a line of time. Pure; days are those of the reader's zone, with 23 or 25 hours too. */

import type { DeviceBlock, Rental, RentalState } from '../api/types';
import { millis } from './format';
import { blockTimes, endOf, occupiedUntil, stateOf } from './rental';

/** `[from, until)`. */
export interface Range {
  from: number;
  until: number;
}

/** In percent of the line. */
export interface Place {
  left: number;
  width: number;
}

/** Days that the page offers, from near to far. */
export const ZOOMS: readonly number[] = [1, 3, 7, 14, 28, 84];

/** Local midnight, some days after that of `ms`. */
export function midnight(ms: number, days = 0): number {
  const d = new Date(ms);
  return new Date(d.getFullYear(), d.getMonth(), d.getDate() + days).getTime();
}

/** Whole days of the calendar. */
export function rangeOf(ms: number, days: number): Range {
  return { from: midnight(ms), until: midnight(ms, days) };
}

/** `2026-12-10`, as `<input type="date">` has it. */
export function dateOf(ms: number): string {
  const d = new Date(ms);
  return [d.getFullYear(), d.getMonth() + 1, d.getDate()].map((part) => String(part).padStart(2, '0')).join('-');
}

/** Local midnight of such a date; `undefined` for none. */
export function fromDate(text: string | null): number | undefined {
  if (!text || !/^\d{4}-\d{2}-\d{2}$/.test(text)) return undefined;
  const ms = new Date(`${text}T00:00`).getTime();
  return Number.isNaN(ms) ? undefined : midnight(ms);
}

/** The next nearer (-1) or farther (1) zoom; the same at the ends. */
export function zoomed(days: number, step: -1 | 1): number {
  const next = ZOOMS.indexOf(days) + step;
  return ZOOMS[Math.min(ZOOMS.length - 1, Math.max(0, next))]!;
}

/** A zoom that the page has: the nearest one that shows as much. */
export function zoomOf(days: number): number {
  return ZOOMS.find((one) => one >= days) ?? ZOOMS.at(-1)!;
}

/** Where an interval stands, cut at the edges; `undefined` if none of it is in the range. No end: beyond the range. */
export function placeOf(range: Range, from: number, until: number | undefined): Place | undefined {
  const [begin, end] = [Math.max(from, range.from), Math.min(until ?? range.until, range.until)];
  if (end <= begin) return undefined;
  const percent = 100 / (range.until - range.from);
  return { left: (begin - range.from) * percent, width: (end - begin) * percent };
}

const HOURS = [1, 3, 6, 12];
const DAYS = [1, 2, 3, 7, 14, 28];

/** Moments for labels: round hours, or midnights with as many days between them as it takes for at most `most`. */
export function ticksOf(range: Range, most: number): number[] {
  const days = Math.round((range.until - range.from) / 86_400_000);
  const hours = HOURS.find((step) => (days * 24) / step <= most);
  if (hours !== undefined) return within(range, (n) => hourOf(range.from, n * hours));
  const step = DAYS.find((one) => days / one <= most) ?? DAYS.at(-1)!;
  return within(range, (n) => midnight(range.from, n * step));
}

/** On a day of 23 hours one hour is missing, and the one after it stands for both. */
function hourOf(from: number, hours: number): number {
  const d = new Date(from);
  return new Date(d.getFullYear(), d.getMonth(), d.getDate(), hours).getTime();
}

function within(range: Range, nth: (n: number) => number): number[] {
  const found = new Set<number>();
  for (let n = 0; nth(n) < range.until; n += 1) found.add(nth(n));
  return [...found];
}

/** Saturdays and Sundays. */
export function weekendsOf(range: Range): Place[] {
  const days = within(range, (n) => midnight(range.from, n));
  const free = days.filter((day) => [0, 6].includes(new Date(day).getDay()));
  return free.flatMap((day) => placeOf(range, day, midnight(day, 1)) ?? []);
}

/** A part of a bar; `share` in percent of the bar. */
export interface Piece {
  kind: 'preparation' | 'rental' | 'turnaround' | 'block';
  share: number;
}

interface Drawn extends Place {
  key: string;
  pieces: Piece[];
  /** It goes on beyond the left or right edge. */
  before: boolean;
  after: boolean;
  /** Bars that overlap lie below each other; 0 is the highest. */
  lane: number;
}
export type Bar = Drawn & ({ rental: Rental; state: RentalState; block?: undefined } | { block: DeviceBlock; rental?: undefined });

export interface Row {
  /** The id of the device. */
  id: string;
  name: string;
  bars: Bar[];
  lanes: number;
}

export interface Named {
  id: string;
  name: string;
}

/** A row per device: each of `devices`, and others that are rented in the range. */
export function rowsOf(devices: readonly Named[], rentals: readonly Rental[], blocks: readonly DeviceBlock[], range: Range, now: number): Row[] {
  const names = new Map(devices.map(({ id, name }) => [id, name]));
  const bars = new Map<string, Bar[]>();
  const add = (device: string, name: string, bar: Bar | undefined): void => {
    if (!bar) return;
    if (!names.has(device)) names.set(device, name);
    bars.set(device, [...(bars.get(device) ?? []), bar]);
  };
  for (const rental of rentals) add(rental.device, rental.device_name, rentalBar(rental, range, now));
  for (const block of blocks) add(block.device, block.device_name, blockBar(block, range));
  const rows = [...names].map(([id, name]) => rowOf(id, name, bars.get(id) ?? []));
  return rows.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

function rowOf(id: string, name: string, bars: Bar[]): Row {
  const ends: number[] = [];
  const placed = [...bars].sort((a, b) => a.left - b.left || b.width - a.width).map((bar) => {
    const free = ends.findIndex((end) => end <= bar.left + ROUNDING);
    const lane = free < 0 ? ends.length : free;
    ends[lane] = bar.left + bar.width;
    return { ...bar, lane };
  });
  return { id, name, bars: placed, lanes: Math.max(1, ends.length) };
}

/** Bars that touch do not overlap, whatever the last digit of their percents is. */
const ROUNDING = 1e-6;

/** A cancelled rental occupies nothing, unless its device has yet to come back. */
function rentalBar(rental: Rental, range: Range, now: number): Bar | undefined {
  const [begin, from, end] = [millis(rental.occupied_from) ?? 0, millis(rental.from) ?? 0, endOf(rental)];
  const state = stateOf(rental, now);
  const until = occupiedUntil(rental, now);
  const drawn = state === 'cancelled' ? undefined : draw(rental.id, range, [[begin, from, 'preparation'], [from, end, 'rental'], [end, until, 'turnaround']]);
  return drawn && { ...drawn, rental, state };
}

function blockBar(block: DeviceBlock, range: Range): Bar | undefined {
  const times = blockTimes(block);
  const drawn = times && draw(block.id, range, [[times.from, times.until, 'block']]);
  return drawn && { ...drawn, block };
}

type Part = [from: number, until: number | undefined, kind: Piece['kind']];

/** Parts follow each other without a gap. */
function draw(key: string, range: Range, parts: Part[]): Drawn | undefined {
  const seen = parts.flatMap(([from, until, kind]) => {
    const place = placeOf(range, from, until);
    return place ? [{ ...place, kind }] : [];
  });
  const width = seen.reduce((sum, one) => sum + one.width, 0);
  if (width === 0) return undefined;
  const last = parts.at(-1)![1];
  return {
    key,
    left: seen[0]!.left,
    width,
    pieces: seen.map(({ kind, width: part }) => ({ kind, share: (part / width) * 100 })),
    before: parts[0]![0] < range.from,
    after: last === undefined || last > range.until,
    lane: 0,
  };
}

export type Arrow = 'ArrowLeft' | 'ArrowRight' | 'ArrowUp' | 'ArrowDown' | 'Home' | 'End';

export function isArrow(key: string): key is Arrow {
  return ['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', 'Home', 'End'].includes(key);
}

/** The bar that a key leads to: its neighbour in the row, or the nearest one in the next row that has any. */
export function barAfter(rows: readonly Row[], key: string, arrow: Arrow): string | undefined {
  const at = rows.findIndex((row) => row.bars.some((bar) => bar.key === key));
  if (at < 0) return undefined;
  const bars = rows[at]!.bars;
  const i = bars.findIndex((bar) => bar.key === key);
  if (arrow === 'Home') return bars[0]!.key;
  if (arrow === 'End') return bars.at(-1)!.key;
  if (arrow === 'ArrowLeft') return bars[i - 1]?.key;
  if (arrow === 'ArrowRight') return bars[i + 1]?.key;
  const others = arrow === 'ArrowDown' ? rows.slice(at + 1) : rows.slice(0, at).reverse();
  return nearest(others.find((row) => row.bars.length > 0)?.bars ?? [], bars[i]!);
}

function nearest(bars: readonly Bar[], to: Bar): string | undefined {
  const distance = (bar: Bar): number => Math.abs(bar.left + bar.width / 2 - to.left - to.width / 2);
  return [...bars].sort((a, b) => distance(a) - distance(b))[0]?.key;
}
