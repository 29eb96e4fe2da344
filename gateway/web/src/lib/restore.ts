/** What a restore brought back, in words. Pure. */

import type { ReviewList } from '../api/types';

/** The title of a list, and where its objects are changed: a page, or else a command. */
interface KindWords {
  title: string;
  page?: string;
  command?: string;
}

const KINDS: Record<string, KindWords> = {
  user: { title: 'Users who can log in', command: 'fleetgate user' },
  operator: { title: 'Operators', page: '/access' },
  renter: { title: 'Renters', page: '/rentals' },
  token: { title: 'API tokens', command: 'fleetgate token' },
  grant: { title: 'Grants', page: '/access' },
  rental: { title: 'Rentals', page: '/rentals' },
  subscription: { title: 'Subscriptions to events of rentals', command: 'fleetgate subscription' },
  enrolment_token: { title: 'Enrolment tokens', command: 'fleetgate token' },
};

/** A kind that this page does not know yet is shown by its name. */
export function kindWords(kind: string): KindWords {
  return KINDS[kind] ?? { title: kind };
}

/** How many objects of a kind are not listed. */
export function unlisted(list: Pick<ReviewList, 'total' | 'objects'>): number {
  return Math.max(0, list.total - list.objects.length);
}
