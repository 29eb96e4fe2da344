/** The gateway's public API, typed from its description. The page uses nothing else. */

import createClient, { type Middleware } from 'openapi-fetch';
import type { paths } from '../../generated/schema';
import { base } from '../lib/base';
import { lineOf } from '../lib/fields';
import { conflictWords } from '../lib/rental';
import type { Conflict, ProblemDocument } from './types';

/** What went wrong, in the API's words, with the problem document where the answer has one. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly problem: Partial<ProblemDocument> = {},
  ) {
    super(message);
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What occupies a device that was to be booked. */
export function conflictOf(error: unknown): Conflict | undefined {
  return error instanceof Refused ? (error.problem.conflict ?? undefined) : undefined;
}

type Listener = { onDate?: (ms: number, tookMs: number) => void; onUnauthorized?: () => void };
const listeners: Listener = {};

/** `onDate` receives the server's clock with every answer and its duration; `onUnauthorized` the end of the session. */
export function listen(to: Listener): void {
  Object.assign(listeners, to);
}

const sent = new WeakMap<Request, number>();

const watch: Middleware = {
  onRequest({ request }) {
    sent.set(request, performance.now());
    if (request.method !== 'GET') request.headers.set('X-Fleetgate', 'dashboard');
    return request;
  },
  onResponse({ response, request }) {
    const date = Date.parse(response.headers.get('date') ?? '');
    const start = sent.get(request);
    if (start !== undefined && !Number.isNaN(date)) listeners.onDate?.(date, performance.now() - start);
    // A wrong current password does not end the session, and a used link does not end that of the same browser.
    const login = /\/(session(\/password)?|my\/login)$/.test(request.url);
    if (response.status === 401 && !login) listeners.onUnauthorized?.();
  },
};

/** A client of some of the paths, whose answers are listened to. */
export function clientOf<Paths extends object>() {
  const client = createClient<Paths>({ baseUrl: base, credentials: 'same-origin' });
  client.use(watch);
  return client;
}

export const api = clientOf<paths>();

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The data of an answer, or an error that can be shown. */
export async function ask<T>(answer: Promise<Answer<T>>): Promise<T> {
  let got: Answer<T>;
  try {
    got = await answer;
  } catch {
    throw new Refused(0, 'The gateway does not answer. Try again in a moment.');
  }
  if (got.response.ok) return got.data as T;
  const problem = (typeof got.error === 'object' && got.error !== null ? got.error : {}) as Partial<ProblemDocument>;
  throw new Refused(got.response.status, inWords(problem, got.response.status), problem);
}

/** What the page says instead of the API, which writes for programs. */
const WORDS: Partial<Record<string, string>> = {
  changed_meanwhile: 'It was changed meanwhile. Close this and look at the change. Then repeat yours if it is still wanted.',
};

/** `detail` has the first wrong field, by its path; `errors` has all of them. */
export function inWords(problem: Partial<ProblemDocument>, status: number): string {
  const errors = problem.errors ?? [];
  if (errors.length > 0) return errors.map(lineOf).join('; ');
  if (problem.conflict) return conflictWords(problem.conflict);
  return WORDS[problem.code ?? ''] ?? (problem.detail || problem.title || `The gateway answered with status ${status}.`);
}

export interface PageOf<T> {
  items: T[];
  next?: string | null;
}

/** Follows `next` until the last page, or until `take` returns false. */
export async function pages<T>(
  load: (after: string | undefined) => Promise<PageOf<T>>,
  take: (items: T[]) => boolean | void,
): Promise<void> {
  let after: string | undefined;
  do {
    const page = await load(after);
    if (take(page.items) === false) return;
    after = page.next ?? undefined;
  } while (after !== undefined);
}

/** The first items of all pages, at most `most`, and whether there are more. */
export async function some<T>(load: (after: string | undefined) => Promise<PageOf<T>>, most: number): Promise<{ items: T[]; more: boolean }> {
  const items: T[] = [];
  let next: string | undefined;
  do {
    const page = await load(next);
    items.push(...page.items);
    next = page.next ?? undefined;
  } while (next !== undefined && items.length < most);
  return { items: items.slice(0, most), more: next !== undefined || items.length > most };
}

/** The first items of all pages, at most `most`. */
export async function first<T>(load: (after: string | undefined) => Promise<PageOf<T>>, most: number): Promise<T[]> {
  return (await some(load, most)).items;
}

/** All items of all pages. */
export async function all<T>(load: (after: string | undefined) => Promise<PageOf<T>>): Promise<T[]> {
  const found: T[] = [];
  await pages(load, (items) => void found.push(...items));
  return found;
}
