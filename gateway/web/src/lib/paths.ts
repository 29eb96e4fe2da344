/** Maps an address to a page. Pure. */

export type Page =
  | { name: 'now' }
  | { name: 'login' }
  | { name: 'host'; key: string }
  | { name: 'incidents' }
  | { name: 'incident'; id: string }
  | { name: 'downtimes' }
  | { name: 'access' }
  | { name: 'compare' }
  | { name: 'rentals' }
  | { name: 'rental-report'; id: string }
  | { name: 'customer'; id: string }
  | { name: 'enrolments' }
  | { name: 'restore-review' }
  | { name: 'nowhere' };

const PAGES: Record<string, Page> = {
  '/': { name: 'now' },
  '/login': { name: 'login' },
  '/enrolments': { name: 'enrolments' },
  '/incidents': { name: 'incidents' },
  '/downtimes': { name: 'downtimes' },
  '/access': { name: 'access' },
  '/compare': { name: 'compare' },
  '/rentals': { name: 'rentals' },
  '/restore-review': { name: 'restore-review' },
};

/** Names and ids need no escaping; text that does is not a host. */
export function pageOf(path: string): Page {
  const host = /^\/hosts\/([a-z0-9._-]+)$/.exec(path);
  if (host) return { name: 'host', key: host[1]! };
  const incident = /^\/incidents\/(i_[a-z0-9]+)$/.exec(path);
  if (incident) return { name: 'incident', id: incident[1]! };
  const report = /^\/rentals\/(l_[a-z0-9]+)\/report$/.exec(path);
  if (report) return { name: 'rental-report', id: report[1]! };
  const customer = /^\/customers\/(k_[a-z0-9]+)$/.exec(path);
  if (customer) return { name: 'customer', id: customer[1]! };
  return Object.hasOwn(PAGES, path) ? PAGES[path]! : { name: 'nowhere' };
}

/** Accepts only our own pages: an address in a query must not lead elsewhere. */
export function ownPath(path: string | null): string {
  if (!path) return '/';
  const page = pageOf(path.split('?', 1)[0]!).name;
  return page === 'nowhere' || page === 'login' ? '/' : path;
}
