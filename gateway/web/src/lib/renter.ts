/** The people of a customer and their renters, in words and as a change is sent. Pure. */

import type { Person, Renter } from '../api/types';
import { WrongField } from './fields';
import { plural } from './format';

type Named = Pick<Person, 'id' | 'name' | 'email'>;
type Owned = Pick<Renter, 'id' | 'name' | 'person'>;

/** The name of a person, or else the mail address, or else the id. */
export function personName({ id, name, email }: Named): string {
  return name || email || id;
}

/** `ada-laptop of Ada`. */
export function renterName(renter: Pick<Renter, 'name' | 'person'>, people: readonly Named[]): string {
  const person = people.find(({ id }) => id === renter.person);
  return person ? `${renter.name} of ${personName(person)}` : renter.name;
}

/** The renters in the order of the people and of their names. */
export function byPerson<R extends Owned>(renters: readonly R[], people: readonly Named[]): R[] {
  const place = (renter: R): number => people.findIndex(({ id }) => id === renter.person);
  return [...renters].sort((a, b) => place(a) - place(b) || a.name.localeCompare(b.name));
}

/** Which renters a rental admits. One that is not among `renters` was removed. */
export function admittedWords(admits: readonly string[] | null | undefined, renters: readonly Owned[], people: readonly Named[]): string {
  if (!admits) return 'All of the customer';
  const present = byPerson(renters.filter(({ id }) => admits.includes(id)), people).map((one) => renterName(one, people));
  const removed = admits.length - present.length;
  const words = removed > 0 ? [...present, `${plural(removed, 'renter')} that ${removed === 1 ? 'was' : 'were'} removed`] : present;
  return words.join(', ') || 'None';
}

/** The renters that a form admits; `null`: all, also later ones. The page refuses to admit none by oversight. */
export function chosenRenters(chosen: readonly string[] | null, path: string): string[] | null {
  if (chosen?.length === 0) throw new WrongField(path, 'choose a renter, or let all of them in');
  return chosen && [...chosen];
}

/** What ends with a person: `ada-laptop and ada-phone`. */
export function listed(names: readonly string[]): string {
  return names.length < 2 ? (names[0] ?? '') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

/** As a form has it: an empty address is none. */
export interface PersonInput {
  name: string;
  email: string;
}

/** The fields that differ from the person as it is; `null`: no address any more. */
export function personChanges(before: Pick<Person, 'name' | 'email'>, after: PersonInput): { name?: string; email?: string | null } {
  const email = after.email || null;
  return {
    ...(before.name === after.name ? {} : { name: after.name }),
    ...((before.email || null) === email ? {} : { email }),
  };
}
