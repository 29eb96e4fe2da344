/** What a customer sees of rentals, in words for customers. Pure. */

import type { MyChange, MyMetric, MyRental, MyValues } from '../api/mine';
import type { Metric, RentalState } from '../api/types';
import { millis, span } from './format';
import { sparkOf, type Spark } from './spark';
import { valueText } from './unit';

export type Group = 'now' | 'next' | 'past';

const GROUPS: Record<RentalState, Group> = {
  held: 'next', booked: 'next', preparing: 'next', delayed: 'now', active: 'now', returning: 'now', overdue: 'now',
  cleaning: 'past', closed: 'past', cancelled: 'past', failed: 'past',
};

const WORDS: Record<RentalState, string> = {
  held: 'Reserved', booked: 'Booked', preparing: 'Being prepared', delayed: 'Delayed', active: 'Running', returning: 'To be returned', overdue: 'Return is late',
  cleaning: 'Ended', closed: 'Ended', cancelled: 'Cancelled', failed: 'Failed',
};

type Tone = 'good' | 'warn' | 'unsure' | 'quiet';

const TONES: Record<RentalState, Tone> = {
  held: 'warn', booked: 'quiet', preparing: 'unsure', delayed: 'warn', active: 'good', returning: 'unsure', overdue: 'warn',
  cleaning: 'quiet', closed: 'quiet', cancelled: 'quiet', failed: 'quiet',
};

/** A state that this page does not know is shown with its own name. */
export function stateWords(state: string): { word: string; tone: Tone } {
  const known = state in WORDS ? (state as RentalState) : undefined;
  return known ? { word: WORDS[known], tone: TONES[known] } : { word: state, tone: 'quiet' };
}

const at = (time: string): number => millis(time) ?? 0;

type Timed = Pick<MyRental, 'state' | 'from' | 'until'>;

/** Those that run, the first to end first; those that come, the next one first; and those that are over, the last one first. */
export function grouped<R extends Timed>(rentals: readonly R[]): Record<Group, R[]> {
  const of = (group: Group): R[] => rentals.filter(({ state }) => (GROUPS[state] ?? 'past') === group);
  return {
    now: of('now').sort((a, b) => at(a.until) - at(b.until)),
    next: of('next').sort((a, b) => at(a.from) - at(b.from)),
    past: of('past').sort((a, b) => at(b.until) - at(a.until)),
  };
}

/** `ends in 3 h`, `begins in 2 d`; empty where the state says all. */
export function whenWords({ state, from, until }: Timed, now: number): string {
  const [begins, ends] = [at(from), at(until)];
  if (state === 'active') return `ends in ${span(ends - now)}`;
  if (state === 'held') return 'not confirmed yet';
  if (state === 'booked' || state === 'preparing') return `begins in ${span(begins - now)}`;
  if (state === 'delayed') return 'begins as soon as the device is ready';
  if (state === 'returning') return 'it has ended; please send the device back';
  if (state === 'overdue') return 'please send the device back now';
  return state === 'cancelled' || now < ends ? '' : `ended ${span(now - ends)} ago`;
}

const DEVICE: Record<string, string> = {
  up: 'The device is online', down: 'The device is offline', unreachable: 'The network of the device is not reachable', pending: 'The device was not checked yet',
};

/** What is known of the device; empty while nothing is. */
export function deviceWords(status: string | null | undefined): string {
  return status ? (DEVICE[status] ?? `The device is ${status}`) : '';
}

/** The value as the bars have it. */
export function metricOf({ name, unit, value, warn, crit, min, max }: MyMetric): Metric {
  return { label: name, uom: unit, value, warn, crit, min, max };
}

/** A metric of a rental as a small line. */
export interface Line {
  /** Empty for the device itself. */
  service: string;
  name: string;
  spark: Spark;
  words: string;
}

/** Metrics without a value have no line. */
export function linesOf({ start, step_s, tier, series }: MyValues): Line[] {
  if (!start || !tier) return [];
  return series.flatMap(({ service, name, unit: uom, ...columns }) => {
    const spark = sparkOf({ start, step_s, tier, uom, ...columns });
    if (!spark) return [];
    const [min, max, last] = [spark.summary.min, spark.summary.max, spark.summary.last].map((value) => valueText(value, uom));
    return [{ service: service ?? '', name, spark, words: `${min} to ${max}, last ${last}` }];
  });
}

/** The newest first. */
export function newestFirst(changes: readonly MyChange[]): MyChange[] {
  return [...changes].reverse().sort((a, b) => at(b.at) - at(a.at));
}
