/** Labels as people type them: `site=berlin uplink=lte`. Pure. */

export class BadLabels extends Error {}

/** Commas and blanks part them; a key without `=` is refused rather than guessed at. */
export function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const word of text.split(/[\s,]+/).filter(Boolean)) {
    const at = word.indexOf('=');
    if (at < 1) throw new BadLabels(`"${word}" is no label: write key=value`);
    labels[word.slice(0, at)] = word.slice(at + 1);
  }
  return labels;
}
