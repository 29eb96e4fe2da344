/** The allowance of a rental as people write it: `20 GB`. Pure. */

import { WrongField } from './fields';

const FACTORS: Readonly<Record<string, number>> = { TB: 1e12, GB: 1e9, MB: 1e6, kB: 1e3, B: 1 };
const WRITTEN = /^(\d+(?:[.,]\d+)?)\s*([kMGT]?B)$/i;

/** The largest unit with at most three decimals, so that the text says exactly the number; empty without an allowance. */
export function allowanceText(count: number | null | undefined): string {
  if (!count) return '';
  const [unit, factor] = Object.entries(FACTORS).find(([, one]) => count >= one && (count * 1000) % one === 0) ?? ['B', 1];
  return `${count / factor} ${unit}`;
}

/** Bytes; `null`: no limit. `path`: where the API has them. */
export function allowanceFrom(text: string, path: string): number | null {
  if (text.trim() === '') return null;
  const [, number, unit] = WRITTEN.exec(text.trim()) ?? [];
  const factor = Object.entries(FACTORS).find(([name]) => name.toLowerCase() === unit?.toLowerCase())?.[1];
  if (number === undefined || factor === undefined) throw new WrongField(path, `"${text.trim()}" is no amount: write a number with kB, MB, GB or TB, such as 20 GB`);
  const count = Math.round(Number(number.replace(',', '.')) * factor);
  if (count < 1) throw new WrongField(path, 'at least 1 B is expected; empty: no limit');
  return count;
}
