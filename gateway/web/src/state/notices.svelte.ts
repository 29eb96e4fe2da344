/** Short results of actions, shown for a while. */

const SHOWN_MS = 6000;

export interface Notice {
  id: number;
  text: string;
  bad: boolean;
}

class Notices {
  list = $state<Notice[]>([]);
  private count = 0;

  show(text: string, bad = false): void {
    const id = (this.count += 1);
    this.list = [...this.list, { id, text, bad }];
    setTimeout(() => this.drop(id), bad ? 2 * SHOWN_MS : SHOWN_MS);
  }

  drop(id: number): void {
    this.list = this.list.filter((notice) => notice.id !== id);
  }

  /** Runs an action and shows its result. */
  async run(what: () => Promise<unknown>, done: string): Promise<void> {
    try {
      await what();
      this.show(done);
    } catch (error) {
      this.show(error instanceof Error ? error.message : String(error), true);
    }
  }
}

export const notices = new Notices();
