/** The maintenance that is planned within a rental. Pure apart from the zone of the reader. */

import type { Rental, RentalMaintenance } from '../api/types';
import { fromLocal, toLocal } from './downtime';
import { WrongField } from './fields';
import { millis } from './format';
import { windowOf, withOffset } from './moment';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** The window as that of a rental, and the comment: `... to ...: new lens`. */
export function maintenanceWords({ from, until, comment }: RentalMaintenance): string {
  const when = windowOf(millis(from) ?? 0, millis(until) ?? 0);
  return comment ? `${when}: ${comment}` : when;
}

/** A line of a form, with times as `<input type="datetime-local">` has them. */
export interface MaintenanceRow {
  from: string;
  until: string;
  comment: string;
  /** What it was before; absent for a new one. */
  former?: RentalMaintenance;
}

export function maintenanceRows(planned: readonly RentalMaintenance[]): MaintenanceRow[] {
  return planned.map((former) => ({ from: local(former.from), until: local(former.until), comment: former.comment ?? '', former }));
}

const local = (time: string): string => toLocal(millis(time) ?? 0);

/** A new line: an hour from now or from the begin of the rental, and not beyond its end. */
export function newMaintenance({ from, until }: Pick<Rental, 'from' | 'until'>, now: number): MaintenanceRow {
  const end = millis(until) ?? 0;
  const begin = Math.ceil(Math.max(millis(from) ?? 0, now) / MINUTE) * MINUTE;
  return { from: toLocal(begin), until: toLocal(Math.min(begin + HOUR, end)), comment: '' };
}

/** The maintenance of a form. `path`: where the API has it. A time that was not touched keeps its seconds. */
export function maintenanceFrom(rows: readonly MaintenanceRow[], path: string): RentalMaintenance[] {
  return rows.map(({ from, until, comment, former }, n) => ({
    from: timeOf(from, former?.from, `${path}[${n}].from`),
    until: timeOf(until, former?.until, `${path}[${n}].until`),
    ...(comment.trim() ? { comment: comment.trim() } : {}),
  }));
}

function timeOf(text: string, former: string | undefined, path: string): string {
  if (former !== undefined && local(former) === text) return former;
  const ms = fromLocal(text);
  if (ms === undefined) throw new WrongField(path, 'a date and a time are expected');
  return withOffset(ms);
}
