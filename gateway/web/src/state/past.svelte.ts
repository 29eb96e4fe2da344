/** Past objects, which are loaded page by page once a person asks for them. */

import { messageOf, type PageOf } from '../api/client';

export class PastList<T> {
  items = $state.raw<T[]>([]);
  next = $state<string | undefined>();
  unfolded = $state(false);
  wrong = $state('');
  private readonly load: (after: string | undefined) => Promise<PageOf<T>>;

  /** `load` returns the page behind `after`, the newest first. */
  constructor(load: (after: string | undefined) => Promise<PageOf<T>>) {
    this.load = load;
  }

  async more(): Promise<void> {
    try {
      const page = await this.load(this.next);
      this.items = this.next ? [...this.items, ...page.items] : page.items;
      [this.next, this.wrong, this.unfolded] = [page.next ?? undefined, '', true];
    } catch (error) {
      this.wrong = messageOf(error);
    }
  }

  /** Loads the first page again, if it is shown. */
  async again(): Promise<void> {
    if (!this.unfolded) return;
    this.next = undefined;
    await this.more();
  }
}
