/** People and programs, as the page names them. Pure. */

/** `user:ada` is `ada`, with a token `ada (token t_...)`; the local socket is the command line on the gateway. */
export function authorOf(principal: string): string {
  if (principal === 'user:local') return 'the command line';
  if (principal === 'system') return 'the gateway';
  return principal.replace(/^user:/, '').replace(/^token:/, 'token ').replace(/\/(t_\w+)$/, ' (token $1)');
}

interface Known {
  expires?: string | null;
  sticky: boolean;
}

/** When an acknowledgement ends, if it does not expire before. */
export function endOf(ack: Known): string {
  return ack.sticky ? 'until it recovers' : 'until the state changes';
}
