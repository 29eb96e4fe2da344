/** The addresses of the customer's page. Pure. */

export type MyPage = { name: 'rentals' } | { name: 'rental'; id: string } | { name: 'nowhere' };

export const MINE = '/my';

export function isMine(path: string): boolean {
  return path === MINE || path.startsWith(`${MINE}/`);
}

export function myPageOf(path: string): MyPage {
  if (path === MINE || path === `${MINE}/`) return { name: 'rentals' };
  const rental = /^\/my\/rentals\/(l_[a-z0-9]+)$/.exec(path);
  return rental ? { name: 'rental', id: rental[1]! } : { name: 'nowhere' };
}

/** The secret of a link, which stands behind `#`: browsers do not send that. */
export function tokenIn(hash: string): string | undefined {
  return /^#token=([^&]+)$/.exec(hash)?.[1];
}
