/** Users and their operators, as whole lists. */

import { all, api, ask } from './client';
import type { Operator, User } from './types';

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
