/** How a verdict is shown: how loud, and what is folded. Pure. */

import type { Problem, Verdict } from '../api/types';

export type Tone = 'calm' | 'open' | 'wrong';

/** A claim stands out, a doubt less so; a word that the server invents later is a claim. */
export function toneOf(verdict: Pick<Verdict, 'kind'>): Tone {
  if (verdict.kind === 'ok' || verdict.kind === 'pending') return 'calm';
  return verdict.kind === 'undetermined' ? 'open' : 'wrong';
}

/** What the list says of a problem: a claim says more than the last check's output, a doubt less. */
export function saidOf(problem: Pick<Problem, 'text' | 'verdict'>): string {
  const { verdict } = problem;
  return verdict && toneOf(verdict) === 'wrong' ? sentence(verdict.text) : problem.text;
}

/** As a sentence begins; the server writes for the middle of one. */
export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
