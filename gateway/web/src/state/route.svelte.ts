/** The current page of operators. */

import { pageOf } from '../lib/paths';
import { Router } from './router.svelte';

export const route = new Router(pageOf);
