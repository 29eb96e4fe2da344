/** States and marks of one host in a window, for its graphs. */

import { api, ask, first } from '../api/client';
import { eventsOf, incidentsOf, intervalsOf, type Interval } from '../api/history';
import type { Downtime, Event, Incident, Rental } from '../api/types';
import type { Window } from '../lib/graph';
import { downtimeMarks, eventMarks, incidentMarks, rentalMarks, type PastMark } from '../lib/past-marks';
import { customerNames } from './rentals.svelte';
import { login } from './session.svelte';

const iso = (second: number): string => new Date(second * 1000).toISOString();
/** More is not drawn: the marks would hide the lines. */
const EVENTS_MOST = 500;
const INCIDENTS_MOST = 300;

export class HostMarks {
  intervals = $state.raw<Interval[]>([]);
  private downtimes = $state.raw<Downtime[]>([]);
  private rentals = $state.raw<Rental[]>([]);
  private incidents = $state.raw<Incident[]>([]);
  private events = $state.raw<Event[]>([]);
  private loads = 0;

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
      keep(intervalsOf(id, from, to), (found) => (this.intervals = found)),
      keep(first((after) => incidentsOf({ host: id, limit: 100, after }), INCIDENTS_MOST), (found) => (this.incidents = found)),
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
}
