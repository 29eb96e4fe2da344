import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { droppedIn, dropsOf, MEANINGS } from '../src/lib/drops';

it('dropped packets are listed by reason, the greatest count first', () => {
  const counts = { no_flow: 2, replay: 0, not_granted: 7, something_new: 1 };
  expect(dropsOf(counts)).toEqual([
    { reason: 'not granted', count: 7, meaning: 'no grant covered it' },
    { reason: 'no flow', count: 2, meaning: 'belongs to no permitted connection' },
    { reason: 'something new', count: 1, meaning: '' },
  ]);
  expect(droppedIn(counts)).toBe(10);
});

it('the page has a meaning for each reason of the glossary', () => {
  const glossary = readFileSync('../../docs/glossary.md', 'utf8');
  const section = glossary.slice(glossary.indexOf('`drops` of a tunnel')).split('\n## ')[0]!;
  const reasons = [...section.matchAll(/^\| `(\w+)` \|/gm)].map(([, reason]) => reason!);
  expect(reasons.length).toBeGreaterThan(20);
  expect(Object.keys(MEANINGS).sort()).toEqual(reasons.sort());
});
