/**
 * A form: whether it is being sent, and what was refused. Its fields (`parts/Field.svelte`) register here, so that an
 * error of the API stands at its field, under the label that the form has for it.
 */

import { createContext } from 'svelte';
import { messageOf, Refused } from '../api/client';
import type { FieldError } from '../api/types';
import { type FormField, type Refusals, refusalsOf, WrongField } from '../lib/fields';

const NONE: Refusals<FormField> = { fields: new Map(), rest: [] };

export class Form {
  busy = $state(false);
  private refused = $state.raw(NONE);
  private readonly fields = new Set<FormField>();

  /** What is wrong with none of the fields. */
  get wrong(): string {
    return this.refused.rest.join('; ');
  }

  wrongOf(field: FormField): string {
    return this.refused.fields.get(field) ?? '';
  }

  /** Adds a field until the returned function is called. */
  add(field: FormField): () => void {
    this.fields.add(field);
    return () => this.fields.delete(field);
  }

  /** Returns whether `act` succeeded. */
  async send(act: () => Promise<unknown>): Promise<boolean> {
    if (this.busy) return false;
    this.clear();
    this.busy = true;
    try {
      await act();
      return true;
    } catch (error) {
      const errors = errorsOf(error);
      this.refused = errors.length > 0 ? refusalsOf(errors, this.fields) : { ...NONE, rest: [messageOf(error)] };
      return false;
    } finally {
      this.busy = false;
    }
  }

  clear(): void {
    this.refused = NONE;
  }
}

function errorsOf(error: unknown): FieldError[] {
  if (error instanceof WrongField) return [{ field: error.field, detail: error.detail }];
  return error instanceof Refused ? (error.problem.errors ?? []) : [];
}

/** The form around a part. */
export const [formOf, setForm] = createContext<Form>();
