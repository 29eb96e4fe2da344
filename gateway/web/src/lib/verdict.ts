/** How a verdict is shown. Pure. */

import type { Problem, Verdict } from '../api/types';

export type Tone = 'calm' | 'open' | 'wrong';

/** A known cause stands out, an unknown one less so. A kind that this page does not know counts as known. */
export function toneOf(verdict: Pick<Verdict, 'kind'>): Tone {
  if (verdict.kind === 'ok' || verdict.kind === 'pending') return 'calm';
  return verdict.kind === 'undetermined' ? 'open' : 'wrong';
}

/** The text of a problem in the list: the verdict if its cause is known, otherwise the output of the last check. */
export function problemText(problem: Pick<Problem, 'text' | 'verdict'>): string {
  const { verdict } = problem;
  return verdict && toneOf(verdict) === 'wrong' ? sentence(verdict.text) : problem.text;
}

/** The server writes for the middle of a sentence. */
export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const UNDETERMINED = /^undetermined: */i;

/** A verdict for people: `Device gone`, or `Cause unknown. Possible: ...`. */
export function wordingOf(verdict: Pick<Verdict, 'kind' | 'text'>): string {
  if (verdict.text === 'ok') return 'OK';
  if (verdict.kind !== 'undetermined') return sentence(verdict.text);
  if (!UNDETERMINED.test(verdict.text)) return sentence(verdict.text);
  return `Cause unknown. Possible: ${verdict.text.replace(UNDETERMINED, '')}`;
}
