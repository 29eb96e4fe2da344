/** Active and planned grants, loaded once they are needed and again when one changes. For operators. */

import { api, ask, messageOf, pages } from '../api/client';
import type { Grant } from '../api/types';
import { throttle } from '../lib/throttle';
import { live } from './live.svelte';

const PAGE = 500;
/** The shortest interval between loads. */
const RELOAD_MS = 2000;

class Grants {
  list = $state.raw<Grant[] | undefined>();
  /** Why the list could not be loaded. */
  wrong = $state('');
  private loads = 0;
  readonly load = throttle(() => void this.read(), RELOAD_MS);

  /** Keeps the list current until the returned function is called. */
  watch(): () => void {
    this.load();
    const stops = [
      live.onHost((id) => id === '*' && this.load()),
      live.onEvent((event) => event.kind.startsWith('grant.') && this.load()),
    ];
    return () => stops.forEach((stop) => stop());
  }

  private async read(): Promise<void> {
    const mine = (this.loads += 1);
    const found: Grant[] = [];
    try {
      await pages(
        (after) => ask(api.GET('/api/v1/grants', { params: { query: { limit: PAGE, after } } })),
        (items) => void found.push(...items),
      );
      if (mine === this.loads) [this.list, this.wrong] = [found, ''];
    } catch (error) {
      if (mine === this.loads) this.wrong = messageOf(error);
    }
  }
}

export const grants = new Grants();
