/** Sparklines of the last day: for the hosts that are visible, and no others. */

import { api, ask } from '../api/client';
import { queryMetrics } from '../api/history';
import type { Problem } from '../api/types';
import { parseRange, zoneOf } from '../lib/range';
import { culpritOf, sparkOf, type Spark, type Trend, TRENDS } from '../lib/spark';
import { throttle } from '../lib/throttle';
import { clock } from './clock.svelte';

const DAY_MS = 86_400_000;
const POINTS = 24;
/** As many hosts as one query may have. */
const MOST = 200;
/** A sparkline of a day is fresh for so long. */
const FRESH_MS = 300_000;
/** While a list is scrolled. */
const ASK_MS = 700;

interface Kept {
  spark: Spark | undefined;
  at: number;
}

/** Sparklines by host id, of one metric. */
class Sparks {
  private kept = $state.raw<ReadonlyMap<string, Kept>>(new Map());
  private wanted: readonly string[] = [];
  private readonly ask = throttle(() => void this.load(), ASK_MS);

  constructor(private readonly service: string, private readonly metric: string) {}

  of(host: string): Spark | undefined {
    return this.kept.get(host)?.spark;
  }

  /** Loads those of these hosts that are missing or old. */
  want(hosts: readonly string[]): void {
    this.wanted = hosts;
    this.ask();
  }

  private async load(): Promise<void> {
    const now = clock.instant();
    const hosts = this.wanted.filter((id) => (this.kept.get(id)?.at ?? 0) < now - FRESH_MS).slice(0, MOST);
    if (hosts.length === 0) return;
    const times = { from: new Date(now - DAY_MS).toISOString(), to: new Date(now).toISOString() };
    const answer = await queryMetrics({ host: hosts, service: this.service, metric: this.metric, ...times, points: POINTS }).catch(() => undefined);
    const found = new Map(answer?.series.map((series) => [series.host_id, sparkOf(series)]));
    // What was refused is not asked for again at once.
    this.kept = new Map([...this.kept, ...hosts.map((id) => [id, { spark: found.get(id), at: now }] as const)]);
  }
}

function stored(): Trend | undefined {
  const name = localStorage.getItem('trend');
  return name === 'none' ? undefined : (TRENDS.find((one) => one.name === name) ?? TRENDS[0]);
}

/** The metric of the list of hosts. The browser stores the choice. */
class FleetTrend {
  trend = $state.raw<Trend | undefined>(this.first());
  private readonly all = new Map<string, Sparks>();
  readonly sparks: Sparks | undefined = $derived(this.trend && this.sparksOf(this.trend));

  choose(name: string): void {
    this.trend = TRENDS.find((one) => one.name === name);
    try {
      localStorage.setItem('trend', this.trend?.name ?? 'none');
    } catch {
      // Without storage the choice holds until the page is closed.
    }
  }

  private first(): Trend | undefined {
    try {
      return stored();
    } catch {
      return TRENDS[0];
    }
  }

  private sparksOf({ service, metric }: Trend): Sparks {
    const key = `${service}/${metric}`;
    const known = this.all.get(key) ?? new Sparks(service, metric);
    this.all.set(key, known);
    return known;
  }
}

export const fleetTrend = new FleetTrend();

/** Sparklines of problems: of the metric that the first problem of a service is about, for all of that service. */
class ProblemSparks {
  private services = $state.raw<ReadonlyMap<string, { metric: string; sparks: Sparks } | undefined>>(new Map());
  private readonly asked = new Set<string>();

  of({ host, service }: Problem): { spark: Spark; metric: string } | undefined {
    const known = service ? this.services.get(service) : undefined;
    const spark = known?.sparks.of(host);
    return known && spark ? { spark, metric: known.metric } : undefined;
  }

  want(problems: readonly Problem[]): void {
    const services = new Map<string, Problem[]>();
    for (const problem of problems) if (problem.service) services.set(problem.service, [...(services.get(problem.service) ?? []), problem]);
    for (const [service, own] of services) {
      const known = this.services.get(service);
      if (known) known.sparks.want(own.map(({ host }) => host));
      else if (!this.asked.has(service)) void this.find(service, own);
    }
  }

  private async find(service: string, problems: readonly Problem[]): Promise<void> {
    this.asked.add(service);
    const params = { path: { host: problems[0]!.host, service } };
    const found = await ask(api.GET('/api/v1/hosts/{host}/services/{service}', { params })).catch(() => undefined);
    const known = found?.metrics.filter(({ value }) => typeof value === 'number') ?? [];
    const metric = culpritOf(known, ({ value, warn, crit }) => zoneOf(value ?? 0, parseRange(warn), parseRange(crit)));
    if (!metric) return;
    const sparks = new Sparks(service, metric.label);
    this.services = new Map([...this.services, [service, { metric: metric.label, sparks }]]);
    sparks.want(problems.map(({ host }) => host));
  }
}

export const problemSparks = new ProblemSparks();
