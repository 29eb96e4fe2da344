/** Who is logged in, and what he may. The server decides; this only spares him vain attempts. */

import { api, ask, Refused } from '../api/client';
import type { Me } from '../api/types';

class Login {
  /** `undefined`: not asked yet. `null`: nobody. */
  who = $state<Me | null | undefined>(undefined);

  get canOperate(): boolean {
    return this.who?.role === 'operator' || this.who?.role === 'admin';
  }

  /** Asks the server. A gateway that is away is no answer: it stays as it was. */
  async load(): Promise<void> {
    try {
      this.who = await ask(api.GET('/api/v1/session'));
    } catch (error) {
      if (error instanceof Refused && error.status === 401) this.who = null;
      else throw error;
    }
  }

  async byPassword(name: string, password: string): Promise<void> {
    this.who = await ask(api.POST('/api/v1/session', { body: { name, password } }));
  }

  async byLink(link: string): Promise<void> {
    this.who = await ask(api.POST('/api/v1/session', { body: { link } }));
  }

  async end(): Promise<void> {
    await ask(api.DELETE('/api/v1/session'));
    this.who = null;
  }
}

export const login = new Login();
