/** The current page of a customer. */

import { myPageOf } from '../lib/my-paths';
import { Router } from '../state/router.svelte';

export const route = new Router(myPageOf);
