/** The current page, as the address bar has it. */

import { base, within } from '../lib/base';
import { pageOf } from '../lib/paths';

class Route {
  /** Within the page, wherever that is served. */
  path = $state(within(base, location.pathname));
  search = $state(location.search);
  page = $derived(pageOf(this.path));
  /** The scroll position of each address, so that "back" leads to the same rows. */
  private scrolled = new Map<string, number>();

  start(): void {
    history.scrollRestoration = 'manual';
    addEventListener('popstate', () => this.take(true));
    document.addEventListener('click', (event) => this.onClick(event));
  }

  go(to: string): void {
    this.scrolled.set(this.path, scrollY);
    history.pushState(null, '', base + to);
    this.take(false);
  }

  /** Shows another view of the same page, without a new step in the history. */
  replace(to: string): void {
    history.replaceState(null, '', base + to);
    this.path = within(base, location.pathname);
    this.search = location.search;
  }

  private take(back: boolean): void {
    this.path = within(base, location.pathname);
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
    const path = within(base, link.pathname);
    if (pageOf(path).name === 'nowhere') return;
    event.preventDefault();
    this.go(path + link.search);
  }
}

export const route = new Route();
