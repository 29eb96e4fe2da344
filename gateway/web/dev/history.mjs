// The past of the stand-in (dev/mock.mjs): values that are computed from the time they are asked for, so that three years need
// no storage. One moment always has the same value.
const DAY = 86_400;
const WIDTHS = [10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 2 * 86_400, 7 * 86_400];
const iso = (second) => new Date(second * 1000).toISOString();

/** 0 to 1, the same for the same numbers. */
function noise(a, b) {
  let x = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b + 0x7f4a7c15, 0xc2b2ae35);
  x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
  x = Math.imul(x ^ (x >>> 12), 0x297a2d39);
  return ((x ^ (x >>> 15)) >>> 0) / 2 ** 32;
}
const hash = (text) => [...text].reduce((sum, letter) => (Math.imul(sum, 31) + letter.charCodeAt(0)) | 0, 7);

/** Three hours without results three days ago, one of the last day, and half a day every 50 days. */
const silent = (t, now) => (t > now - 3.2 * DAY && t < now - 3.2 * DAY + 3 * 3600) || (t > now - 0.4 * DAY && t < now - 0.4 * DAY + 2400) || Math.floor(t / (DAY / 2)) % 100 === 37;
const outage = (t, now) => (t > now - 0.72 * DAY && t < now - 0.72 * DAY + 1500) || (Math.floor(t / 3600) % 397 === 11);

const KINDS = {
  rta: (t, n) => 0.045 + 0.02 * Math.sin((t / DAY) * 2 * Math.PI) + 0.015 * noise(t, n) + (noise(t, n + 1) > 0.995 ? 0.25 * noise(t, n + 2) : 0),
  pl: (t, n) => (noise(t, n) > 0.992 ? Math.round(noise(t, n + 1) * 3) * 20 : 0),
  time: (t, n) => 0.012 + 0.006 * noise(t, n),
  used: (t, n) => { const rate = 11 + (n & 3); const day = t / DAY; const tooth = (day + ((n >>> 4) & 15) / 16) % 1; return 62 + 6 * Math.sin(day / 90) + rate * tooth + 0.4 * noise(t, n); },
  temperature: (t, n) => 24 + 9 * Math.sin((t / DAY) * 2 * Math.PI - 2) + 14 * Math.sin((t / (365 * DAY)) * 2 * Math.PI - 1.9) + 1.5 * noise(Math.floor(t / 900), n) + 0.3 * noise(t, n),
  humidity: (t, n) => 55 + 12 * Math.sin((t / DAY) * 2 * Math.PI + 1) + 3 * noise(Math.floor(t / 600), n),
  pressure: (t, n) => 1013 + 8 * Math.sin(t / (4.3 * DAY)) + 0.2 * noise(t, n),
  load: (t, n) => Math.max(0, 0.4 + 0.3 * Math.sin((t / DAY) * 2 * Math.PI - 1) + 0.5 * noise(t, n) ** 4 * 4),
  rx: (t, n) => 40_000 + 35_000 * Math.max(0, Math.sin((t / DAY) * 2 * Math.PI - 1.5)) + 20_000 * noise(t, n),
};
KINDS.fullness = KINDS.used;
KINDS.tx = (t, n) => KINDS.rx(t, n + 3) / 6;

export function past({ find, hosts, services, page }) {
  const now = () => Date.now() / 1000;
  const born = (host) => now() - (host.name.endsWith('02') ? 20 : 1200) * DAY;

  function valueAt(host, label, t) {
    const at = Math.floor(t / 60) * 60;
    if (at > now() || at < born(host) || silent(at, now())) return null;
    if (outage(at, now()) && label !== 'pl') return null;
    if (outage(at, now())) return 100;
    return (KINDS[label] ?? KINDS.load)(at, hash(host.name + label));
  }

  function columns(host, label, start, step, count) {
    const made = { min: [], avg: [], max: [], count: [] };
    for (let i = 0; i < count; i += 1) {
      const begin = start + i * step;
      const each = Math.max(60, step / 24);
      const values = [];
      for (let t = Math.ceil(begin / each) * each; t < begin + step; t += each) {
        const value = valueAt(host, label, t);
        if (value !== null) values.push(value);
      }
      const none = values.length === 0;
      made.min.push(none ? null : Math.min(...values));
      made.max.push(none ? null : Math.max(...values));
      made.avg.push(none ? null : values.reduce((sum, one) => sum + one, 0) / values.length);
      made.count.push(none ? 0 : Math.round(values.length * (each / 60)));
    }
    return made;
  }

  const metricOf = (host, service, label) => services.get(host.id)?.find((one) => one.name === service)?.metrics.find((one) => one.label === label);

  function query(asked) {
    const labels = asked.getAll('label');
    const wanted = asked.getAll('host');
    const found = wanted.length > 0 ? wanted.map(find).filter(Boolean) : hosts.filter((host) => labels.every((pair) => host.labels[pair.split('=')[0]] === pair.split('=')[1]));
    const [service, label] = [asked.get('service') ?? '', asked.get('metric')];
    const [from, to] = [asked.get('from'), asked.get('to')].map((time) => Math.floor(Date.parse(time) / 1000));
    const points = Number(asked.get('points') ?? 600);
    const step = WIDTHS.find((width) => (to - from) / width <= points) ?? WIDTHS.at(-1);
    const start = Math.floor(from / step) * step;
    const tier = step < 300 ? 'raw' : step < 3600 ? '5m' : step < DAY ? '1h' : '1d';
    const having = found.filter((host) => metricOf(host, service, label));
    if (having.length > 200) return [422, { code: 'invalid', title: 'invalid', detail: 'more than 200 series' }];
    const first = having[0] && metricOf(having[0], service, label);
    const uom = first?.uom === 'c' ? '1/s' : (first?.uom ?? '');
    const factor = uom === 'ms' ? 1000 : 1;
    const times = (list) => (factor === 1 ? list : list.map((value) => (value === null ? null : value * factor)));
    const made = having.map((host) => {
      const { min, avg, max, count } = columns(host, label, start, step, Math.ceil((to - start) / step));
      return { host_id: host.id, host: host.name, start: iso(start), step_s: step, tier, uom, min: times(min), avg: times(avg), max: times(max), count };
    });
    const key = asked.get('group_by');
    const series = key ? groups(key, having, made) : made;
    return [200, { from: iso(from), to: iso(to), tier, step_s: step, start: iso(start), uom, limits: first ? { warn: first.warn, crit: first.crit, differ: false } : null, series }];
  }

  function groups(key, having, made) {
    const names = [...new Set(having.map((host) => (key === 'all' ? 'all' : (host.labels[key] ?? ''))))];
    return names.map((group) => {
      const own = made.filter((_, i) => (key === 'all' ? 'all' : (having[i].labels[key] ?? '')) === group);
      const merged = (column, of) => own[0][column].map((_, i) => { const values = own.map((one) => one[column][i]).filter((value) => value !== null); return values.length ? of(values) : null; });
      const mean = (values) => values.reduce((sum, one) => sum + one, 0) / values.length;
      const { start, step_s, tier, uom } = own[0];
      return { group, hosts: own.length, start, step_s, tier, uom, min: merged('min', mean), avg: merged('avg', mean), max: merged('max', mean), count: own[0].count.map(() => own.length), worst: merged('max', (values) => Math.max(...values)) };
    });
  }

  function intervals(host, asked) {
    const [from, to] = [Date.parse(asked.get('from')), Date.parse(asked.get('to'))].map((ms) => ms / 1000);
    // One host has changed its state very often.
    if (host.name.endsWith('09') && to - from > 400 * DAY) return [422, { code: 'invalid', title: 'invalid', detail: 'this time has more than 10000 intervals' }];
    const items = [];
    const add = (service, series, value, begin, end) => end > from && begin < to && items.push({ ...(service ? { service } : {}), series, value, from: iso(begin), ...(end >= now() ? {} : { until: iso(end) }) });
    const hour = Math.max(60, (to - from) / 4000);
    const subjects = [['', 'up', 'down'], ...services.get(host.id).map((one) => [one.name, 'ok', one.name === 'ping' || one.name === 'ssh' ? 'critical' : 'warning'])];
    for (const [service, good, bad] of subjects) {
      let [begin, value] = [Math.max(from, born(host)), good];
      for (let t = begin; t < Math.min(to, now()); t += hour) {
        const next = (service === '' || service === 'ping' ? outage(t, now()) : service === 'disk' && valueAt(host, 'used', t) > 75) ? bad : good;
        if (next !== value) { add(service, 'state', value, begin, t); [begin, value] = [t, next]; }
      }
      add(service, 'state', value, begin, now() + 1);
    }
    for (let day = 0; day < 1100; day += 30) add('', 'downtime', '', now() - (day + 0.25) * DAY, now() - (day + 0.17) * DAY);
    return [200, { items }];
  }

  function top(asked) {
    const metric = asked.get('metric');
    const limit = Number(asked.get('limit') ?? 10);
    const value = { disk_used: (host) => valueAt(host, 'used', now() - 60) ?? 0, traffic: (host) => 4e9 * noise(hash(host.name), 3) ** 2 + 2e7, rtt: (host) => (valueAt(host, 'rta', now() - 60) ?? 0) * 1000 }[metric];
    const [uom, service] = { disk_used: ['%', 'disk'], traffic: ['B', undefined], rtt: ['ms', 'ping'] }[metric] ?? [];
    if (!value) return [422, { code: 'invalid', title: 'invalid', detail: 'metric' }];
    const items = hosts.map((host) => ({ host: host.name, host_id: host.id, service, value: value(host), uom, text: '' })).sort((a, b) => b.value - a.value).slice(0, limit);
    return [200, { items }];
  }

  function traffic(host, asked) {
    const count = Number(asked.get('days') ?? 31);
    const days = Array.from({ length: Math.min(count, 420) }, (_, i) => {
      const day = Math.floor(now() / DAY) - i;
      const rx_bytes = Math.floor((6e6 + 9e6 * noise(day, hash(host.name)) + (day % 9 === 0 ? 1.4e7 : 0)) * (i === 0 ? 0.4 : 1));
      const tx_bytes = Math.floor(rx_bytes / 5);
      return { day: iso(day * DAY).slice(0, 10), rx_bytes, tx_bytes, bytes: rx_bytes + tx_bytes };
    }).filter((_, i) => i % 17 !== 13);
    return [200, { days, budget_bytes_per_day: hash(host.name) % 3 ? 20e6 : undefined }];
  }

  return (on, asked) => {
    let match;
    if (on('/metrics/query')) return query(asked);
    if (on('/metrics/top')) return top(asked);
    if ((match = on('/hosts/([^/]+)/intervals')) && find(match[1])) return intervals(find(match[1]), asked);
    if ((match = on('/hosts/([^/]+)/traffic')) && find(match[1])) return traffic(find(match[1]), asked);
    if ((match = on('/hosts/([^/]+)/metrics')) && find(match[1])) {
      const series = services.get(find(match[1]).id).flatMap((one) => one.metrics.map(({ label, uom }) => ({ service: one.name, label, uom })));
      return [200, page(series, asked)];
    }
    return undefined;
  };
}
