/** The session of the person who opened the page with a link. */

import { logIn, logOut, mySession, type MySession } from '../api/mine';
import { messageOf, Refused } from '../api/client';

/**
 * `opening`: the answer is awaited. `open`: there is a session. `link`: the link was refused. `over`: there is no session,
 * or not any more. `out`: the person has signed out. `away`: there was no answer.
 */
type Stage = 'opening' | 'open' | 'link' | 'over' | 'out' | 'away';

/** The API refuses a link with one of these: used, old or cut off. */
const REFUSES_LINK = [400, 401, 403, 404, 422];

class Session {
  stage = $state<Stage>('opening');
  me = $state.raw<MySession | undefined>();
  /** Why there was no answer. */
  wrong = $state('');
  private token: string | undefined;

  /** Opens the page with the secret of a link, or without one with the session of the browser. */
  async begin(token: string | undefined): Promise<void> {
    [this.stage, this.token, this.wrong] = ['opening', token, ''];
    try {
      this.me = token === undefined ? await mySession() : await logIn(token);
      [this.stage, this.token] = ['open', undefined];
    } catch (error) {
      this.refuse(error);
    }
  }

  /** Once more, with the same link: a link whose call did not arrive is still good. */
  again(): Promise<void> {
    return this.begin(this.token);
  }

  /** After a refused link: the session that this browser had before, if it has one. */
  async former(): Promise<MySession | undefined> {
    return mySession().catch(() => undefined);
  }

  resume(me: MySession): void {
    [this.me, this.stage] = [me, 'open'];
  }

  /** The session has ended on the server. */
  over(): void {
    if (this.stage === 'open') this.close('over');
  }

  async leave(): Promise<void> {
    await logOut();
    this.close('out');
  }

  private close(stage: Stage): void {
    [this.me, this.stage] = [undefined, stage];
  }

  private refuse(error: unknown): void {
    const status = error instanceof Refused ? error.status : 0;
    if (this.token !== undefined && REFUSES_LINK.includes(status)) [this.stage, this.token] = ['link', undefined];
    else if (status === 401) this.close('over');
    else [this.stage, this.wrong] = ['away', messageOf(error)];
  }
}

export const session = new Session();
