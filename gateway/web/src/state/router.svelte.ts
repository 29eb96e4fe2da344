/** The page of an address, as the address bar has it. */

import { base, within } from '../lib/base';

export class Router<P extends { name: string }> {
  /** Within the page, wherever that is served. */
  path = $state(within(base, location.pathname));
  search = $state(location.search);
  private readonly pageOf: (path: string) => P;
  page = $derived.by(() => this.pageOf(this.path));
  /** The scroll position of each address, so that "back" leads to the same rows. */
  private scrolled = new Map<string, number>();

  /** `pageOf` names what is none of its pages `nowhere`. */
  constructor(pageOf: (path: string) => P) {
    this.pageOf = pageOf;
  }

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
    if (this.pageOf(path).name === 'nowhere') return;
    event.preventDefault();
    this.go(path + link.search);
  }
}
