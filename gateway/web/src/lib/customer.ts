/** Customers for people: names, choices in a form, and how a change is sent. Pure. */

import type { Customer, CustomerContact } from '../api/types';

/** Its name, or else the reference of the client, or else its id. */
export function customerName(customer: Pick<Customer, 'id' | 'name' | 'external_ref'>): string {
  return customer.name || customer.external_ref || customer.id;
}

/** The id of the one customer that has this id, reference or name; otherwise the text, of which the API says what is wrong. */
export function customerOf(text: string, customers: readonly Customer[]): string {
  const wanted = text.trim();
  const exact = customers.find((one) => one.id === wanted || one.external_ref === wanted);
  if (exact) return exact.id;
  const named = customers.filter((one) => one.name.toLowerCase() === wanted.toLowerCase());
  return named.length === 1 ? named[0]!.id : wanted;
}

/** What a list of customers offers: a name that two of them have leads to neither, so each has its reference or id. */
export function customerChoice(customer: Customer, customers: readonly Customer[]): string {
  const { name, external_ref: reference, id } = customer;
  return name && customerOf(name, customers) === id ? name : (reference ?? id);
}

/** Whether a customer has the text in its name, reference or contacts. */
export function customerMatches(customer: Customer, text: string): boolean {
  const wanted = text.trim().toLowerCase();
  const contacts = customer.contacts.flatMap(({ name, email, phone }) => [name, email, phone]);
  return [customer.id, customer.name, customer.external_ref, ...contacts].some((one) => one?.toLowerCase().includes(wanted));
}

/** `Ada, ada@example.org, +43 1 234`. */
export function contactWords({ name, email, phone }: CustomerContact): string {
  return [name, email, phone].filter(Boolean).join(', ');
}

/** The contacts of a form: an empty line is none, and an empty field is left out. */
export function contactsFrom(rows: readonly CustomerContact[]): CustomerContact[] {
  const filled = rows.map((row) => Object.fromEntries(Object.entries(row).flatMap(([key, text]) => (text?.trim() ? [[key, text.trim()]] : []))));
  return filled.filter((row) => Object.keys(row).length > 0);
}

type Changeable = Pick<Customer, 'name' | 'external_ref' | 'contacts'>;

/** The fields that differ from the customer as it is; `null`: no reference any more. */
export function customerChanges(before: Changeable, after: Changeable): Partial<Changeable> {
  const same = (a: CustomerContact[], b: CustomerContact[]): boolean => JSON.stringify(a.map(plain)) === JSON.stringify(b.map(plain));
  return {
    ...(before.name === after.name ? {} : { name: after.name }),
    ...((before.external_ref ?? null) === (after.external_ref ?? null) ? {} : { external_ref: after.external_ref ?? null }),
    ...(same(before.contacts, after.contacts) ? {} : { contacts: after.contacts }),
  };
}

const plain = ({ name, email, phone }: CustomerContact): (string | null)[] => [name ?? null, email ?? null, phone ?? null];
