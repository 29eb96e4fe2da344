/** Where the page is served: '' at the root of a host, '/fleet' behind a proxy under that path. */

/** The scripts are below `assets/` of that place; in development they are not. */
export function baseOf(script: string): string {
  const path = new URL(script).pathname;
  const at = path.lastIndexOf('/assets/');
  return at < 0 ? '' : path.slice(0, at);
}

/** The address of a page within the page. */
export function within(base: string, path: string): string {
  return path === base ? '/' : path.startsWith(`${base}/`) ? path.slice(base.length) : path;
}

export const base = baseOf(import.meta.url);
