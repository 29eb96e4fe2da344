/** The metrics of a host by their service. Pure. */

import type { components } from '../../generated/schema';

export type SeriesInfo = components['schemas']['SeriesInfo'];

export interface SeriesGroup {
  /** Absent: the host check. */
  service: string | undefined;
  metrics: SeriesInfo[];
}

/** In the order of the services; then those that have only a past, and the host check. */
export function groupsOf(series: readonly SeriesInfo[], services: readonly string[]): SeriesGroup[] {
  const names = [...new Set(series.map((one) => one.service ?? ''))];
  const rank = (name: string): number => {
    const place = services.indexOf(name);
    return name === '' ? Infinity : place < 0 ? services.length : place;
  };
  return names
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b))
    .map((name) => ({ service: name || undefined, metrics: series.filter((one) => (one.service ?? '') === name) }));
}
