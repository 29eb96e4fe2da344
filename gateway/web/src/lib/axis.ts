/**
 * Marks of an axis of time in a zone, by `Intl`. Pure; in seconds since 1970. On days of 23 and 25 hours every mark still
 * stands at a round time of the clock on the wall.
 */

interface Wall {
  year: number;
  /** 1 to 12. */
  month: number;
  day: number;
  hour: number;
  minute: number;
}

const PARTS = { year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric', hourCycle: 'h23' } as const;
const formats = new Map<string, Intl.DateTimeFormat>();

function formatOf(zone: string): Intl.DateTimeFormat {
  const known = formats.get(zone);
  if (known) return known;
  const made = new Intl.DateTimeFormat('en-GB', { ...PARTS, timeZone: zone, calendar: 'gregory', numberingSystem: 'latn' });
  formats.set(zone, made);
  return made;
}

/** What the clock on the wall shows. */
export function wallOf(zone: string, second: number): Wall {
  const found: Record<string, number> = {};
  for (const { type, value } of formatOf(zone).formatToParts(second * 1000)) found[type] = Number(value);
  return { year: found.year!, month: found.month!, day: found.day!, hour: found.hour!, minute: found.minute! };
}

const asUtc = (wall: Wall): number => Date.UTC(wall.year, wall.month - 1, wall.day, wall.hour, wall.minute) / 1000;

/** The offset of the zone at that moment, in seconds. */
function offsetAt(zone: string, second: number): number {
  const minute = Math.floor(second / 60) * 60;
  return asUtc(wallOf(zone, minute)) - minute;
}

/** The first moment at which the clock shows it; where the clock skips it, the moment it would have been. Fields may overflow. */
export function instantOf(zone: string, wall: Wall): number {
  const wanted = asUtc(wall);
  const [before, after] = [offsetAt(zone, wanted - 86_400), offsetAt(zone, wanted + 86_400)];
  const fits = [wanted - before, wanted - after].filter((at) => offsetAt(zone, at) === wanted - at);
  return fits.length > 0 ? Math.min(...fits) : wanted - before;
}

type Unit = 'minute' | 'day' | 'month';

export interface Step {
  unit: Unit;
  count: number;
}

const MINUTE = 60;
const DAY = 86_400;
const MONTH = 30.44 * DAY;
const STEPS: readonly [Unit, readonly number[], number][] = [
  ['minute', [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720], MINUTE],
  ['day', [1, 2, 3, 7, 14], DAY],
  ['month', [1, 2, 3, 6, 12, 24, 60, 120], MONTH],
];

/** The smallest step that needs at most `most` marks. */
export function stepOf(from: number, to: number, most: number): Step {
  for (const [unit, counts, seconds] of STEPS) {
    const count = counts.find((one) => (to - from) / (one * seconds) <= most);
    if (count !== undefined) return { unit, count };
  }
  return { unit: 'month', count: 120 };
}

/** Offsets of zones are whole quarters of an hour. */
const QUARTER = 900;

/** Round times from `from` to `to`, both included. */
export function marksOf(zone: string, from: number, to: number, step: Step): number[] {
  const found = step.unit === 'minute' && step.count <= 60 ? short(zone, from, to, step.count) : long(zone, from, to, step);
  return [...new Set(found)].filter((at) => at >= from && at <= to);
}

/** Goes by the time that passes, so that an hour that the clock shows twice has two marks. */
function short(zone: string, from: number, to: number, minutes: number): number[] {
  const by = Math.min(minutes * MINUTE, QUARTER);
  const found: number[] = [];
  for (let at = Math.ceil(from / by) * by; at <= to; at += by) {
    const { hour, minute } = wallOf(zone, at);
    if ((hour * 60 + minute) % minutes === 0) found.push(at);
  }
  return found;
}

/** Goes by the calendar. */
function long(zone: string, from: number, to: number, { unit, count }: Step): number[] {
  const begin = wallOf(zone, from);
  const found: number[] = [];
  const at = (n: number): number => instantOf(zone, wallAt(begin, unit, count, n));
  for (let n = 0, next = at(0); next <= to; n += 1, next = at(n)) found.push(next);
  return found;
}

function wallAt({ year, month, day }: Wall, unit: Unit, count: number, n: number): Wall {
  const midnight = { hour: 0, minute: 0 };
  if (unit === 'minute') return { year, month, day, hour: 0, minute: n * count };
  if (unit === 'month') return { year, month: Math.floor((month - 1) / count) * count + 1 + n * count, day: 1, ...midnight, ...(count >= 12 ? { month: 1 + n * count } : {}) };
  // Weeks begin on Monday; others are counted from a fixed day, so that panning moves no mark.
  const number = Math.floor(Date.UTC(year, month - 1, day) / 86_400_000);
  const behind = (number + 3) % count;
  return { year, month, day: day - behind + n * count, ...midnight };
}

const labels = new Map<string, Intl.DateTimeFormat>();

function label(zone: string, key: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const name = `${zone} ${key}`;
  const known = labels.get(name);
  if (known) return known;
  const made = new Intl.DateTimeFormat(undefined, { ...options, timeZone: zone });
  labels.set(name, made);
  return made;
}

/** A time of the day, or the day at midnight; a month, or the year in January. */
export function labelOf(zone: string, second: number, { unit }: Step): string {
  const { month, hour, minute } = wallOf(zone, second);
  const ms = second * 1000;
  if (unit === 'month') {
    return month === 1 ? label(zone, 'year', { year: 'numeric' }).format(ms) : label(zone, 'month', { month: 'short' }).format(ms);
  }
  if (unit === 'day' || (hour === 0 && minute === 0)) return label(zone, 'day', { month: 'short', day: 'numeric' }).format(ms);
  return label(zone, 'time', { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(ms);
}
