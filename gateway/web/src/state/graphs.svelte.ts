/** What the graphs of a page share: the window of time, and the moment under the pointer. */

import { afterKey, bounded, nowOf, searchOf, shownOf, viewOf, wholeOf, type RangeName, type View, type Window } from '../lib/graph';
import type { Handlers } from '../lib/plot';
import { clock } from './clock.svelte';
import { route } from './route.svelte';

/** While a window is dragged, nothing is asked and the address stays. */
const SETTLED_MS = 250;

export class Graphs {
  readonly view = $derived(viewOf(route.search));
  /** In seconds, to the beat of the view. */
  readonly now = $derived(nowOf(this.view, clock.now));
  readonly whole = $derived(wholeOf(this.view, this.now));
  /** What the address says. It is what is asked for. */
  readonly settled: Window = $derived(shownOf(this.view, this.now));
  private moving = $state.raw<Window | undefined>();
  /** What is drawn. */
  readonly window: Window = $derived(this.moving ?? this.settled);
  /** The moment under the pointer. */
  moment = $state.raw<number | null>(null);
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** Shows a window at once; the address follows when it stays. `null`: the whole range. */
  show(window: Window | null): void {
    clearTimeout(this.timer);
    if (window === null) return this.settle({ zoom: undefined });
    this.moving = bounded(window, Math.max(this.now, this.whole.to));
    this.timer = setTimeout(() => this.settle({ zoom: this.moving }), SETTLED_MS);
  }

  setRange(range: RangeName): void {
    this.settle({ range, free: undefined, zoom: undefined });
  }

  setFree(free: Window): void {
    this.settle({ free, zoom: undefined });
  }

  /** What the pointer does in a plot of these graphs. `point` takes the place in its values that is pointed at. */
  handlers(point: (index: number | null) => void): Handlers {
    const show = (window: Window): void => this.show(window);
    const onmoment = (index: number | null, at: number | null): void => {
      point(index);
      this.moment = at;
    };
    return { onwindow: show, ondrag: show, onreset: () => this.show(null), onmoment };
  }

  /** What a key does in a plot that has the focus. */
  readonly onkeydown = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const next = afterKey(event.key, this.window, this.now);
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.show(next);
  };

  close(): void {
    clearTimeout(this.timer);
  }

  private settle(change: { [K in keyof View]?: View[K] | undefined }): void {
    clearTimeout(this.timer);
    route.replace(route.path + searchOf(route.search, { ...this.view, ...change } as View));
    this.moving = undefined;
  }
}
