/** The `Idempotency-Key` of a form: a call that is sent again, because its answer was lost, has one effect. */

const KEY_BYTES = 16;

/** `crypto.randomUUID` is missing on a page that came over plain HTTP. */
function random(): string {
  return [...crypto.getRandomValues(new Uint8Array(KEY_BYTES))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

export class CallKey {
  private sent: { body: string; key: string } | undefined;

  /** The header of a call with this body: the same key until the form is edited or its call has succeeded. */
  header(body: unknown): { 'Idempotency-Key': string } {
    const text = JSON.stringify(body);
    if (this.sent?.body !== text) this.sent = { body: text, key: random() };
    return { 'Idempotency-Key': this.sent.key };
  }

  /** The call has succeeded: the next one is another, also with the same body. */
  done(): void {
    this.sent = undefined;
  }
}
