/** Active and planned downtimes. */

import { all, api, ask } from '../api/client';
import type { Downtime } from '../api/types';
import { WatchedList } from './watched.svelte';

const PAGE = 2000;

const read = (host?: string): Promise<Downtime[]> =>
  all((after) => ask(api.GET('/api/v1/downtimes', { params: { query: { host, limit: PAGE, after } } })));

const KINDS = ['downtime.'];

export const downtimes = new WatchedList(() => read(), KINDS);

/** Those of a host. Its labels decide too. */
export const downtimesOf = (host: string): WatchedList<Downtime> => new WatchedList(() => read(host), KINDS, host);
