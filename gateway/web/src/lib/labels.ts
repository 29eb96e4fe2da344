/** Labels as people type them. Pure. */

import { WrongField } from './fields';

export class BadLabels extends WrongField {}

/** The path of labels in most requests. */
const PATH = 'labels';

/** `site=berlin uplink=lte`: commas and blanks separate labels. */
export function parseLabels(text: string, path = PATH): Record<string, string> {
  return parsed(text.split(/[\s,]+/), path);
}

/** One label per line, so that a value may contain blanks and commas. */
export function parseLabelLines(text: string): Record<string, string> {
  return parsed(text.split('\n').map((line) => line.trim()), PATH);
}

export function labelLines(labels: Record<string, string>): string {
  return Object.entries(labels).map(([key, value]) => `${key}=${value}`).join('\n');
}

/** A merge patch: changed and new labels with their value, dropped labels with `null`. */
export function labelPatch(before: Record<string, string>, after: Record<string, string>): Record<string, string | null> {
  const dropped = Object.keys(before).filter((key) => !Object.hasOwn(after, key));
  const changed = Object.entries(after).filter(([key, value]) => before[key] !== value);
  return { ...Object.fromEntries(dropped.map((key) => [key, null])), ...Object.fromEntries(changed) };
}

/** A word without `=` is refused rather than guessed at. */
function parsed(words: string[], path: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const word of words.filter(Boolean)) {
    const at = word.indexOf('=');
    if (at < 1) throw new BadLabels(path, `"${word}" is not a label: write key=value`);
    labels[word.slice(0, at).trim()] = word.slice(at + 1).trim();
  }
  return labels;
}
