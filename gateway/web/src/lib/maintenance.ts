/** The maintenance that is planned within a rental. Pure. */

import type { RentalMaintenance } from '../api/types';
import { millis } from './format';
import { windowOf } from './moment';

/** The window as that of a rental, and the comment: `... to ...: new lens`. */
export function maintenanceWords({ from, until, comment }: RentalMaintenance): string {
  const when = windowOf(millis(from) ?? 0, millis(until) ?? 0);
  return comment ? `${when}: ${comment}` : when;
}
