/** States and marks of one host in a window, for its graphs. */

import { api, ask, first, pages } from '../api/client';
import { eventsOf, intervalsOf, type Interval } from '../api/history';
import type { Downtime, Event, Incident, Rental } from '../api/types';
import type { Window } from '../lib/graph';
import { downtimeMarks, eventMarks, incidentMarks, mayConcern, rentalMarks, type PastMark } from '../lib/past-marks';
import { customerNames } from './rentals.svelte';
import { login } from './session.svelte';

const iso = (second: number): string => new Date(second * 1000).toISOString();
/** More is not drawn: the marks would hide the lines. */
const EVENTS_MOST = 500;
const INCIDENTS_MOST = 300;
/** Whose members are looked at. */
const LOOKED_AT = 40;

export class HostMarks {
  intervals = $state.raw<Interval[]>([]);
  private downtimes = $state.raw<Downtime[]>([]);
  private rentals = $state.raw<Rental[]>([]);
  private incidents = $state.raw<Incident[]>([]);
  private events = $state.raw<Event[]>([]);
  private loads = 0;
  /** Whether an incident has the host as a member. */
  private readonly concerned = new Map<string, boolean>();

  constructor(private readonly host: () => { id: string; name: string }) {}

  marks(window: Window): PastMark[] {
    return [
      ...downtimeMarks(this.downtimes, this.intervals, window),
      ...rentalMarks(this.rentals, window, (id) => customerNames.of(id)),
      ...incidentMarks(this.incidents, window),
      ...eventMarks(this.events, window),
    ];
  }

  /** What cannot be loaded is not marked; the graphs are shown all the same. */
  async load(window: Window): Promise<void> {
    const mine = (this.loads += 1);
    const [from, to] = [iso(window.from), iso(window.to)];
    const { id } = this.host();
    const keep = async <T>(load: Promise<T>, take: (found: T) => void): Promise<void> => {
      const found = await load.catch(() => undefined);
      if (found !== undefined && mine === this.loads) take(found);
    };
    await Promise.all([
      keep(intervalsOf(id, from, to), (found) => (this.intervals = found)).then(() =>
        mine === this.loads ? keep(this.ownIncidents(window), (found) => (this.incidents = found)) : undefined,
      ),
      keep(ask(api.GET('/api/v1/downtimes', { params: { query: { host: id, all: true, limit: 200 } } })), ({ items }) => (this.downtimes = items)),
      login.canOperate
        ? keep(ask(api.GET('/api/v1/rentals', { params: { query: { device: id, from, to, limit: 200 } } })), ({ items }) => (this.rentals = items))
        : undefined,
      keep(this.eventsIn(id, from, to), (found) => (this.events = found)),
    ]);
  }

  private async eventsIn(host: string, from: string, to: string): Promise<Event[]> {
    return first((after) => eventsOf({ host, from, to, limit: 250, after }), EVENTS_MOST);
  }

  /** The API has no incidents of a host: those that are during its problems are asked for their members. */
  private async ownIncidents({ from, to }: Window): Promise<Incident[]> {
    const found: Incident[] = [];
    let listed = 0;
    await pages(
      (after) => ask(api.GET('/api/v1/incidents', { params: { query: { limit: 100, after } } })),
      (items) => {
        listed += items.length;
        found.push(...items.filter((one) => Date.parse(one.opened_at) / 1000 < to && mayConcern(one, this.intervals)));
        const last = items.at(-1);
        return listed < INCIDENTS_MOST && last !== undefined && Date.parse(last.opened_at) / 1000 >= from;
      },
    );
    const { id } = this.host();
    const near = found.filter((one) => !one.merged_into && (one.closed_at ? Date.parse(one.closed_at) / 1000 >= from : true)).slice(0, LOOKED_AT);
    const concerned = await Promise.all(near.map((one) => this.concerns(one.id, id)));
    return near.filter((_, i) => concerned[i]);
  }

  private async concerns(incident: string, host: string): Promise<boolean> {
    const known = this.concerned.get(incident);
    if (known !== undefined) return known;
    const details = await ask(api.GET('/api/v1/incidents/{incident}', { params: { path: { incident } } })).catch(() => undefined);
    const concerns = Boolean(details?.listed.some((member) => member.host === host));
    // An open incident may still get members.
    if (details?.closed_at) this.concerned.set(incident, concerns);
    return concerns;
  }
}
