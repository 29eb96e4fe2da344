/** Nagios threshold ranges, and the place of a value among them. Pure. */

/** Alerts outside of `[start, end]`, or inside if `inside`. */
export interface Range {
  start: number;
  end: number;
  inside: boolean;
}

export type Zone = 'ok' | 'warning' | 'critical';
/** `plain`: there are no limits. */
export type Paint = Zone | 'plain';

export interface Band {
  from: number;
  to: number;
  zone: Paint;
}

/** A scale from `low` to `high`, painted with bands that follow each other without a gap. */
export interface Scale {
  low: number;
  high: number;
  bands: Band[];
}

/** How far the scale extends beyond the last value or limit. */
const HEADROOM = 1.25;

export function parseRange(text: string | null | undefined): Range | undefined {
  const match = /^(@?)(?:(~|[-+.\deE]*):)?([-+.\deE]*)$/.exec((text ?? '').trim());
  if (!match) return undefined;
  const [, at, from, to] = match;
  const start = from === undefined || from === '' ? 0 : from === '~' ? -Infinity : Number(from);
  const end = to === '' ? Infinity : Number(to);
  const bare = from === undefined && to === '';
  if (bare || Number.isNaN(start) || Number.isNaN(end) || start > end) return undefined;
  return { start, end, inside: at === '@' };
}

export function alerts(range: Range | undefined, value: number): boolean {
  if (!range) return false;
  const within = value >= range.start && value <= range.end;
  return within === range.inside;
}

export function zoneOf(value: number, warn: Range | undefined, crit: Range | undefined): Zone {
  if (alerts(crit, value)) return 'critical';
  return alerts(warn, value) ? 'warning' : 'ok';
}

export interface Measured {
  value?: number | null;
  uom: string;
  warn?: string | null;
  crit?: string | null;
  min?: number | null;
  max?: number | null;
}

/** `undefined` without a limit and a maximum. */
export function scale(metric: Measured): Scale | undefined {
  const warn = parseRange(metric.warn);
  const crit = parseRange(metric.crit);
  const ends = endsOf(warn, crit);
  const max = metric.max ?? (metric.uom === '%' ? 100 : undefined);
  if (ends.length === 0 && max === undefined) return undefined;
  const shown = [...ends, metric.value ?? 0].filter(Number.isFinite);
  const low = metric.min ?? Math.min(0, ...shown.map((end) => end * HEADROOM));
  const high = max ?? Math.max(0, ...shown.map((end) => end * HEADROOM));
  if (!(high > low)) return undefined;
  if (!warn && !crit) return { low, high, bands: [{ from: low, to: high, zone: 'plain' }] };
  return { low, high, bands: bandsOf(low, high, ends, warn, crit) };
}

/** The worst of these values, in the direction of the critical limit or else of the warning one, as the API has it for a group; without one the highest. */
export function worstIn(values: readonly number[], warn: Range | undefined, crit: Range | undefined): number | undefined {
  const { start, end, inside } = crit ?? warn ?? { start: -Infinity, end: Infinity, inside: false };
  const isLow = inside ? start === -Infinity && end < Infinity : start > -Infinity && end === Infinity;
  const middle = start + (end - start) / 2;
  const badness = (value: number): number => {
    if (Number.isFinite(middle) && inside) return -Math.abs(value - middle);
    if (Number.isFinite(middle) && start !== 0) return Math.abs(value - middle);
    return isLow ? -value : value;
  };
  return values.reduce<number | undefined>((worst, value) => (worst === undefined || badness(value) > badness(worst) ? value : worst), undefined);
}

/** The ends of both ranges, as far as they have any. */
export function endsOf(warn: Range | undefined, crit: Range | undefined): number[] {
  return [warn, crit].flatMap((range) => (range ? [range.start, range.end] : [])).filter(Number.isFinite);
}

export function bandsOf(low: number, high: number, ends: number[], warn: Range | undefined, crit: Range | undefined): Band[] {
  const inner = ends.filter((end) => end > low && end < high);
  const cuts = [...new Set([low, ...inner, high])].sort((a, b) => a - b);
  const found: Band[] = [];
  for (let i = 0; i + 1 < cuts.length; i += 1) {
    const from = cuts[i]!;
    const to = cuts[i + 1]!;
    const zone = zoneOf((from + to) / 2, warn, crit);
    const last = found.at(-1);
    if (last?.zone === zone) last.to = to;
    else found.push({ from, to, zone });
  }
  return found;
}

/** Where a value lies on the scale, 0 to 1; beyond the ends it stays at the end. */
export function place(scale: Scale, value: number): number {
  const share = (value - scale.low) / (scale.high - scale.low);
  return Math.min(1, Math.max(0, share));
}

/** A threshold in words: `above 50`, `outside 10 to 20`; `worded` may add the unit. */
export function inWords(text: string | null | undefined, worded: (value: number) => string = String): string {
  const range = parseRange(text);
  if (!range) return '';
  const { start, end, inside } = range;
  const [from, to] = [worded(start), worded(end)];
  if (inside) return `${from} to ${to}`;
  if (start === 0 && Number.isFinite(end)) return `above ${to}`;
  if (start === -Infinity) return Number.isFinite(end) ? `above ${to}` : 'never';
  return Number.isFinite(end) ? `outside ${from} to ${to}` : `below ${from}`;
}
