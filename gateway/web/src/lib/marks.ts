/** The marks beside a state: acknowledged, in downtime, flapping, stale. Pure. */

export const MARKS = ['acknowledged', 'downtime', 'flapping', 'stale', 'asleep', 'handled'] as const;
export type MarkKind = (typeof MARKS)[number];

const WORDS: Record<MarkKind, string> = {
  acknowledged: 'Acknowledged',
  downtime: 'In downtime',
  flapping: 'Flapping',
  stale: 'Stale',
  asleep: 'Asleep',
  handled: 'Handled',
};

export function isMark(kind: string): kind is MarkKind {
  return kind in WORDS;
}

export function wordOf(mark: MarkKind): string {
  return WORDS[mark];
}

interface Marked {
  acknowledged?: boolean;
  in_downtime?: boolean;
  flapping?: boolean;
  stale?: boolean;
  asleep?: boolean;
}

/** The most important mark first. */
export function marksOf(of: Marked): MarkKind[] {
  const holds: Record<MarkKind, boolean | undefined> = {
    acknowledged: of.acknowledged,
    downtime: of.in_downtime,
    flapping: of.flapping,
    stale: of.stale,
    asleep: of.asleep,
    handled: false,
  };
  return MARKS.filter((mark) => holds[mark]);
}
