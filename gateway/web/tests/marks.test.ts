import { describe, expect, it } from 'vitest';
import { marksOf, wordOf } from '../src/lib/marks';

describe('what stands beside a state', () => {
  it('comes in the order in which it matters', () => {
    const all = { stale: true, asleep: false, acknowledged: true, in_downtime: true, flapping: true };
    expect(marksOf(all)).toEqual(['acknowledged', 'downtime', 'flapping', 'stale']);
    expect(marksOf({})).toEqual([]);
  });

  it('has words', () => {
    expect(marksOf({ in_downtime: true }).map(wordOf)).toEqual(['In downtime']);
  });
});
