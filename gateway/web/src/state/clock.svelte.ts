/** The gateway's time as this page knows it. The only place that reads the browser's clock. */

import { agree } from '../lib/offset';

/** A second: the smallest step that the page shows. */
const TICK_MS = 1000;
/** A tick that comes so late means that the machine slept. */
const SLEPT_MS = 15_000;

class Clock {
  now = $state(Date.now());
  private offset = 0;
  private last = Date.now();

  /** Ticks until the page is closed; `onWake` is called after a sleep. */
  start(onWake: () => void): void {
    setInterval(() => {
      const slept = Date.now() - this.last > SLEPT_MS;
      this.last = Date.now();
      this.now = this.last + this.offset;
      if (slept) onWake();
    }, TICK_MS);
  }

  /** Ages are computed with the gateway's clock, because the reader's may be wrong. */
  observe(date: number, tookMs: number): void {
    const received = Date.now();
    this.offset = agree(this.offset, date, received - tookMs, received);
  }

  /** The gateway's time now, not at the last tick. */
  instant(): number {
    return Date.now() + this.offset;
  }
}

export const clock = new Clock();
