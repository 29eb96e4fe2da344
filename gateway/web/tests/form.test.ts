import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Refused } from '../src/api/client';
import { parseLabels } from '../src/lib/labels';
import { Form } from '../src/state/form.svelte';
import { PastList } from '../src/state/past.svelte';
import { WatchedList } from '../src/state/watched.svelte';

describe('a form', () => {
  const labels = { label: 'Labels of the hosts', path: 'labels' };
  const form = new Form();
  form.add(labels);
  const refusing = (problem: object) => form.send(() => Promise.reject(new Refused(422, 'refused', problem)));

  it('has what was refused at its field, and the rest apart', async () => {
    expect(await refusing({ errors: [{ field: 'labels', detail: 'too many' }, { field: 'until', detail: 'missing' }] })).toBe(false);
    expect([form.wrongOf(labels), form.wrong, form.busy]).toEqual(['Labels of the hosts: too many', 'Until: missing', false]);
  });

  it('has a refusal without a field as a whole', async () => {
    await refusing({});
    expect([form.wrongOf(labels), form.wrong]).toEqual(['', 'refused']);
  });

  it('has what the page itself refuses at its field', async () => {
    await form.send(async () => parseLabels('berlin'));
    expect([form.wrongOf(labels), form.wrong]).toEqual(['Labels of the hosts: "berlin" is not a label: write key=value', '']);
  });

  it('forgets what was refused when it is sent again', async () => {
    expect(await form.send(() => Promise.resolve())).toBe(true);
    expect([form.wrongOf(labels), form.wrong]).toEqual(['', '']);
  });
});

describe('a watched list', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('keeps what it has when a load fails, and no older answer undoes a newer one', async () => {
    const answers: ((items: string[] | Error) => void)[] = [];
    const ask = () => new Promise<string[]>((done, fail) => void answers.push((items) => (items instanceof Error ? fail(items) : done(items))));
    const watched = new WatchedList(ask, ['grant.']);
    const stop = watched.watch();
    watched.load();
    await vi.advanceTimersByTimeAsync(2000);
    expect(answers.length).toBe(2);
    answers[1]!(['new']);
    answers[0]!(['old']);
    await vi.advanceTimersByTimeAsync(2000);
    expect([watched.list, watched.wrong]).toEqual([['new'], '']);
    watched.load();
    answers[2]!(new Error('away'));
    await vi.advanceTimersByTimeAsync(0);
    expect([watched.list, watched.wrong]).toEqual([['new'], 'away']);
    stop();
  });
});

it('past objects are loaded page by page, and again from the first one', async () => {
  const load = vi.fn(async (after: string | undefined) => (after ? { items: [1], next: null } : { items: [3, 2], next: 'x' }));
  const past = new PastList(load);
  await past.again();
  expect(load).not.toHaveBeenCalled();
  await past.more();
  await past.more();
  expect([past.items, past.next]).toEqual([[3, 2, 1], undefined]);
  await past.again();
  expect([past.items, past.next]).toEqual([[3, 2], 'x']);
});
