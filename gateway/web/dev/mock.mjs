// A stand-in for the gateway's API, to work on the pages without one: `npm run dev:mock`, and
// `npm run dev` beside it. FLEET=25 is the demo's fleet, FLEET=10000 (the default) a big one. With
// DIST=folder it serves a built dashboard under the same policy as the gateway.
import { readFileSync, existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { past } from './history.mjs';
import { rentals } from './rentals.mjs';

const PORT = Number(process.env.PORT ?? 8099);
const COUNT = Number(process.env.FLEET ?? 10_000);
const DIST = process.env.DIST;
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'";
const CHANGES_PER_SECOND = Math.min(200, Math.max(4, COUNT / 50));
const ago = (s) => new Date(Date.now() - s * 1000).toISOString();
const pick = (list, i) => list[i % list.length];
let seed = 7;
const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;

const events = [];
const streams = new Set();
const send = (name, data) => streams.forEach((stream) => stream.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`));

function service(host, name, check, state, text, metrics = []) {
  return {
    host: host.id, host_name: host.name, name, check, state, last_result: state, state_type: 'hard', attempt: state === 'ok' ? 1 : 3,
    max_attempts: 3, stale: false, since: ago(400 + random() * 90_000), last_check: ago(random() * 5), next_check: ago(-5), route: host.tunnel ? 'tunnel' : 'direct',
    text, long_text: '', metrics, parse_warnings: [], check_interval_s: 5, retry_interval_s: 1, acknowledged: false, in_downtime: false, flapping: false,
  };
}
const metric = (label, value, uom, warn = null, crit = null, min = null, max = null) => ({ label, value, uom, warn, crit, min, max });

function makeHost(i) {
  const direct = COUNT <= 25 && i >= 23;
  const sites = ['berlin', 'hamburg', 'wien', 'zurich', 'praha', 'kraków', 'oslo'];
  const host = {
    id: `h_${String(i).padStart(13, '0')}`, name: direct ? `street-0${i - 22}` : `cam-${String(i + 1).padStart(2, '0')}`,
    labels: { kind: direct ? 'street' : 'camera', site: pick(sites, i * 3), uplink: pick(['lte', 'dsl'], i) },
    profile: 'timelapse-camera', route: direct ? 'direct' : 'auto', address: direct ? null : `10.112.${i >> 8}.${(i & 255) + 2}`, via: null,
    direct_address: direct ? `192.0.2.${i}:22` : null, created_at: ago(8e6 - i),
    state: {
      state: 'up', last_result: 'up', state_type: 'hard', attempt: 1, max_attempts: 3, reachable: true, stale: false, asleep: false, acknowledged: false, in_downtime: false, flapping: false,
      since: ago(90_000 * random() + 300), last_check: ago(random() * 5), next_check: ago(-5), source: direct ? 'ssh' : 'evidence',
      text: direct ? 'SSH answers' : 'an authenticated packet came in time',
    },
    verdict: { kind: 'ok', text: 'ok', candidates: [], evidence: ['last check: an authenticated packet came in time'] },
    tunnel: direct ? null : {
      public_key: `${Buffer.from(`key of device ${i} in the mock!!!!!`.slice(0, 32).padEnd(32, '.')).toString('base64')}`, established: true,
      endpoint: `198.51.100.${i % 250}:${40000 + (i % 20000)}`, last_packet: ago(random() * 4), last_handshake: ago(random() * 120), clock_skew_s: i === 4 ? -7265 : 0.2,
      last_refusal: i === 4 ? 'the device clock went back' : null, last_refusal_at: i === 4 ? ago(3000) : null, rx_bytes: Math.floor(random() * 4e7), tx_bytes: Math.floor(random() * 9e6),
      handshakes: Math.floor(random() * 900), drops: i % 5 ? {} : { not_allowed: 12 + i, replayed: 3 },
    },
  };
  return host;
}

function makeServices(host, i) {
  const list = [];
  if (host.tunnel) list.push(service(host, 'tunnel', 'tunnel', 'ok', 'Session of 40 s, packet 1 s ago'));
  if (host.tunnel && i < 13) list.push(service(host, 'ping', 'ping', 'ok', '3 of 3 answers, rta 52 ms', [metric('rta', 52, 'ms', '200', '500', 0), metric('pl', 0, '%', '20', '60', 0, 100)]));
  if (host.tunnel && i < 13) list.push(service(host, 'disk', 'sensor', 'ok', 'Disk / is 71 % full', [metric('used', 71, '%', '80', '90', 0, 100), metric('fullness', 71, '%')]));
  const disk = list.find((one) => one.name === 'disk');
  if (disk) disk.forecast = { text: 'the daily purge keeps it below 80 %', made_at: ago(1200), basis: { from: ago(20 * 86_400), to: ago(40_000), peaks: 20, period_s: 86_400, slope_per_day: 0, spread: 0.4 }, error_s: 2 * 86_400, error_is_least: false };
  if (host.tunnel && i < 13) list.push(service(host, 'traffic', 'sensor', 'ok', '48 kB/s in, 8 kB/s out', [metric('rx', 4e9, 'c'), metric('tx', 7e8, 'c')]));
  if (!host.tunnel || (i >= 13 && i < 20)) list.push(service(host, 'ssh', 'ssh', 'ok', 'SSH-2.0-OpenSSH_9.2p1 in 12 ms', [metric('time', 0.012, 's', '2', '5', 0)]));
  if (i >= 13 && i < 20) {
    const critical = i < 18;
    const value = critical ? 61.4 + i : 46.2;
    list.push(service(host, 'temperature', 'sensor', critical ? 'critical' : 'warning', `Temperature ${value} °C is over the limit`, [metric('temperature', value, 'C', '10:45', '0:60'), metric('humidity', 40 + i, '%', '~:70', '~:85'), metric('pressure', 1013.2, 'hPa')]));
  }
  return list;
}

const hosts = Array.from({ length: COUNT }, (_, i) => makeHost(i));
const services = new Map(hosts.map((host, i) => [host.id, makeServices(host, COUNT <= 25 ? i : i % 25)]));
const count = (list, of, keys) => Object.fromEntries(keys.map((key) => [key, list.filter((one) => of(one) === key).length]));
const SERVICE_KEYS = ['ok', 'warning', 'critical', 'unknown', 'pending'];
const recount = (host) => {
  const list = services.get(host.id);
  host.services = { ...count(list, (s) => s.state, SERVICE_KEYS), stale: list.filter((s) => s.stale).length };
};
hosts.forEach(recount);
const enrolments = [{ id: 'e_0000000000001', name: 'cam-new', state: 'awaiting_approval', ssh_host_key: null, token: 't_1', token_label: 'installer', replaces: null, remote_address: '203.0.113.9', reason: '', public_key: 'mNb7J7v0n8dVYfQG8v0Zk8m1yqk8Qv0r3o2m5vC1xWs=', created_at: ago(65) }];

const usual = [{ protocol: 'icmp', ports: [] }, { protocol: 'tcp', ports: [22, 80, 443] }];
const grant = (i, of) => ({ id: `g_${String(i).padStart(13, '0')}`, name: null, access: usual, from: null, until: null, state: 'active', reason: '', author: 'user:admin', managed_by: 'api', created_at: ago(9e5), withdrawn_at: null, withdrawn_by: null, version: 1, ...of });
const grants = [
  grant(3, { source: { user: 'anna' }, target: { host: 'cam-02' }, access: [{ protocol: 'tcp', ports: ['8000-8100'] }], until: ago(-7200), reason: 'new firmware' }),
  grant(2, { source: { peer: 'anna-laptop' }, target: { labels: { site: 'nowhere' } } }),
  grant(1, { name: 'operators', source: { role: 'operator' }, target: { all_devices: true }, author: 'system', reason: 'default' }),
];
const operators = [
  { id: 'p_0000000000001', name: 'anna-laptop', user: 'anna', public_key: 'a'.repeat(43), keyed_at: ago(9e4), addresses: ['10.112.0.9', 'fd72::9'], enabled: true, established: true, endpoint: '198.51.100.7:51820', last_handshake: ago(40), drops: { not_granted: 12 }, created_at: ago(9e4), version: 1 },
];

const incidents = [{ id: 'i_0000000000001', scope: 'host', cause: 'device_gone', text: 'cam-07 down', state: 'closed', opened_at: ago(0.72 * 86_400 - 60), closed_at: ago(0.72 * 86_400 - 1500), open_members: 0, members: 1 }];
const downtimes = [{ id: 'd_1', host: hosts[6].id, host_name: hosts[6].name, labels: null, service: null, start: ago(0.6 * 86_400), end: ago(0.52 * 86_400), fixed: true, author: 'user:ada', comment: 'firmware update', created_at: ago(90_000), managed_by: 'api', version: 1 }];

function event(host, kind, data, cause, evidence, service = null) {
  const one = { seq: events.length + 1, at: ago(0), kind, object: service ? 'service' : 'host', object_id: host.id, object_name: host.name, service, cause, evidence, data, principal: 'system' };
  events.push(one);
  send('event', one);
}

function turn(name, on) {
  const host = hosts.find((one) => one.name === name);
  host.state = { ...host.state, state: on ? 'up' : 'down', last_result: on ? 'up' : 'down', since: ago(0), last_check: ago(0), attempt: on ? 1 : 3, source: on ? 'evidence' : 'echo', text: on ? 'an authenticated packet came in time' : 'no packet, no echo, no handshake' };
  const candidates = ['site_uplink_lost', 'tunnel_down', 'device_gone'];
  host.verdict = on
    ? { kind: 'ok', text: 'ok', candidates: [], evidence: ['last check: an authenticated packet came in time'] }
    : { kind: 'undetermined', text: `undetermined: uplink of ${host.labels.site} lost, only its tunnel down or device gone`, candidates, evidence: ['last check: no packet, no echo, no handshake', 'there is no second path'] };
  services.get(host.id).forEach((one) => (one.stale = !on));
  if (host.tunnel) host.tunnel.established = on;
  recount(host);
  event(host, 'state.changed', { from: on ? 'down' : 'up', to: host.state.state, state_type: 'hard' }, host.state.text, 'attempt 3 of 3');
  send('host', host);
  send('overview', overview());
}

const hostKey = (host) => (host.state.state === 'down' && !host.state.reachable ? 'unreachable' : host.state.state);
/** What tests add to the overview (`PUT /api/v1/overview`). */
let added = {};

function overview() {
  const all = [...services.values()].flat();
  return {
    hosts: { ...count(hosts, hostKey, ['up', 'down', 'unreachable', 'pending']), stale: hosts.filter((h) => h.state.stale).length, asleep: 0 },
    services: { ...count(all, (s) => s.state, SERVICE_KEYS), stale: all.filter((s) => s.stale).length }, last_check: ago(0), awaiting_approval: enrolments.length,
    ...added,
  };
}
function problems() {
  const found = [];
  for (const host of hosts) {
    if (host.state.state === 'down') found.push({ host: host.id, host_name: host.name, service: null, state: hostKey(host), state_type: 'hard', since: host.state.since, last_check: host.state.last_check, text: host.state.text, acknowledged: host.state.acknowledged, in_downtime: host.state.in_downtime, verdict: host.verdict });
    for (const s of services.get(host.id)) if (s.state !== 'ok' && !s.stale) found.push({ host: host.id, host_name: host.name, service: s.name, state: s.state, state_type: s.state_type, since: s.since, last_check: s.last_check, text: s.text, acknowledged: s.acknowledged, in_downtime: s.in_downtime });
  }
  const rank = { down: 0, unreachable: 1, critical: 2, warning: 3, unknown: 4 };
  return found.sort((a, b) => rank[a.state] - rank[b.state]);
}

for (const [hours, kind] of [[3, 'device.changed'], [9, 'service.changed'], [15, 'tunnel.endpoint_moved'], [60, 'ssh.key_changed'], [400, 'device.rekeyed'], [9000, 'device.trusted']]) {
  event(hosts[6], kind, {}, '', '');
  events.at(-1).at = ago(hours * 3600);
}
// More than graphs mark, the oldest first.
for (let n = 600; n > 0; n -= 1) {
  event(hosts[7], 'device.changed', {}, '', '');
  events.at(-1).at = ago(n * 3600);
}
turn('cam-13', false);
hosts[12].labels.rental = 'being-reconfigured';
Object.assign(hosts[12].state, { acknowledged: true, in_downtime: true });
Object.assign(hosts[2].state, { flapping: true });
Object.assign(hosts[3].state, { in_downtime: true });
for (const s of services.get(hosts[13].id).slice(1)) Object.assign(s, { acknowledged: true, in_downtime: true, acknowledgement: { author: 'user:ann', sticky: true, comment: 'a fan is on its way' } });
if (COUNT > 25) hosts.filter((_, i) => i % 997 === 5).forEach((host) => turn(host.name, false));

setInterval(() => {
  for (let i = 0; i < CHANGES_PER_SECOND / 4; i += 1) {
    const host = hosts[Math.floor(random() * hosts.length)];
    if (host.state.state !== 'up') continue;
    host.state = { ...host.state, last_check: ago(0), next_check: ago(-5) };
    if (host.tunnel) host.tunnel = { ...host.tunnel, last_packet: ago(0), rx_bytes: host.tunnel.rx_bytes + 320, tx_bytes: host.tunnel.tx_bytes + 148 };
    services.get(host.id).forEach((s) => Object.assign(s, { last_check: ago(0), next_check: ago(-5) }));
    send('host', host);
  }
}, 250);
setInterval(() => send('overview', overview()), 2000);

const page = (list, query) => {
  const limit = Number(query.get('limit') ?? 100);
  const from = Number(query.get('after') ?? 0);
  return { items: list.slice(from, from + limit), next: from + limit < list.length ? String(from + limit) : null };
};
/** Whether something is within the time of a query. */
const touches = (query, begin, end) => (!query.get('from') || end >= query.get('from')) && (!query.get('to') || begin < query.get('to'));
const find = (key) => hosts.find((host) => host.id === key || host.name === key);
const me = { principal: 'user:admin', name: 'admin', role: process.env.ROLE ?? 'admin', scopes: [], expires_at: null };
let sessions = 0;
const rental = rentals({ hosts, page, tell, qr });
const history = past({ find, hosts, services, page });

function qr() {
  const squares = Array.from({ length: 441 }, (_, i) => (random() > 0.5 ? `<rect x="${i % 21}" y="${Math.floor(i / 21)}" width="1" height="1"/>` : '')).join('');
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -2 25 25">${squares}</svg>`;
}

function tell(kind, id) {
  const one = { seq: events.length + 1, at: ago(0), kind, object: kind.split('.')[0], object_id: id, object_name: id, service: null, cause: '', evidence: '', data: {}, principal: 'user:admin' };
  events.push(one);
  send('event', one);
}

function answer(method, path, query, body, cookie) {
  const on = (pattern) => new RegExp(`^/api/v1${pattern}$`).exec(path);
  const loggedIn = /mock=\d+/.test(cookie ?? '');
  let match;
  if (on('/session') && method === 'POST') return body.link === 'spent' || body.password === 'wrong' ? [401, { code: 'login_failed', title: 'not logged in', detail: 'name, password or link is wrong, or the link was used' }] : [200, me, { 'set-cookie': `mock=${(sessions += 1)}; Path=/; HttpOnly; SameSite=Strict` }];
  if (on('/my(/.*)?')) return rental(on, method, query, body, cookie) ?? [404, { code: 'not_found', title: 'not found', detail: 'there is nothing at this address' }];
  if (!loggedIn && /mine=1/.test(cookie ?? '')) return [404, { code: 'not_found', title: 'not found', detail: 'there is nothing at this address' }];
  if (!loggedIn) return [401, { code: 'not_logged_in', title: 'not logged in', detail: 'log in first' }];
  if (on('/session')) return method === 'DELETE' ? [204, undefined, { 'set-cookie': 'mock=; Path=/; Max-Age=0' }] : [200, me];
  const rented = rental(on, method, query, body);
  if (rented) return rented;
  const then = history(on, query);
  if (then) return then;
  if (on('/overview') && method === 'PUT') return (added = body), send('overview', overview()), [200, {}];
  if (on('/overview')) return [200, overview()];
  if (on('/problems')) return [200, page(problems(), query)];
  if (on('/hosts')) return [200, page(hosts, query)];
  if (on('/events')) {
    const without = (query.get('without') ?? '').split(',');
    const own = (e) => !query.get('host') || [e.object_id, e.object_name].includes(query.get('host'));
    return [200, page(events.filter((e) => own(e) && touches(query, e.at, e.at) && !without.includes(e.kind.split('.')[0])).reverse(), query)];
  }
  if (on('/enrolments')) return [200, page(enrolments, query)];
  if (on('/incidents')) return [200, page([null, hosts[6].id, hosts[6].name].includes(query.get('host')) ? incidents.filter((one) => touches(query, one.opened_at, one.closed_at)) : [], query)];
  if ((match = on('/incidents/(i_[^/]+)'))) return [200, { ...incidents[0], listed: [{ host: hosts[6].id, host_name: hosts[6].name, output: '', began_at: incidents[0].opened_at, joined_at: incidents[0].opened_at }], events: [], notifications: [] }];
  if (on('/downtimes')) return [200, page(query.get('all') ? downtimes.filter((one) => touches(query, one.start, one.end)) : [], query)];
  if (on('/enrolment-tokens')) return [200, page([], query)];
  if (on('/grants')) return [200, page(method === 'POST' ? [] : grants, query)];
  if (on('/operators')) return [200, page(operators, query)];
  if (on('/users')) return [200, page([{ id: 'u_1', name: 'anna', role: 'operator', disabled_at: null }], query)];
  if (on('/gateway')) return [200, { endpoint: 'gw.example:51820', endpoint_configured: true, udp_port: 51820 }];
  if ((match = on('/enrolments/([^/]+)/(approve|reject)'))) {
    enrolments.splice(0, 1);
    send('overview', overview());
    return [200, {}];
  }
  if ((match = on('/devices/([^/]+)')) && find(match[1])) {
    const device = find(match[1]);
    if (method === 'PATCH') Object.assign(device, body, { labels: { ...device.labels, ...body.labels } });
    return [200, device];
  }
  if (on('/devices')) {
    const conf = `[Interface]\nPrivateKey = shown+once=\nAddress = 10.112.9.9/14\n\n[Peer]\nPublicKey = gateway=\nEndpoint = gw.example:51820\nAllowedIPs = 10.112.0.0/14\nPersistentKeepalive = 25\n`;
    return [201, { device: { id: 'h_new', name: body.name }, credentials: { conf, qr_svg: qr() } }];
  }
  if ((match = on('/hosts/([^/]+)'))) return find(match[1]) ? [200, find(match[1])] : [404, { detail: 'no such host' }];
  if ((match = on('/hosts/([^/]+)/settings'))) return [200, { ...find(match[1]), profiles: ['default'] }];
  if ((match = on('/hosts/([^/]+)/services/([^/]+)'))) return [200, services.get(find(match[1]).id).find((one) => one.name === match[2])];
  if ((match = on('/hosts/([^/]+)/services'))) return [200, page(services.get(find(match[1]).id), query)];
  if (on('/hosts/([^/]+)(/services/[^/]+)?/check')) return [202, undefined];
  if (on('/devices/([^/]+)/reset-clock')) return [204, undefined];
  if ((match = on('/mock/(off|on)/([^/]+)'))) return turn(match[2], match[1] === 'on'), [204, undefined];
  return [404, { code: 'not_found', title: 'not found', detail: 'there is nothing at this address' }];
}

function file(path, response) {
  const name = existsSync(join(DIST, path)) && path !== '/' ? path : '/index.html';
  const types = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' };
  response.writeHead(200, { 'content-type': types[name.split('.').at(-1)], 'content-security-policy': POLICY });
  response.end(readFileSync(join(DIST, name)));
}

createServer((request, response) => {
  const url = new URL(request.url, 'http://mock');
  if (DIST && !url.pathname.startsWith('/api/')) return file(url.pathname, response);
  if (url.pathname === '/api/v1/stream') {
    if (!request.headers.cookie?.includes('mock=')) return response.writeHead(401).end();
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    streams.add(response);
    request.on('close', () => streams.delete(response));
    return response.write(`event: snapshot\ndata: ${JSON.stringify({ overview: overview() })}\n\n`);
  }
  let text = '';
  request.on('data', (chunk) => (text += chunk));
  request.on('end', () => {
    const [status, body, headers = {}] = answer(request.method, url.pathname, url.searchParams, text ? JSON.parse(text) : {}, request.headers.cookie);
    response.writeHead(status, { 'content-type': status < 400 ? 'application/json' : 'application/problem+json', ...headers });
    response.end(body === undefined ? undefined : JSON.stringify(body));
  });
}).listen(PORT, '127.0.0.1', () => console.log(`http://127.0.0.1:${PORT}/login#link with ${COUNT} hosts`));
