/** Active and pending grants. For operators. */

import { all, api, ask } from '../api/client';
import type { Grant } from '../api/types';
import { WatchedList } from './watched.svelte';

const PAGE = 500;

const read = (host?: string): Promise<Grant[]> =>
  all((after) => ask(api.GET('/api/v1/grants', { params: { query: { host, limit: PAGE, after } } })));

const KINDS = ['grant.'];

export const grants = new WatchedList(() => read(), KINDS);

/** Those that reach a host. Its labels decide too. */
export const grantsOf = (host: string): WatchedList<Grant> => new WatchedList(() => read(host), KINDS, host);
