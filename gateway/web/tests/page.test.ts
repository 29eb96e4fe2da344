import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { headline, tabTitle } from '../src/lib/headline';
import { BadLabels, labelLines, labelPatch, parseLabelLines, parseLabels } from '../src/lib/labels';
import { agree } from '../src/lib/offset';
import { ownPath, pageOf } from '../src/lib/paths';
import { retryDelay } from '../src/lib/retry';
import { throttle } from '../src/lib/throttle';
import { windowOf } from '../src/lib/window';

const overview = (hosts: object, services: object, handled = 0) => ({
  hosts: { up: 0, down: 0, unreachable: 0, pending: 0, stale: 0, asleep: 0, ...hosts },
  services: { ok: 0, warning: 0, critical: 0, unknown: 0, pending: 0, stale: 0, ...services },
  problems: 0,
  handled,
  last_check: null,
  awaiting_approval: 0,
});

describe('the headline', () => {
  it('names what is wrong, the worst first', () => {
    const line = headline(overview({ up: 24, down: 1 }, { ok: 45, warning: 2, critical: 5 }));
    expect(line).toEqual({ kind: 'down', text: '1 host down, 5 services critical, 2 services warning' });
  });

  it('says that there are no problems only when something is up', () => {
    expect(headline(overview({ up: 3 }, { ok: 3 })).text).toBe('No problems');
    expect(headline(overview({ pending: 3 }, {})).kind).toBe('pending');
    expect(headline(overview({}, {})).text).toBe('No hosts yet');
  });

  it('counts stale hosts, and handled problems only without open ones', () => {
    expect(headline(overview({ up: 3, stale: 2 }, { ok: 3 })).text).toBe('2 hosts stale');
    const handled = headline(overview({ up: 3, handled: 1 }, { ok: 3, handled: 1 }, 2));
    expect(handled).toEqual({ kind: 'ok', text: 'No open problems, 2 handled' });
    expect(headline(overview({ up: 3, down: 1 }, {}, 2)).text).toBe('1 host down');
  });

  it('is short in the tab and never old', () => {
    const now = overview({ up: 24, down: 1 }, { critical: 5 });
    expect(tabTitle(now, false)).toBe('1 down · 5 critical · fleetgate');
    expect(tabTitle(now, true)).toBe('disconnected · fleetgate');
  });
});

describe('the window over a long list', () => {
  it('draws what is seen and a little more, and keeps the height', () => {
    const part = windowOf(50_000, 800, 50, 10_000);
    expect(part.first).toBe(992);
    expect(part.end).toBe(1024);
    expect(part.before + (part.end - part.first) * 50 + part.after).toBe(500_000);
  });

  it('stays inside the list', () => {
    expect(windowOf(-400, 800, 50, 1000)).toMatchObject({ first: 0, end: 16, before: 0 });
    expect(windowOf(1e6, 800, 50, 1000)).toMatchObject({ first: 1000, end: 1000, after: 0 });
    expect(windowOf(0, 800, 50, 0)).toMatchObject({ first: 0, end: 0 });
  });

  it('draws a short list whole', () => {
    expect(windowOf(1e6, 800, 50, 60)).toMatchObject({ first: 0, end: 60, before: 0, after: 0 });
  });
});

describe('a throttle', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('acts at once, then seldom, and never loses the last call', () => {
    const act = vi.fn();
    const call = throttle(act, 100);
    for (let i = 0; i < 10; i += 1) call();
    expect(act).toHaveBeenCalledTimes(1);
    vi.advanceTimersByTime(100);
    expect(act).toHaveBeenCalledTimes(2);
    vi.advanceTimersByTime(1000);
    expect(act).toHaveBeenCalledTimes(2);
  });
});

it('attempts to connect grow apart, up to a bound', () => {
  expect(retryDelay(0, 0.5)).toBe(500);
  expect(retryDelay(3, 0.5)).toBe(4000);
  expect(retryDelay(1000, 0.99)).toBeLessThan(20_000);
});

it('labels are taken as they are typed, or refused', () => {
  expect(parseLabels('site=berlin, uplink=lte  x=a=b')).toEqual({ site: 'berlin', uplink: 'lte', x: 'a=b' });
  expect(() => parseLabels('berlin')).toThrow(BadLabels);
});

describe('labels in a form', () => {
  it('are one per line, so that values keep their blanks', () => {
    const labels = { site: 'north side, hall 2', uplink: 'lte' };
    expect(parseLabelLines(labelLines(labels))).toEqual(labels);
    expect(() => parseLabelLines('site=a\nnonsense')).toThrow('"nonsense" is not a label');
  });

  it('are sent as a merge patch: changed ones with their value, dropped ones with null', () => {
    expect(labelPatch({ site: 'a', kind: 'cam', x: '1' }, { site: 'b', kind: 'cam', y: '2' })).toEqual({ site: 'b', x: null, y: '2' });
    expect(labelPatch({ site: 'a' }, { site: 'a' })).toEqual({});
  });
});

describe('an address', () => {
  it('shows the page it names', () => {
    expect(pageOf('/hosts/cam.site-7.example')).toEqual({ name: 'host', key: 'cam.site-7.example' });
    for (const name of ['enrolments', 'incidents', 'downtimes', 'access', 'compare', 'rentals', 'restore-review']) expect(pageOf(`/${name}`).name).toBe(name);
    expect(pageOf('/incidents/i_1')).toEqual({ name: 'incident', id: 'i_1' });
    expect(pageOf('/rentals/l_1/report')).toEqual({ name: 'rental-report', id: 'l_1' });
    expect(pageOf('/customers/k_38h601nahgbz6')).toEqual({ name: 'customer', id: 'k_38h601nahgbz6' });
    for (const path of ['/customers/crm-17', '/hosts/', '/hosts/%ff', '/hosts/a/b', '/rentals/l_1', '/rentals/b_1/report', '/constructor', '/api/v1/hosts']) {
      expect(pageOf(path).name, path).toBe('nowhere');
    }
  });

  it('that came with a login leads nowhere but to our own pages', () => {
    expect(ownPath('/hosts/cam-07?service=ping')).toBe('/hosts/cam-07?service=ping');
    expect(ownPath('/?state=down')).toBe('/?state=down');
    for (const path of ['//evil.example', '/\\evil.example', 'https://evil.example', 'javascript:alert(1)', '/login?next=/', null]) {
      expect(ownPath(path), String(path)).toBe('/');
    }
  });
});

describe("the gateway's clock", () => {
  it('is taken as the same while nothing says otherwise', () => {
    expect(agree(0, 100_000, 100_400, 100_450)).toBe(0);
    expect(agree(0, 100_000, 100_400, 109_000)).toBe(0);
  });

  it('is followed when it differs, to within half a second', () => {
    const real = -7_265_300;
    const offset = agree(0, Math.floor((500_000 + real) / 1000) * 1000, 499_980, 500_020);
    expect(Math.abs(offset - real)).toBeLessThan(550);
    expect(agree(offset, Math.floor((900_000 + real) / 1000) * 1000, 899_000, 903_000)).toBe(offset);
  });
});
