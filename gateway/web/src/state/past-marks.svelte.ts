/** States and marks of one host in a window, for its graphs. */

import { api, ask, messageOf, Refused, some } from '../api/client';
import { eventsOf, incidentsOf, intervalsOf, type Interval } from '../api/history';
import type { Downtime, Event, Incident, Rental } from '../api/types';
import type { Window } from '../lib/graph';
import { downtimeMarks, eventMarks, incidentMarks, rentalMarks, UNMARKED, type PastMark, type Unmarked } from '../lib/past-marks';
import { customerNames } from './rentals.svelte';
import { login } from './session.svelte';

const iso = (second: number): string => new Date(second * 1000).toISOString();
/** Marks of a kind. More of them are not drawn: they would hide the lines. */
const EVENTS_MOST = 500;
const MOST = 300;
const PAGE = 250;
const UNPROCESSABLE = 422;

export class HostMarks {
  intervals = $state.raw<Interval[]>([]);
  private downtimes = $state.raw<Downtime[]>([]);
  private rentals = $state.raw<Rental[]>([]);
  private incidents = $state.raw<Incident[]>([]);
  private events = $state.raw<Event[]>([]);
  private left = $state.raw<ReadonlyMap<string, Unmarked>>(new Map());
  private loads = 0;
  /** What of this time is not marked. */
  readonly unmarked: readonly Unmarked[] = $derived([...this.left.values()]);

  /** `host`: its id. */
  constructor(private readonly host: () => string) {}

  marks(window: Window): PastMark[] {
    return [
      ...downtimeMarks(this.downtimes, this.intervals, window),
      ...rentalMarks(this.rentals, window, (id) => customerNames.of(id)),
      ...incidentMarks(this.incidents, window),
      ...eventMarks(this.events, window),
    ];
  }

  /** The graphs are shown without what cannot be loaded. */
  async load(window: Window): Promise<void> {
    const mine = (this.loads += 1);
    const host = this.host();
    const time = { from: iso(window.from), to: iso(window.to) };
    const page = { ...time, limit: PAGE };
    const intervals = intervalsOf(host, window.from, window.to).then((items) => ({ items, more: false }));
    const downtimes = some((after) => ask(api.GET('/api/v1/downtimes', { params: { query: { host, all: true, ...page, after } } })), MOST);
    const rentals = login.canOperate ? some((after) => ask(api.GET('/api/v1/rentals', { params: { query: { device: host, ...page, after } } })), MOST) : undefined;
    const incidents = some((after) => incidentsOf({ host, ...page, after }), MOST);
    const events = some((after) => eventsOf({ host, without: UNMARKED.join(','), ...page, after }), EVENTS_MOST);
    await Promise.all([
      this.keep(mine, 'States', intervals, (items) => (this.intervals = items)),
      this.keep(mine, 'Downtimes', downtimes, (items) => (this.downtimes = items)),
      rentals && this.keep(mine, 'Rentals', rentals, (items) => (this.rentals = items)),
      this.keep(mine, 'Incidents', incidents, (items) => (this.incidents = items)),
      this.keep(mine, 'Events', events, (items) => (this.events = items)),
    ]);
  }

  private async keep<T>(mine: number, name: string, load: Promise<{ items: T[]; more: boolean }>, take: (items: T[]) => void): Promise<void> {
    try {
      const { items, more } = await load;
      if (mine !== this.loads) return;
      take(items);
      this.note(name, more ? { name, newest: items.length } : undefined);
    } catch (error) {
      if (mine === this.loads) this.note(name, { name, wrong: reasonOf(error) });
    }
  }

  private note(name: string, unmarked: Unmarked | undefined): void {
    const left = new Map(this.left);
    if (unmarked) left.set(name, unmarked);
    else left.delete(name);
    this.left = left;
  }
}

/** The API refuses a time with very many intervals. */
function reasonOf(error: unknown): string {
  return error instanceof Refused && error.status === UNPROCESSABLE ? 'this time has too many changes; choose a shorter one' : messageOf(error);
}
