/** Labels of an axis of values: one unit for the whole axis, and as many decimals as its step needs. Pure. */

import { groups, metric } from './format';

interface Unit {
  factor: number;
  text: string;
}

const BYTES: readonly [number, string][] = [[1, 'B'], [1e3, 'kB'], [1e6, 'MB'], [1e9, 'GB'], [1e12, 'TB'], [1e15, 'PB']];
const SECONDS: readonly [number, string][] = [[1e-6, 'µs'], [1e-3, 'ms'], [1, 's'], [60, 'min'], [3600, 'h'], [86_400, 'd']];
const PLAIN: readonly [number, string][] = [[1, ''], [1e3, 'k'], [1e6, 'M'], [1e9, 'G'], [1e12, 'T']];
const FACTORS: Record<string, [number, readonly [number, string][]]> = {
  b: [1, BYTES], kb: [1e3, BYTES], mb: [1e6, BYTES], gb: [1e9, BYTES], tb: [1e12, BYTES],
  kib: [1024, BYTES], mib: [1024 ** 2, BYTES], gib: [1024 ** 3, BYTES], tib: [1024 ** 4, BYTES],
  s: [1, SECONDS], ms: [1e-3, SECONDS], us: [1e-6, SECONDS], ns: [1e-9, SECONDS],
};
const ROUND = [1, 2, 2.5, 5, 10] as const;
/** Plain numbers keep their digits below this. */
const LONG = 10_000;

/** The unit in which values of this size read best. */
export function unitOf(uom: string, size: number): Unit {
  const known = FACTORS[uom.toLowerCase()];
  if (known) {
    const [own, ladder] = known;
    const [one, text] = pick(ladder, size * own);
    return { factor: own / one, text };
  }
  const [one, prefix] = size < LONG ? PLAIN[0]! : pick(PLAIN, size);
  const text = uom === 'C' || uom === 'F' ? `°${uom}` : uom === '1/s' ? '/s' : uom === 'c' ? '' : uom;
  return { factor: 1 / one, text: uom === '%' ? '%' : `${prefix}${text}` };
}

function pick(ladder: readonly [number, string][], size: number): [number, string] {
  return [...ladder].reverse().find(([one]) => size >= one) ?? ladder[0]!;
}

/** Marks between two values, `atLeast` apart, that are round numbers in the unit of the axis: 1 min, not 50 s. */
export function marksBetween(low: number, high: number, atLeast: number, uom: string): number[] {
  const { factor } = unitOf(uom, Math.max(Math.abs(low), Math.abs(high)));
  const step = roundUp(atLeast * factor);
  if (!(step > 0) || !Number.isFinite(step)) return [low];
  const [first, last] = [Math.ceil((low * factor) / step - 1e-9), Math.floor((high * factor) / step + 1e-9)];
  return Array.from({ length: Math.min(50, Math.max(0, last - first + 1)) }, (_, n) => ((first + n) * step) / factor);
}

/** The next one of 1, 2, 2.5, 5, 10, 20, ... */
function roundUp(value: number): number {
  const ten = 10 ** Math.floor(Math.log10(value) + 1e-9);
  return (ROUND.find((one) => one * ten >= value * (1 - 1e-9)) ?? 10) * ten;
}

/** A label for each mark. */
export function axisLabels(marks: readonly number[], uom: string): string[] {
  const size = Math.max(0, ...marks.map(Math.abs));
  const { factor, text } = unitOf(uom, size);
  const step = marks.length > 1 ? Math.abs((marks[1]! - marks[0]!) * factor) : 1;
  const decimals = step > 0 ? Math.min(8, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9))) : 0;
  // A step of 2.5 needs a decimal more than its size says.
  const fine = Math.abs(step * 10 ** decimals - Math.round(step * 10 ** decimals)) > 1e-6 ? decimals + 1 : decimals;
  return marks.map((mark) => {
    const shown = (mark * factor).toFixed(fine);
    const number = fine === 0 ? groups(Number(shown)) : shown;
    return text ? `${number} ${text}` : number;
  });
}

/** A value in words; a rate is one of a second. */
export function valueText(value: number | null | undefined, uom: string): string {
  return uom === '1/s' ? `${metric(value, '')}${value === null || value === undefined ? '' : ' /s'}` : metric(value, uom);
}
