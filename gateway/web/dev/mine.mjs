// The customer's page of the stand-in (dev/mock.mjs): http://localhost:5173/my#token=new opens it as often as you like, and
// links of its API once.
const PAGE = process.env.PAGE ?? 'http://localhost:5173';
const HOUR = 3_600_000;
const iso = (ms) => new Date(ms).toISOString();
const ACCESS = [{ protocol: 'icmp', ports: [] }, { protocol: 'tcp', ports: [22, 443, '8000-8010'] }];

/** `people`: those of `renters.mjs`, for whose first person the page is. `customer`: that person's. */
export function mine({ people, customer }) {
  const began = Date.now();
  const links = new Set();
  const of = (n, state, from, until, more = {}) => ({
    id: `l_${String(n).padStart(13, '0')}`, name: `device-${n}`, addresses: [`10.112.4.${n}`, `fd72::4${String(n).padStart(2, '0')}`], access: ACCESS, state, from: iso(began + from), until: iso(began + until),
    time_zone: 'Europe/Vienna', delayed: [], ssh: false, device: { name: `device-${n}`, status: null, since: null }, services: [], ...more,
  });
  const metric = (name, value, unit, warn = null, crit = null, min = null, max = null) => ({ name, value, unit, warn, crit, min, max });
  const service = (name, status, output, metrics = []) => ({ name, status, since: iso(began - HOUR), output, metrics });
  const list = [
    of(1, 'active', -20 * HOUR, 6 * HOUR, {
      name: 'entrance', ssh: true, device: { name: 'entrance', status: 'up', since: iso(began - 20 * HOUR) },
      services: [service('ping', 'ok', '3 of 3 answers, rtt 0.42 ms', [metric('rtt', 0.42, 'ms', '200', '500', 0), metric('loss', 0, '%', '20', '60', 0, 100)]), service('temperature', 'warning', 'Temperature 46.2 °C is over the limit', [metric('temperature', 46.2, 'C', '10:45', '0:60')])],
    }),
    of(2, 'delayed', -HOUR / 4, 30 * HOUR, { delayed: ['the device is being prepared'] }),
    of(3, 'booked', 50 * HOUR, 80 * HOUR),
    ...[4, 5, 6, 7, 8].map((n) => of(n, n === 5 ? 'cancelled' : 'closed', -n * 100 * HOUR, (12 - n * 100) * HOUR, { addresses: [] })),
  ];
  const changes = [{ at: iso(began - 20 * HOUR), status: 'up' }, { at: iso(began - 3 * HOUR), service: 'temperature', status: 'ok' }, { at: iso(began - HOUR), service: 'temperature', status: 'warning' }];
  const me = () => ({ person: { id: people.first().id, name: people.first().name }, customer: { id: customer.id, name: customer.name }, time: iso(Date.now()), expires_at: iso(began + 12 * HOUR) });

  function sshOf(id) {
    const { name, addresses, from, until } = list.find((one) => one.id === id) ?? list[0];
    const own = people.answer((pattern) => pattern === '/renters', 'GET', new URLSearchParams({ person: people.first().id }), {})[1].items;
    const certificates = own.flatMap(({ id: renter, ssh_keys = [] }) => ssh_keys.map((key) => ({ renter, key, certificate: `ssh-ed25519-cert-v01@openssh.com AAAA ${key}`, valid_from: from, valid_until: until })));
    return [200, { account: 'guest', port: 22, name, addresses, known_hosts: `${name},${addresses.join(',')} ssh-ed25519 AAAA\n`, mode: 'certificates', certificates }];
  }

  function valuesOf(id) {
    const { from, until, state } = list.find((one) => one.id === id) ?? list[0];
    const step = 600;
    const start = Math.ceil(Date.parse(from) / 1000 / step) * step;
    const steps = Math.max(0, Math.floor((Math.min(Date.parse(until), Date.now()) / 1000 - start) / step));
    if (state === 'cancelled' || steps === 0) return [200, { start: null, step_s: 0, tier: null, series: [], truncated: false }];
    const avg = Array.from({ length: steps }, (_, i) => (i > 20 && i < 26 ? null : 40 + 6 * Math.sin(i / 9)));
    const series = { service: 'temperature', name: 'temperature', unit: 'C', min: avg, avg, max: avg, count: avg.map((value) => (value === null ? 0 : 10)) };
    return [200, { start: iso(start * 1000), step_s: step, tier: '5m', series: [series], truncated: false }];
  }

  function renters(on, method, query, body) {
    const own = { ...body, person: people.first().id };
    query.set('person', own.person);
    return people.answer((pattern) => on(`/my${pattern}`), method, query, own);
  }

  /** Returns `undefined` for other paths. `cookie`: that of the request. */
  return (on, method, query, body, cookie) => {
    let match;
    if (on('/customers/[^/]+/login-link')) {
      const token = `link${Date.now()}`;
      links.add(token);
      return [201, { url: `${PAGE}/my#token=${token}`, expires_at: iso(Date.now() + HOUR / 4) }];
    }
    if (!on('/my(/.*)?')) return undefined;
    if (on('/my/login')) return body.token !== 'new' && !links.delete(body.token) ? [401, { code: 'link_refused', title: 'refused', detail: 'this link was used, has expired, or was never made' }] : [200, me(), { 'set-cookie': 'mine=1; Path=/; HttpOnly; SameSite=Strict' }];
    if (!/mine=1/.test(cookie ?? '')) return [401, { code: 'not_logged_in', title: 'not logged in', detail: 'open a link' }];
    if (on('/my/logout')) return [204, undefined, { 'set-cookie': 'mine=; Path=/; Max-Age=0' }];
    if (on('/my')) return [200, me()];
    if (on('/my/rentals')) return [200, { items: list }];
    if ((match = on('/my/rentals/([^/]+)/ssh'))) return sshOf(match[1]);
    if ((match = on('/my/rentals/([^/]+)/values'))) return valuesOf(match[1]);
    if ((match = on('/my/rentals/([^/]+)'))) {
      const one = list.find(({ id }) => id === match[1]);
      return one ? [200, { ...one, changes: one.state === 'active' ? changes : [] }] : [404, { code: 'not_found', title: 'not found', detail: 'there is no such rental' }];
    }
    return renters(on, method, query, body);
  };
}
