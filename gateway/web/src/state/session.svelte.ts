/** The session: user and role. The server decides; this only hides what it would refuse. */

import { api, ask, Refused } from '../api/client';
import type { Me } from '../api/types';

class Login {
  /** `undefined`: not asked yet. `null`: no session. */
  who = $state<Me | null | undefined>(undefined);

  get canOperate(): boolean {
    return this.who?.role === 'operator' || this.who?.role === 'admin';
  }

  get isAdmin(): boolean {
    return this.who?.role === 'admin';
  }

  /** Counts requests: an older answer must not undo a newer one. */
  private asked = 0;

  /** Asks the server. If the gateway does not answer, the session stays as it was. */
  async load(): Promise<void> {
    const mine = (this.asked += 1);
    const who = await ask(api.GET('/api/v1/session')).catch((error: unknown) => {
      if (error instanceof Refused && error.status === 401) return null;
      throw error;
    });
    if (mine === this.asked) this.who = who;
  }

  byPassword(name: string, password: string): Promise<void> {
    return this.enter({ name, password });
  }

  byLink(link: string): Promise<void> {
    return this.enter({ link });
  }

  /** The session has ended, here or on the server. */
  over(): void {
    this.asked += 1;
    this.who = null;
  }

  private async enter(body: { name: string; password: string } | { link: string }): Promise<void> {
    this.asked += 1;
    this.who = await ask(api.POST('/api/v1/session', { body }));
    this.asked += 1;
  }

  /** `current` is not needed after a one-time login. The server ends all other sessions of the user. */
  async changePassword(chosen: string, current?: string): Promise<void> {
    this.asked += 1;
    this.who = await ask(api.PUT('/api/v1/session/password', { body: { new: chosen, current } }));
    this.asked += 1;
  }

  async end(): Promise<void> {
    await ask(api.DELETE('/api/v1/session'));
    this.over();
  }
}

export const login = new Login();
