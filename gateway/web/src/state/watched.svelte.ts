/** A list of the API that stays current while a page shows it: loaded when it is needed, and again when it may have changed. */

import { messageOf } from '../api/client';
import { throttle } from '../lib/throttle';
import { live } from './live.svelte';

/** The shortest interval between loads. */
const RELOAD_MS = 2000;

export class WatchedList<T> {
  list = $state.raw<T[] | undefined>();
  /** Why the list could not be loaded. */
  wrong = $state('');
  private readonly ask: () => Promise<T[]>;
  private readonly kinds: readonly string[];
  private readonly host: string | undefined;
  private loads = 0;
  readonly load = throttle(() => void this.read(), RELOAD_MS);

  /**
   * `ask` returns the whole list. It changes with events whose kind begins with one of `kinds`, and with `host` if it is
   * about one.
   */
  constructor(ask: () => Promise<T[]>, kinds: readonly string[], host?: string) {
    this.ask = ask;
    this.kinds = kinds;
    this.host = host;
  }

  /** Keeps the list current until the returned function is called. */
  watch(): () => void {
    this.load();
    const stops = [
      live.onHost((id, what) => (id === '*' || (id === this.host && what === 'changed')) && this.load()),
      live.onEvent((event) => this.kinds.some((kind) => event.kind.startsWith(kind)) && this.load()),
    ];
    return () => stops.forEach((stop) => stop());
  }

  /** An older answer must not undo a newer one. */
  private async read(): Promise<void> {
    const mine = (this.loads += 1);
    try {
      const found = await this.ask();
      if (mine === this.loads) [this.list, this.wrong] = [found, ''];
    } catch (error) {
      if (mine === this.loads) this.wrong = messageOf(error);
    }
  }
}
