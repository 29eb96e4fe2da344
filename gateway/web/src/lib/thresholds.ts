/** The thresholds of a rental: those that services of the device have while it runs. Pure. */

import type { RentalThreshold } from '../api/types';

/** A line of a form; an empty range is none. */
export interface ThresholdRow {
  service: string;
  metric: string;
  warn: string;
  crit: string;
}

export const EMPTY: ThresholdRow = { service: '', metric: '', warn: '', crit: '' };

export function thresholdRows(thresholds: readonly RentalThreshold[]): ThresholdRow[] {
  return thresholds.map(({ service, metric, warn, crit }) => ({ service, metric, warn: warn ?? '', crit: crit ?? '' }));
}

/** The thresholds of a form, whose empty lines are none. */
export function thresholdsFrom(rows: readonly ThresholdRow[]): RentalThreshold[] {
  const trimmed = rows.map(({ service, metric, warn, crit }) => ({ service: service.trim(), metric: metric.trim(), warn: warn.trim() || null, crit: crit.trim() || null }));
  return trimmed.filter(({ service, metric, warn, crit }) => service || metric || warn || crit);
}

/** `disk used: warning 80, critical 90`, `ping rta: no limit`. */
export function thresholdWords({ service, metric, warn, crit }: RentalThreshold): string {
  const sides = [warn && `warning ${warn}`, crit && `critical ${crit}`].filter(Boolean).join(', ');
  return `${service} ${metric}: ${sides || 'no limit'}`;
}
