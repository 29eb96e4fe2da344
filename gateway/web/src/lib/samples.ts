/** What a graph draws, says and exports of the columns that the API answers. Pure; times are seconds since 1970. */

export interface Columns {
  /** The begin of the first bucket. */
  start: number;
  /** The length of a bucket. */
  step: number;
  /** Single samples: an empty bucket need not be a gap. */
  raw: boolean;
  min: readonly (number | null)[];
  avg: readonly (number | null)[];
  max: readonly (number | null)[];
  count: readonly number[];
}

/** Points at the middle of their buckets. A `null` between two of them is a gap, so that no line is drawn across it. */
export interface Drawn {
  at: number[];
  min: (number | null)[];
  avg: (number | null)[];
  max: (number | null)[];
}

const known = (columns: Columns): number[] => columns.avg.flatMap((value, i) => (value === null ? [] : [i]));

/** Samples that are farther apart than this many usual distances have a gap between them, as in the roll-ups. */
const REACH = 3;

/** The longest distance between two neighbours, in buckets, that is no gap. */
function reachOf(indices: readonly number[], raw: boolean): number {
  const distances = indices.slice(1).map((index, i) => index - indices[i]!).sort((a, b) => a - b);
  const usual = distances[Math.floor(distances.length / 2)] ?? 1;
  return raw || usual > 1 ? usual * REACH : 1;
}

/** Gaps between known buckets, as `[from, to)`. */
export function gapsOf(columns: Columns): { from: number; to: number }[] {
  const indices = known(columns);
  const reach = reachOf(indices, columns.raw);
  const { start, step } = columns;
  return indices.flatMap((index, i) => {
    const next = indices[i + 1];
    return next !== undefined && next - index > reach ? [{ from: start + (index + 1) * step, to: start + next * step }] : [];
  });
}

export function drawnOf(columns: Columns): Drawn {
  const drawn: Drawn = { at: [], min: [], avg: [], max: [] };
  const indices = known(columns);
  const reach = reachOf(indices, columns.raw);
  const middle = (index: number): number => columns.start + (index + 0.5) * columns.step;
  const push = (at: number, min: number | null, avg: number | null, max: number | null): void => {
    drawn.at.push(at);
    drawn.min.push(min);
    drawn.avg.push(avg);
    drawn.max.push(max);
  };
  indices.forEach((index, i) => {
    const before = indices[i - 1];
    if (before !== undefined && index - before > reach) push((middle(before) + middle(index)) / 2, null, null, null);
    push(middle(index), columns.min[index] ?? null, columns.avg[index] ?? null, columns.max[index] ?? null);
  });
  return drawn;
}

/** One column on the times of all buckets: `undefined` where the line goes on, `null` in a gap. */
export function alignedOf(columns: Columns): (number | null | undefined)[] {
  const indices = known(columns);
  const reach = reachOf(indices, columns.raw);
  const values: (number | null | undefined)[] = columns.avg.map((value) => value ?? undefined);
  indices.forEach((index, i) => {
    const next = indices[i + 1];
    if (next === undefined || next - index > reach) values.fill(null, index + 1, next ?? values.length);
  });
  return values.fill(null, 0, indices[0] ?? values.length);
}

/** The values that have a gap on both sides: no line shows them. */
export function aloneOf(values: readonly (number | null | undefined)[]): number[] {
  const found: number[] = [];
  let [last, count] = [-1, 0];
  const close = (): void => {
    if (count === 1) found.push(last);
    count = 0;
  };
  values.forEach((value, i) => {
    if (value === undefined) return;
    if (value === null) return close();
    last = i;
    count += 1;
  });
  close();
  return found;
}

export interface Summary {
  min: number;
  avg: number;
  max: number;
  last: number;
  /** When that was: the end of its bucket. */
  lastAt: number;
  gaps: number;
}

/** The average is that of all samples, not of the buckets. */
export function summaryOf(columns: Columns): Summary | undefined {
  const indices = known(columns);
  const last = indices.at(-1);
  if (last === undefined) return undefined;
  const merged = mergedOf(columns, indices);
  return { ...merged, last: columns.avg[last]!, lastAt: columns.start + (last + 1) * columns.step, gaps: gapsOf(columns).length };
}

function mergedOf(columns: Columns, indices: readonly number[]): { min: number; avg: number; max: number } {
  let [min, max, sum, count] = [Infinity, -Infinity, 0, 0];
  for (const i of indices) {
    const n = Math.max(1, columns.count[i] ?? 1);
    min = Math.min(min, columns.min[i] ?? columns.avg[i]!);
    max = Math.max(max, columns.max[i] ?? columns.avg[i]!);
    sum += columns.avg[i]! * n;
    count += n;
  }
  return { min, avg: sum / count, max };
}

export interface Row {
  from: number;
  to: number;
  /** Absent: no value. */
  values?: { min: number; avg: number; max: number; count: number };
}

/** At most `most` rows: buckets that follow each other are merged. */
export function rowsOf(columns: Columns, most: number): Row[] {
  const each = Math.max(1, Math.ceil(columns.avg.length / most));
  const rows: Row[] = [];
  for (let i = 0; i < columns.avg.length; i += each) {
    const end = Math.min(columns.avg.length, i + each);
    const indices = Array.from({ length: end - i }, (_, k) => i + k).filter((k) => columns.avg[k] !== null);
    const row: Row = { from: columns.start + i * columns.step, to: columns.start + end * columns.step };
    if (indices.length > 0) row.values = { ...mergedOf(columns, indices), count: indices.reduce((sum, k) => sum + (columns.count[k] ?? 0), 0) };
    rows.push(row);
  }
  return rows;
}

/** A field of a CSV. */
export const field = (text: string): string => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/** One line per bucket; a gap has empty fields and the count 0. Numbers have a point, whatever the reader's language. */
export function csvOf(columns: Columns, uom: string): string {
  const unit = uom ? ` (${uom})` : '';
  const head = ['time', 'unix', `min${unit}`, `avg${unit}`, `max${unit}`, 'count'].map(field).join(',');
  const lines = columns.avg.map((avg, i) => {
    const at = columns.start + i * columns.step;
    const values = [columns.min[i], avg, columns.max[i]].map((value) => (value === null || value === undefined ? '' : String(value)));
    return [new Date(at * 1000).toISOString().replace('.000Z', 'Z'), at, ...values, columns.count[i] ?? 0].join(',');
  });
  return `${[head, ...lines].join('\n')}\n`;
}

/** `cam-07_ping_rta_2026-11-01_2026-12-01.csv`: without characters that a file name cannot have. */
export function fileOf(parts: readonly string[], from: number, to: number, extension: string): string {
  const day = (second: number): string => new Date(second * 1000).toISOString().slice(0, 10);
  const clean = parts.filter(Boolean).map((part) => part.replaceAll(/[^\p{L}\p{N}.-]+/gu, '-').replaceAll(/^-+|-+$/g, '') || 'x');
  return `${[...clean, day(from), day(to)].join('_')}.${extension}`;
}

/** From which share of its size on an axis begins above 0. */
const FAR_FROM_ZERO = 0.5;
const PADDING = 0.08;
/** A limit is near that is not farther from the values than these shares of their span and size. */
const NEAR_OF_SPAN = 0.5;
const NEAR_OF_SIZE = 0.35;

/** The ends of the axis of values. Limits that are near are on it; those that would flatten the values are not. */
export function axisOf(low: number, high: number, limits: readonly number[], uom: string): [number, number] {
  const span = high - low;
  const near = Math.max(span * NEAR_OF_SPAN, Math.max(Math.abs(low), Math.abs(high)) * NEAR_OF_SIZE);
  const shown = limits.filter((limit) => limit >= low - near && limit <= high + near);
  let [from, to] = [Math.min(low, ...shown), Math.max(high, ...shown)];
  if (from === to) [from, to] = from === 0 ? [0, 1] : [from - Math.abs(from) * 0.2, to + Math.abs(to) * 0.2];
  const pad = (to - from) * PADDING;
  const positive = low >= 0;
  from = positive && from < (1 - FAR_FROM_ZERO) * to ? Math.min(0, from) : from - pad;
  to += pad;
  if (positive) from = Math.max(0, from);
  if (uom === '%' && low >= 0 && high <= 100) to = Math.min(100 + PADDING, Math.max(to, 1));
  return [from, to];
}
