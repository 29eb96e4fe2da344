/** How long to wait before the next attempt to connect. Pure. */

/** The first attempt comes soon: most breaks are a restart. */
const FIRST_MS = 500;
/** Attempts this seldom do not load a gateway that stays away. */
const LONGEST_MS = 15_000;

/** `chance` in [0, 1) spreads the pages of a whole office, which all lost the gateway at once. */
export function retryDelay(attempt: number, chance: number): number {
  const delay = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(attempt, 10));
  return delay * (0.75 + chance / 2);
}
