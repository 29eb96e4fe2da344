/** Active and planned downtimes. */

import { all, api, ask } from '../api/client';
import { WatchedList } from './watched.svelte';

const PAGE = 2000;

export const downtimes = new WatchedList(
  () => all((after) => ask(api.GET('/api/v1/downtimes', { params: { query: { limit: PAGE, after } } }))),
  ['downtime.'],
);
