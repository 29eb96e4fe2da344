/** Selects the rows of a long list to draw. Pure; all rows have the same height. */

export interface Window {
  first: number;
  /** One past the last. */
  end: number;
  /** Space before and after, in pixels. */
  before: number;
  after: number;
}

/** Rows drawn beyond each edge, so that a quick scroll does not show white. */
const OVERSCAN = 8;

/** A shorter list is drawn whole, for the search of the browser and for printing. */
const SHORT = 60;

/** `above` is how many pixels of the list have been scrolled away (negative: it starts lower). */
export function windowOf(above: number, height: number, row: number, count: number): Window {
  if (count <= SHORT) return { first: 0, end: count, before: 0, after: 0 };
  const first = clamp(Math.floor(above / row) - OVERSCAN, 0, count);
  const end = clamp(Math.ceil((above + height) / row) + OVERSCAN, first, count);
  return { first, end, before: first * row, after: (count - end) * row };
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}
