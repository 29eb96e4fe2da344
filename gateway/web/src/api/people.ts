/** Users and their operators, as whole lists. */

import { api, ask, pages } from './client';
import type { Operator, User } from './types';

const PAGE = 500;

/** The users that may have grants and operators, by name. For admins. */
export async function ableUsers(): Promise<User[]> {
  const found: User[] = [];
  await pages(
    (after) => ask(api.GET('/api/v1/users', { params: { query: { limit: PAGE, after } } })),
    (items) => void found.push(...items),
  );
  return found.filter((user) => user.role !== 'viewer' && !user.disabled_at);
}

/** All operators by name. */
export async function allOperators(): Promise<Operator[]> {
  const found: Operator[] = [];
  await pages(
    (after) => ask(api.GET('/api/v1/operators', { params: { query: { limit: PAGE, after } } })),
    (items) => void found.push(...items),
  );
  return found;
}
