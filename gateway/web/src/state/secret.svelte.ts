/**
 * The secret that is shown once: a configuration, a login link, or the command of an enrolment token. It stands above the pages, so
 * that no way of leaving a page loses it, and nothing of it is kept after it was closed.
 */

import type { Credentials, Device, KeyedRenter, Operator } from '../api/types';

export type Shown =
  | { kind: 'device'; title: string; device: Device; credentials: Credentials }
  | { kind: 'operator'; title: string; operator: Operator; credentials: Credentials }
  | { kind: 'renter'; title: string; name: string; renter: KeyedRenter; credentials: Credentials }
  | { kind: 'link'; title: string; url: string; expires: string }
  | { kind: 'token'; title: string; command: string; hint: string; user: string };

class Secret {
  shown = $state.raw<Shown | undefined>();

  show(shown: Shown): void {
    this.shown = shown;
  }

  forget(): void {
    this.shown = undefined;
  }
}

export const secret = new Secret();
