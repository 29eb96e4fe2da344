/** Which page is shown: the address bar is the truth. */

export type Page =
  | { name: 'now' }
  | { name: 'login' }
  | { name: 'host'; key: string }
  | { name: 'enrolments' }
  | { name: 'nowhere' };

export function pageOf(path: string): Page {
  const host = /^\/hosts\/([^/]+)$/.exec(path);
  if (host) return { name: 'host', key: decodeURIComponent(host[1]!) };
  if (path === '/') return { name: 'now' };
  if (path === '/login') return { name: 'login' };
  if (path === '/enrolments') return { name: 'enrolments' };
  return { name: 'nowhere' };
}

/** Only our own paths: an address that came in a query must not lead elsewhere. */
export function ownPath(path: string | null): string {
  return path && /^\/(?![/\\])/.test(path) && !path.startsWith('/login') ? path : '/';
}

class Route {
  path = $state(location.pathname);
  search = $state(location.search);
  page = $derived(pageOf(this.path));
  /** Where each address was scrolled to, so that "back" leads to the same rows. */
  private scrolled = new Map<string, number>();

  start(): void {
    history.scrollRestoration = 'manual';
    addEventListener('popstate', () => this.take(true));
    document.addEventListener('click', (event) => this.onClick(event));
  }

  go(to: string): void {
    this.scrolled.set(this.path, scrollY);
    history.pushState(null, '', to);
    this.take(false);
  }

  /** Another view of the same page: no new step in the history. */
  replace(to: string): void {
    history.replaceState(null, '', to);
    this.path = location.pathname;
    this.search = location.search;
  }

  private take(back: boolean): void {
    this.path = location.pathname;
    this.search = location.search;
    const top = back ? (this.scrolled.get(this.path) ?? 0) : 0;
    requestAnimationFrame(() => scrollTo(0, top));
  }

  /** Plain clicks on our own links stay in the page; all others are the browser's. */
  private onClick(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element).closest?.('a[href]');
    if (!(link instanceof HTMLAnchorElement) || link.target || link.origin !== location.origin) return;
    if (pageOf(link.pathname).name === 'nowhere') return;
    event.preventDefault();
    this.go(link.pathname + link.search);
  }
}

export const route = new Route();
