import { beforeEach, describe, expect, it, vi } from 'vitest';

vi.hoisted(() => void (process.env.TZ = 'Europe/Vienna'));
const { logIn, mySession } = vi.hoisted(() => ({ logIn: vi.fn(), mySession: vi.fn() }));
vi.mock('../src/api/mine', () => ({ logIn, mySession, logOut: vi.fn() }));

import { Refused } from '../src/api/client';
import type { MyRental } from '../src/api/mine';
import { deviceWords, grouped, linesOf, metricOf, newestFirst, stateWords, whenWords } from '../src/lib/mine';
import { isMine, myPageOf, tokenIn } from '../src/lib/my-paths';
import { pageOf } from '../src/lib/paths';
import { session } from '../src/my/session.svelte';

const at = (time: string): number => Date.parse(`2026-12-10T${time}Z`);
const rental = (id: string, of: Partial<MyRental> = {}): MyRental => ({
  id, name: id, addresses: ['10.112.4.1'], state: 'active', from: '2026-12-10T12:00:00Z', until: '2026-12-10T18:00:00Z', delayed: [], ssh: false,
  device: { name: id }, services: [], ...of,
});

describe('the addresses of the page', () => {
  it('are those of customers alone', () => {
    expect(['/my', '/my/', '/my/rentals/l_1', '/myself', '/', '/rentals'].map(isMine)).toEqual([true, true, true, false, false, false]);
    expect([myPageOf('/my'), myPageOf('/my/')]).toEqual([{ name: 'rentals' }, { name: 'rentals' }]);
    expect(myPageOf('/my/rentals/l_38h601nahgbz6')).toEqual({ name: 'rental', id: 'l_38h601nahgbz6' });
    for (const path of ['/my/rentals/', '/my/rentals/b_1', '/my/x', '/hosts/cam-1', '/']) expect(myPageOf(path).name, path).toBe('nowhere');
    expect(pageOf('/my').name).toBe('nowhere');
  });

  it('have the secret of a link behind the hash, and nothing else counts as one', () => {
    expect(tokenIn('#token=fgl_abc')).toBe('fgl_abc');
    expect(['', '#', '#token=', '#main', '#fgl_abc', '?token=fgl_abc'].map(tokenIn)).toEqual(Array(6).fill(undefined));
  });
});

describe('rentals for their customer', () => {
  it('are those of now, next and past, each in its order', () => {
    const list = [
      rental('long', { until: '2026-12-12T18:00:00Z' }), rental('short'), rental('late', { state: 'overdue', until: '2026-12-09T18:00:00Z' }),
      rental('far', { state: 'booked', from: '2026-12-20T12:00:00Z' }), rental('near', { state: 'held', from: '2026-12-11T12:00:00Z' }),
      rental('old', { state: 'closed', until: '2026-11-01T00:00:00Z' }), rental('cleaned', { state: 'cleaning', until: '2026-12-08T00:00:00Z' }), rental('odd', { state: 'lost' as MyRental['state'], until: '2026-10-01T00:00:00Z' }),
    ];
    const { now, next, past } = grouped(list);
    expect([now, next, past].map((group) => group.map(({ id }) => id))).toEqual([['late', 'short', 'long'], ['near', 'far'], ['cleaned', 'old', 'odd']]);
  });

  it('say when they begin and end', () => {
    const words = (state: MyRental['state'], time: string) => whenWords(rental('a', { state }), at(time));
    expect([words('active', '15:00:00'), words('booked', '09:55:00'), words('preparing', '11:59:00')]).toEqual(['ends in 3 h', 'begins in 2 h 5 min', 'begins in 1 min']);
    expect([words('closed', '18:12:00'), words('cancelled', '18:12:00'), words('failed', '13:00:00')]).toEqual(['ended 12 min ago', '', '']);
    expect([words('delayed', '13:00:00'), words('overdue', '20:00:00')]).toEqual(['begins as soon as the device is ready', 'please send the device back now']);
  });

  it('have words for each state, and a calm tone', () => {
    expect([stateWords('active'), stateWords('delayed'), stateWords('cleaning'), stateWords('lost')]).toEqual([
      { word: 'Running', tone: 'good' }, { word: 'Delayed', tone: 'warn' }, { word: 'Ended', tone: 'quiet' }, { word: 'lost', tone: 'quiet' },
    ]);
    expect([deviceWords('up'), deviceWords(null), deviceWords('asleep')]).toEqual(['The device is online', '', 'The device is asleep']);
  });

  it('have their values as the bars take them, and the newest change first', () => {
    expect(metricOf({ name: 'rtt', unit: 'ms', value: 0.4, warn: '200' })).toEqual({ label: 'rtt', uom: 'ms', value: 0.4, warn: '200', crit: undefined, min: undefined, max: undefined });
    const changes = [{ at: '2026-12-10T12:00:00Z', status: 'up' }, { at: '2026-12-10T13:00:00Z', status: 'down' }, { at: '2026-12-10T13:00:00Z', service: 'ping', status: 'critical' }];
    expect(newestFirst(changes).map(({ status }) => status)).toEqual(['critical', 'down', 'up']);
  });
});

describe('the values of a rental', () => {
  const columns = { min: [1, null, 3], avg: [2, null, 4], max: [3, null, 9], count: [2, 0, 2] };
  const values = { start: '2026-12-10T12:00:00Z', step_s: 300, tier: '5m' as const, truncated: false };

  it('are a line for each metric that has any', () => {
    const none = { min: [null], avg: [null], max: [null], count: [0] };
    const lines = linesOf({ ...values, series: [{ service: 'ping', name: 'rta', unit: 'ms', ...columns }, { name: 'x', unit: '', ...none }, { name: 'load', unit: '', ...columns }] });
    expect(lines.map(({ service, name, words }) => [service, name, words])).toEqual([['ping', 'rta', '1 ms to 9 ms, last 4 ms'], ['', 'load', '1 to 9, last 4']]);
    expect(lines[0]!.spark.path).toMatch(/^M/);
  });

  it('are none while there is no time of them', () => {
    expect(linesOf({ ...values, start: null, tier: null, step_s: 0, series: [] })).toEqual([]);
  });
});

describe('the session of a person', () => {
  const me = { person: { id: 'y_1', name: 'Ada' }, customer: { id: 'k_1', name: 'Ada Ltd' }, time: '2026-12-10T12:00:00Z', expires_at: '2026-12-11T00:00:00Z' };
  const refused = () => Promise.reject(new Refused(401, 'this link was used'));

  beforeEach(() => void vi.resetAllMocks());

  it('begins with a link', async () => {
    logIn.mockResolvedValue(me);
    await session.begin('fgl_abc');
    expect([session.stage, session.me]).toEqual(['open', me]);
    expect([logIn.mock.calls, mySession.mock.calls]).toEqual([[['fgl_abc']], []]);
  });

  it('says that a link was used, and offers the session that the browser had', async () => {
    logIn.mockImplementation(refused);
    mySession.mockResolvedValue(me);
    await session.begin('fgl_abc');
    expect(session.stage).toBe('link');
    session.resume((await session.former())!);
    expect([session.stage, session.me]).toEqual(['open', me]);
  });

  it('tries the same link again after no answer: it is still good', async () => {
    logIn.mockRejectedValueOnce(new Refused(0, 'no connection')).mockResolvedValue(me);
    await session.begin('fgl_abc');
    expect([session.stage, session.wrong]).toEqual(['away', 'no connection']);
    await session.again();
    expect([session.stage, logIn.mock.calls]).toEqual(['open', [['fgl_abc'], ['fgl_abc']]]);
  });

  it('is over without a session, and when it ends', async () => {
    mySession.mockImplementationOnce(refused).mockResolvedValue(me);
    await session.begin(undefined);
    expect([session.stage, session.me]).toEqual(['over', undefined]);
    await session.begin(undefined);
    session.over();
    expect([session.stage, session.me]).toEqual(['over', undefined]);
  });
});
