/** Users with their operators, and the people of customers with their renters, as whole lists. */

import { all, api, ask } from './client';
import type { Operator, Person, Renter, User } from './types';

const PAGE = 500;

/** The users that may have grants and operators, by name. For admins. */
export async function ableUsers(): Promise<User[]> {
  const users = await all((after) => ask(api.GET('/api/v1/users', { params: { query: { limit: PAGE, after } } })));
  return users.filter((user) => user.role !== 'viewer' && !user.disabled_at);
}

/** All operators by name. */
export function allOperators(): Promise<Operator[]> {
  return all((after) => ask(api.GET('/api/v1/operators', { params: { query: { limit: PAGE, after } } })));
}

/** The people of a customer. */
export function peopleOf(customer: string): Promise<Person[]> {
  return all((after) => ask(api.GET('/api/v1/people', { params: { query: { customer, limit: PAGE, after } } })));
}

/** The renters of all people of a customer. */
export function rentersOf(customer: string): Promise<Renter[]> {
  return all((after) => ask(api.GET('/api/v1/renters', { params: { query: { customer, limit: PAGE, after } } })));
}

/** Both, for the names of renters. */
export async function rentersWithPeople(customer: string): Promise<{ people: Person[]; renters: Renter[] }> {
  const [people, renters] = await Promise.all([peopleOf(customer), rentersOf(customer)]);
  return { people, renters };
}
