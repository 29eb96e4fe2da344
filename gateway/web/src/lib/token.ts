/** Enrolment tokens for people. Pure. */

import type { EnrolmentToken } from '../api/types';
import { plural } from './format';

export type TokenPhase = 'active' | 'used' | 'expired' | 'revoked';

export function phaseOf(token: Pick<EnrolmentToken, 'revoked_at' | 'expires_at' | 'uses_left'>, now: number): TokenPhase {
  if (token.revoked_at) return 'revoked';
  if (token.expires_at && Date.parse(token.expires_at) <= now) return 'expired';
  return token.uses_left === 0 ? 'used' : 'active';
}

/** `1 device left`, `unlimited devices`. */
export function usesOf(token: Pick<EnrolmentToken, 'uses_left'>): string {
  return typeof token.uses_left === 'number' ? `${plural(token.uses_left, 'device')} left` : 'unlimited devices';
}
