/** Errors of the API, which names fields by their path, under the labels of a form. Pure. */

import type { FieldError } from '../api/types';
import { sentence } from './verdict';

/** A value that the page itself refuses, with the path that the API has for it. */
export class WrongField extends Error {
  constructor(
    readonly field: string,
    readonly detail: string,
  ) {
    super(detail);
  }
}

/** A field of a form. `path`: where its value is in the request. */
export interface FormField {
  readonly label: string;
  readonly path: string | undefined;
}

/** What is wrong with each field of a form, and what is wrong with none of them. */
export interface Refusals<F> {
  fields: ReadonlyMap<F, string>;
  rest: readonly string[];
}

export function refusalsOf<F extends FormField>(errors: readonly FieldError[], fields: Iterable<F>): Refusals<F> {
  const all = [...fields];
  const found = new Map<F, string>();
  const rest: string[] = [];
  for (const error of errors) {
    const field = fieldOf(all, error.field);
    if (!field) rest.push(lineOf(error));
    else found.set(field, [found.get(field), `${labelIn(field, error.field)}: ${error.detail}`].filter(Boolean).join('; '));
  }
  return { fields: found, rest };
}

/** An error without a form: `Ports (second row): at most 64 are expected`. */
export function lineOf({ field, detail }: FieldError): string {
  return field ? `${wordsOf(field)}: ${detail}` : detail;
}

/** The field with the longest path that the error is in: `labels` also has `labels.site` and `labels[0]`. */
function fieldOf<F extends FormField>(fields: readonly F[], path: string): F | undefined {
  const holds = (own: string | undefined): boolean => own !== undefined && (path === own || path.startsWith(`${own}.`) || path.startsWith(`${own}[`));
  const length = (field: F | undefined): number => field?.path?.length ?? -1;
  return fields.filter((field) => holds(field.path)).reduce<F | undefined>((best, field) => (length(field) > length(best) ? field : best), undefined);
}

/** `Labels (site)`, `Networks (third row)`: the label of a field, and where in it the error is. */
function labelIn({ label, path }: FormField, error: string): string {
  const rest = error.slice(path?.length ?? 0);
  return withPlace(label, [...rowsIn(rest), ...namesIn(rest)]);
}

/** `Ports (second row)` for `access[1].ports`. */
function wordsOf(path: string): string {
  return withPlace(sentence(namesIn(path).at(-1) ?? ''), rowsIn(path));
}

function withPlace(label: string, place: readonly string[]): string {
  return place.length > 0 ? `${label} (${place.join(', ')})` : label;
}

function namesIn(path: string): string[] {
  return path.replaceAll(/\[\d+\]/g, '').split('.').filter(Boolean).map((name) => name.replaceAll('_', ' '));
}

function rowsIn(path: string): string[] {
  return [...path.matchAll(/\[(\d+)\]/g)].map(([, index]) => rowOf(Number(index)));
}

const ORDINALS = ['first', 'second', 'third', 'fourth', 'fifth', 'sixth', 'seventh', 'eighth', 'ninth', 'tenth'];

function rowOf(index: number): string {
  return index < ORDINALS.length ? `${ORDINALS[index]} row` : `row ${index + 1}`;
}
