/**
 * The fleet as the event stream keeps it: snapshot first, then changes. Promises that after each
 * (re)connection all data is loaded again, and that the page reports a lost stream with its time.
 */

import { api, ask, pages } from '../api/client';
import type { Event, Host, Overview, Problem } from '../api/types';
import { base } from '../lib/base';
import { type Checked, Fleet } from '../lib/fleet';
import { retryDelay } from '../lib/retry';
import { throttle } from '../lib/throttle';
import { clock } from './clock.svelte';
import { login } from './session.svelte';

/** A small page occupies no reader of the database for long, and its rows are shown at once. */
const PAGE = 200;
/** Changes of many hosts are drawn together at this interval. */
const DRAW_MS = 250;
/** The shortest interval between loads of the problems, however fast states change. */
const PROBLEMS_MS = 1000;
/** Some fields, such as the verdict, change with time and without an event. */
const PROBLEMS_AGAIN_MS = 10_000;
/** The longest list of problems; the strip has the full count. */
const PROBLEMS_MOST = 500;

/** `checked`: a result or a packet that changed no state. */
type HostListener = (id: string, what: 'changed' | 'checked') => void;
type EventListener = (event: Event) => void;

class Live {
  status = $state<'connecting' | 'live' | 'lost'>('connecting');
  lostSince = $state<number | undefined>();
  overview = $state.raw<Overview | undefined>();
  problems = $state.raw<Problem[]>([]);
  problemsLoaded = $state(false);
  /** There are more than are listed. */
  moreProblems = $state(false);
  /** Increases whenever `fleet` changes; an effect that reads it runs again. */
  version = $state(0);
  /** All pages of hosts have arrived once. */
  loaded = $state(false);
  readonly fleet = new Fleet();

  private source: EventSource | undefined;
  private attempt = 0;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private loads = 0;
  private hostListeners = new Set<HostListener>();
  private eventListeners = new Set<EventListener>();
  private draw = throttle(() => (this.version += 1), DRAW_MS);
  private askProblems = throttle(() => void this.loadProblems(), PROBLEMS_MS);
  private problemsAgain: ReturnType<typeof setInterval> | undefined;

  onHost(listener: HostListener): () => void {
    this.hostListeners.add(listener);
    return () => this.hostListeners.delete(listener);
  }

  onEvent(listener: EventListener): () => void {
    this.eventListeners.add(listener);
    return () => this.eventListeners.delete(listener);
  }

  connect(): void {
    this.close();
    const source = new EventSource(`${base}/api/v1/stream`);
    this.source = source;
    const on = <T>(name: string, take: (data: T) => void): void =>
      source.addEventListener(name, (message) => take(JSON.parse((message as MessageEvent<string>).data) as T));
    on<{ overview: Overview }>('snapshot', (data) => this.begin(data.overview));
    on<Host>('host', (host) => this.changed(host));
    on<{ last_check?: string; hosts: Checked[] }>('checked', (data) => this.checked(data.hosts, data.last_check));
    on<{ id: string }>('host_removed', ({ id }) => this.removed(id));
    on<Overview>('overview', (overview) => this.count(overview));
    on<Event>('event', (event) => this.eventListeners.forEach((notify) => notify(event)));
    source.addEventListener('reload', () => this.connect());
    source.addEventListener('error', () => this.lost());
    this.problemsAgain = setInterval(() => {
      if (this.status === 'live' && this.problems.length > 0) this.askProblems();
    }, PROBLEMS_AGAIN_MS);
  }

  /** Called after a sleep, or when the network is back: the shown data may be old. */
  reconnect(): void {
    if (this.source || this.status === 'lost') this.connect();
  }

  close(): void {
    clearTimeout(this.retry);
    clearInterval(this.problemsAgain);
    this.source?.close();
    this.source = undefined;
  }

  private begin(overview: Overview): void {
    this.status = 'live';
    this.lostSince = undefined;
    this.attempt = 0;
    this.count(overview);
    void this.loadHosts();
    this.hostListeners.forEach((notify) => notify('*', 'changed'));
  }

  private count(overview: Overview): void {
    this.overview = overview;
    this.askProblems();
  }

  private changed(host: Host): void {
    this.fleet.put(host);
    this.draw();
    this.askProblems();
    this.hostListeners.forEach((notify) => notify(host.id, 'changed'));
  }

  /** Changes neither counters nor problems. */
  private checked(hosts: Checked[], newest?: string): void {
    for (const host of hosts) {
      this.fleet.patch(host);
      this.hostListeners.forEach((notify) => notify(host.id, 'checked'));
    }
    if (this.overview && newest) this.overview = { ...this.overview, last_check: newest };
    this.draw();
  }

  /** Takes a row that a page loaded itself: it has more fields of the tunnel than the stream. */
  refresh(host: Host): void {
    this.fleet.put(host);
    this.draw();
  }

  private removed(id: string): void {
    this.fleet.remove(id);
    this.draw();
    this.hostListeners.forEach((notify) => notify(id, 'changed'));
  }

  private lost(): void {
    this.close();
    if (this.status !== 'lost') this.lostSince = clock.instant();
    this.status = 'lost';
    this.retry = setTimeout(() => void this.again(), retryDelay(this.attempt, Math.random()));
    this.attempt += 1;
  }

  /** A stream does not say why it was refused; the session does. */
  private async again(): Promise<void> {
    try {
      await login.load();
      if (login.who) this.connect();
    } catch {
      this.lost();
    }
  }

  private async loadHosts(): Promise<void> {
    const mine = (this.loads += 1);
    this.fleet.beginLoad();
    try {
      await pages(
        (after) => ask(api.GET('/api/v1/hosts', { params: { query: { limit: PAGE, after } } })),
        (hosts) => {
          if (mine !== this.loads) return false;
          this.fleet.addPage(hosts);
          this.draw();
        },
      );
    } catch {
      if (mine === this.loads) this.lost();
      return;
    }
    if (mine !== this.loads) return;
    this.fleet.endLoad();
    this.loaded = true;
    this.draw();
  }

  private async loadProblems(): Promise<void> {
    try {
      const page = await ask(api.GET('/api/v1/problems', { params: { query: { limit: PROBLEMS_MOST } } }));
      this.problems = page.items;
      this.moreProblems = typeof page.next === 'string';
      this.problemsLoaded = true;
    } catch {
      // The next change loads them again. What stands below them on a page waits for the first ones.
      if (!this.problemsLoaded) this.lost();
    }
  }
}

export const live = new Live();
