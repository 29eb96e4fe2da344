/** The offset between the gateway's clock and the reader's, from the `Date` of answers. Pure. */

/** `Date` is cut to whole seconds. */
const CUT_MS = 1000;

/**
 * The gateway said `date` at some moment between `sent` and `received`, both by the reader's clock.
 * An offset that agrees with this is kept; a slow answer proves little, and so changes nothing.
 */
export function agree(offset: number, date: number, sent: number, received: number): number {
  const least = date - received;
  const most = date + CUT_MS - sent;
  return offset >= least && offset <= most ? offset : (least + most) / 2;
}
