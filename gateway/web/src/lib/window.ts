/** Which rows of a long list are worth drawing. Pure; all rows are equally high. */

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

/** Fewer rows than that are all drawn: the browser's own search and a printer find them. */
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
