/**
 * What is shown once. It stands above the pages, so that no way of leaving a page loses it, and nothing of it is
 * kept after it was closed.
 */

import type { Credentials, Device } from '../api/types';

export interface Shown {
  title: string;
  device: Device;
  credentials: Credentials;
}

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
