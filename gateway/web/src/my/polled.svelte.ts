/** What a page shows and asks for again and again: customers have no stream of events. */

import { messageOf, Refused } from '../api/client';

/** Fast enough for a person who waits for a rental to begin. */
const AGAIN_MS = 10_000;

export class Polled<T> {
  value = $state.raw<T | undefined>();
  /** Why the last attempt failed. */
  wrong = $state('');
  missing = $state(false);
  private readonly ask: () => Promise<T>;
  private readonly again: number;
  private loads = 0;

  constructor(ask: () => Promise<T>, again = AGAIN_MS) {
    this.ask = ask;
    this.again = again;
  }

  /** An older answer must not undo a newer one. */
  async load(): Promise<void> {
    const mine = (this.loads += 1);
    try {
      const found = await this.ask();
      if (mine === this.loads) [this.value, this.wrong, this.missing] = [found, '', false];
    } catch (error) {
      if (mine === this.loads) [this.wrong, this.missing] = [messageOf(error), error instanceof Refused && error.status === 404];
    }
  }

  /** Keeps the value current until the returned function is called. A page that is not seen asks nothing. */
  watch(): () => void {
    const look = (): void => void (document.hidden || this.load());
    void this.load();
    const timer = setInterval(look, this.again);
    document.addEventListener('visibilitychange', look);
    addEventListener('online', look);
    return () => {
      clearInterval(timer);
      document.removeEventListener('visibilitychange', look);
      removeEventListener('online', look);
    };
  }
}
