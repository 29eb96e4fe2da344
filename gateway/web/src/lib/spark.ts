/** Small lines without axes. Pure. */

import type { QueriedSeries } from '../api/history';
import { alignedOf, summaryOf, type Columns, type Summary } from './samples';

export function columnsOf(series: QueriedSeries): Columns {
  return { start: Date.parse(series.start) / 1000, step: series.step_s, raw: series.tier === 'raw', min: series.min, avg: series.avg, max: series.max, count: series.count };
}

export interface Spark {
  /** SVG path data in a box of 100 by 20, with a move at each gap. */
  path: string;
  summary: Summary;
  uom: string;
}

const WIDTH = 100;
const HEIGHT = 20;
/** Lines at the edge would be cut. */
const EDGE = 1.5;

/** `undefined` without a value. */
export function sparkOf(series: QueriedSeries): Spark | undefined {
  const columns = columnsOf(series);
  const summary = summaryOf(columns);
  if (!summary) return undefined;
  const values = alignedOf(columns);
  const [low, high] = [Math.min(...columns.avg.flatMap((one) => one ?? [])), Math.max(...columns.avg.flatMap((one) => one ?? []))];
  const y = (value: number): number => (high === low ? HEIGHT / 2 : HEIGHT - EDGE - ((value - low) / (high - low)) * (HEIGHT - 2 * EDGE));
  const x = (i: number): number => (values.length < 2 ? WIDTH / 2 : (i / (values.length - 1)) * WIDTH);
  let path = '';
  let pen = false;
  values.forEach((value, i) => {
    if (value === undefined) return;
    if (value === null) return void (pen = false);
    path += `${pen ? 'L' : 'M'}${round(x(i))} ${round(y(value))}`;
    // A lone value is a short dash.
    if (!pen) path += 'h.8';
    pen = true;
  });
  return { path, summary, uom: series.uom };
}

const round = (value: number): number => Math.round(value * 10) / 10;

/** A metric that the fleet is looked at by. */
export interface Trend {
  service: string;
  metric: string;
  name: string;
}

/** What most fleets have. */
export const TRENDS: readonly Trend[] = [
  { service: 'ping', metric: 'rta', name: 'Round trip' },
  { service: 'disk', metric: 'used', name: 'Disk' },
  { service: 'memory', metric: 'used', name: 'Memory' },
  { service: 'load', metric: 'load1', name: 'Load' },
  { service: 'temperature', metric: 'temperature', name: 'Temperature' },
];

interface Limited {
  label: string;
  value?: number | null;
  warn?: string | null;
  crit?: string | null;
}

/** The metric that a problem is most likely about: one beyond its limit, else one with a limit, else the first. */
export function culpritOf<M extends Limited>(metrics: readonly M[], zone: (metric: M) => 'ok' | 'warning' | 'critical'): M | undefined {
  const beyond = metrics.filter((metric) => zone(metric) !== 'ok');
  return beyond.find((metric) => zone(metric) === 'critical') ?? beyond[0] ?? metrics.find(({ warn, crit }) => warn || crit) ?? metrics[0];
}
