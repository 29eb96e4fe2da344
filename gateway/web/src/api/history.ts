/** What graphs ask the API for. The types stand here because no other page needs them. */

import { ask, clientOf, Refused, type PageOf } from './client';
import { distinct } from '../lib/past-marks';
import type { Event, Incident, TrafficDay } from './types';

export type TierName = 'raw' | '5m' | '1h' | '1d';

export interface QueriedSeries {
  host_id?: string | null;
  host?: string | null;
  /** The value of the label that a group shares. */
  group?: string | null;
  hosts?: number | null;
  /** RFC 3339: the begin of the first bucket. */
  start: string;
  step_s: number;
  tier: TierName;
  uom: string;
  min: (number | null)[];
  avg: (number | null)[];
  max: (number | null)[];
  count: number[];
  /** Of a group: the worst of its hosts, in the direction of the threshold. */
  worst?: (number | null)[] | null;
  /** Of the host, or of the first host of the group that has any. */
  limits?: QueryLimits | null;
}

export interface QueryLimits {
  warn?: string | null;
  crit?: string | null;
  /** The hosts have different ones; these are those of the first. */
  differ: boolean;
}

export interface MetricsAnswer {
  from: string;
  to: string;
  tier: TierName;
  step_s: number;
  start: string;
  uom: string;
  limits?: QueryLimits | null;
  series: QueriedSeries[];
}

export interface Interval {
  /** Absent: the host itself. */
  service?: string | null;
  series: string;
  /** Of `state` the hard state; null otherwise. */
  value?: string | null;
  from: string;
  /** Absent: it lasts. */
  until?: string | null;
}

export interface MetricsQuery {
  host?: string[];
  label?: string[];
  service?: string;
  metric: string;
  from: string;
  to: string;
  points?: number;
  group_by?: string;
}

/** A time is searched only with a host. */
interface EventsQuery {
  host: string;
  from: string;
  to: string;
  /** The first parts of kinds that are left out, separated by commas. */
  without: string;
  limit: number;
  after?: string | undefined;
}

interface IncidentsQuery {
  host: string;
  from: string;
  to: string;
  limit: number;
  after?: string | undefined;
}

export interface TrafficAnswer {
  days: TrafficDay[];
  budget_bytes_per_day?: number | null;
}

export interface TopItem {
  host: string;
  host_id: string;
  service?: string | null;
  value: number;
  uom: string;
  text: string;
}

export type TopMetric = 'disk_used' | 'traffic' | 'rtt';

interface Call<Data, Parameters> {
  parameters: Parameters;
  responses: { 200: { headers: Record<string, unknown>; content: { 'application/json': Data } } };
}

interface Paths {
  '/api/v1/metrics/query': { get: Call<MetricsAnswer, { query: MetricsQuery }> };
  '/api/v1/metrics/top': { get: Call<{ items: TopItem[] }, { query: { metric: TopMetric; limit?: number } }> };
  '/api/v1/hosts/{host}/intervals': { get: Call<{ items: Interval[] }, { path: { host: string }; query: { from: string; to: string } }> };
  '/api/v1/hosts/{host}/traffic': { get: Call<TrafficAnswer, { path: { host: string }; query: { days: number } }> };
  '/api/v1/events': { get: Call<PageOf<Event>, { query: EventsQuery }> };
  '/api/v1/incidents': { get: Call<PageOf<Incident>, { query: IncidentsQuery }> };
}

const past = clientOf<Paths>();

export const queryMetrics = (query: MetricsQuery): Promise<MetricsAnswer> => ask(past.GET('/api/v1/metrics/query', { params: { query } }));

const iso = (second: number): string => new Date(second * 1000).toISOString();
const UNPROCESSABLE = 422;
/** How often a time is halved: 8 answers have at most 80,000 intervals. */
const HALVINGS = 3;

/** The intervals of a host that touch a time, in seconds. A time that has too many for one answer is asked for in parts. */
export async function intervalsOf(host: string, from: number, to: number, halvings = HALVINGS): Promise<Interval[]> {
  try {
    const query = { from: iso(from), to: iso(to) };
    return (await ask(past.GET('/api/v1/hosts/{host}/intervals', { params: { path: { host }, query } }))).items;
  } catch (error) {
    if (!(error instanceof Refused && error.status === UNPROCESSABLE) || halvings === 0) throw error;
    const middle = Math.floor((from + to) / 2);
    const earlier = await intervalsOf(host, from, middle, halvings - 1);
    return distinct([...earlier, ...(await intervalsOf(host, middle, to, halvings - 1))]);
  }
}

export async function topOf(metric: TopMetric, limit: number): Promise<TopItem[]> {
  return (await ask(past.GET('/api/v1/metrics/top', { params: { query: { metric, limit } } }))).items;
}

export const trafficOf = (host: string, days: number): Promise<TrafficAnswer> => ask(past.GET('/api/v1/hosts/{host}/traffic', { params: { path: { host }, query: { days } } }));

/** A page of the events of a host in a time, the newest first. */
export const eventsOf = (query: EventsQuery): Promise<PageOf<Event>> => ask(past.GET('/api/v1/events', { params: { query } }));

/** A page of the incidents that have or had a host as a member and were open in a time, the newest first. */
export const incidentsOf = (query: IncidentsQuery): Promise<PageOf<Incident>> => ask(past.GET('/api/v1/incidents', { params: { query } }));
