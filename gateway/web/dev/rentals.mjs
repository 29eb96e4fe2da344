// The rental part of the stand-in (dev/mock.mjs): customers, bookings and blocks that can be changed. It decides about
// overlaps as the gateway does, without half of its rules.
import { mine } from './mine.mjs';
import { renters } from './renters.mjs';

const DAY = 86_400_000;
const HOUR = 3_600_000;
const iso = (ms) => new Date(ms).toISOString();
const problem = (status, code, detail, more = {}) => [status, { status, code, detail, title: code, ...more }];

const USUAL = [{ protocol: 'icmp', ports: [] }, { protocol: 'tcp', ports: [22, 80, 443] }];

/** `page`: pages a list. `tell`: sends an event of the stream. `qr`: an image. */
export function rentals({ hosts, page, tell, qr }) {
  let count = 0;
  const id = (kind) => `${kind}_${String((count += 1)).padStart(13, '0')}`;
  const settings = new Map(hosts.slice(0, 12).filter((host) => host.tunnel).map((host) => [host.id, { rentable: true, gate: null, preparation_s: 1800, turnaround_s: 7200, access: USUAL, version: 1 }]));
  const people = renters({ page, tell, qr });
  const customers = ['Ada Ltd', 'Berg & Tal', 'Institute of Snow', ''].map((name, i) => ({ id: id('k'), external_ref: i === 1 ? null : `crm-${i + 17}`, name, contacts: name ? [{ name: 'Ada', email: 'ada@example.org' }] : [], created_at: iso(Date.now()), version: 1 }));
  const list = [];
  const bookings = [];
  const blocks = [];
  const find = (key) => hosts.find((host) => host.id === key || host.name === key);
  const settingsOf = (host) => ({ device: host.id, device_name: host.name, ready: true, not_ready_reason: null, gate: null, delivery: 'mounted', ssh_account: null, ssh_mode: null, ssh_root: false, ...(settings.get(host.id) ?? { rentable: false, gate: { services: null, ok_for_s: 300 }, preparation_s: 0, turnaround_s: 0, access: USUAL, version: 0 }) });

  function stateOf(one, now = Date.now()) {
    if (one.reason === 'cancelled') return 'cancelled';
    if (one.reason === 'failed') return 'failed';
    if (one.hold && !one.ended) return one.hold <= now ? 'cancelled' : 'held';
    const end = one.ended ?? one.until;
    if (now >= end) return now < end + one.turnaround ? 'cleaning' : 'closed';
    return now < one.prepared ? 'booked' : now < one.from ? 'preparing' : 'active';
  }
  const freeAt = (one) => (stateOf(one) === 'cancelled' ? 0 : (one.ended ?? one.until) + one.turnaround);
  const shown = (one) => ({
    id: one.id, booking: one.booking, customer: one.customer, external_ref: one.external_ref, device: one.device, device_name: find(one.device).name, from: iso(one.from), until: iso(one.until),
    occupied_from: iso(one.prepared), occupied_until: freeAt(one) ? iso(freeAt(one)) : null, state: stateOf(one), awaits_handover: false, ended_at: one.ended ? iso(one.ended) : null, end_reason: one.reason ?? null,
    name: one.name, addresses: one.addresses, access: one.access, renters: one.renters, forwarded_bytes: 4.2e9, allowance_bytes: one.allowance_bytes ?? null, cut_at_allowance: one.cut_at_allowance ?? false,
    ssh: one.ssh ?? false, contacts: one.contacts ?? [], delivery: settingsOf(find(one.device)).delivery, dispatched_at: one.dispatched_at ?? null, returned_at: one.returned_at ?? null,
    ...(one.note ? { end_note: one.note } : {}), time_zone: one.time_zone, created_at: one.created_at, version: one.version,
  });
  /** What a rental has beside its window, by its number in the list. */
  const gate = (n, { name, access, renters: admits, allowance_bytes, cut_at_allowance, ssh, contacts } = {}) => ({ allowance_bytes, cut_at_allowance, ssh, contacts, name: name ?? `device-${n}`, access: access ?? USUAL, renters: admits ?? null, addresses: [`10.112.4.${n}`, `fd72::4${String(n).padStart(2, '0')}`] });
  /** `[from, until)` of all that occupies a device, apart from one rental. */
  const taken = (device, but) => [
    ...list.filter((one) => one.device === device && one !== but && freeAt(one)).map((one) => [one.prepared, freeAt(one)]),
    ...blocks.filter((one) => one.device === device && !one.ended_at).map((one) => [Date.parse(one.from), one.until ? Date.parse(one.until) : Infinity]),
  ].sort(([a], [b]) => a - b);
  const margins = (device) => { const { preparation_s, turnaround_s } = settingsOf(find(device)); return [preparation_s * 1000, turnaround_s * 1000]; };
  const around = (device, from, until) => { const [before, after] = margins(device); return [Math.max(Math.min(from, Date.now()), from - before), until + after]; };
  const inTheWay = (device, [from, until], but) => taken(device, but).find(([a, b]) => a < until && from < b);

  function nextFree(device, from, until) {
    const begins = [from, ...taken(device).map(([, end]) => end + margins(device)[0])].filter((at) => Number.isFinite(at) && at >= from).sort((a, b) => a - b);
    const at = begins.find((begin) => !inTheWay(device, around(device, begin, begin + until - from)));
    return at === undefined ? undefined : { device, device_name: find(device).name, from: iso(at), until: iso(at + until - from) };
  }
  const occupied = (device, found, more) => problem(409, 'occupied', 'occupied', { conflict: { device, device_name: find(device).name, from: iso(found[0]), ...(Number.isFinite(found[1]) ? { until: iso(found[1]) } : {}), ...more } });

  const rentable = (label = [], profile = null) => hosts.filter((host) => settings.get(host.id)?.rentable && (!profile || host.profile === profile) && label.every((pair) => host.labels[pair.split('=')[0]] === pair.split('=')[1]));
  function free(device, from, to) {
    const [before, after] = margins(device);
    const windows = [];
    let at = from;
    for (const [begin, end] of taken(device)) {
      if (begin - after > at) windows.push([at, Math.min(to, begin - after)]);
      at = Math.max(at, end + before);
    }
    if (at < to) windows.push([at, to]);
    return windows.filter(([a, b]) => a < to && b > a).map(([a, b]) => ({ from: iso(a), until: iso(b) }));
  }

  function book(body) {
    const customer = customers.find((one) => one.id === body.customer || one.external_ref === body.customer);
    if (!customer) return problem(422, 'invalid', `customer: ${body.customer}`, { errors: [{ field: 'customer', detail: `there is no customer ${body.customer}` }] });
    const [item] = body.items;
    const [from, until] = [item.from ? Date.parse(item.from) : Date.now(), Date.parse(item.until)];
    const wrong = from < Date.now() - 1000 ? ['from', 'lies in the past: a time to come is expected; without it the window begins now'] : until <= from ? ['until', 'a time after from is expected'] : undefined;
    if (wrong) return problem(422, 'invalid', wrong[1], { errors: [{ field: `items[0].${wrong[0]}`, detail: wrong[1] }] });
    if (item.device && !find(item.device)) return problem(422, 'invalid', 'device', { errors: [{ field: 'items[0].device', detail: `there is no host ${item.device}` }] });
    const devices = item.device ? [find(item.device)] : rentable(Object.entries(item.labels ?? {}).map(([key, value]) => `${key}=${value}`), item.profile);
    if (devices.length === 0) return problem(422, 'invalid', 'labels', { errors: [{ field: 'items[0].labels', detail: 'no rentable device has all of these labels' }] });
    if (!settings.get(devices[0].id)?.rentable) return problem(409, 'not_rentable', `${devices[0].name} cannot be booked: a device must be rentable`);
    const device = devices.find((one) => !inTheWay(one.id, around(one.id, from, until)));
    const next = devices.map((one) => nextFree(one.id, from, until)).filter(Boolean).sort((a, b) => (a.from < b.from ? -1 : 1))[0];
    if (!device && item.device) return occupied(devices[0].id, inTheWay(devices[0].id, around(devices[0].id, from, until)), { item: 0, next_free: next });
    if (!device) return problem(409, 'occupied', 'occupied', { conflict: { item: 0, next_free: next } });
    const booking = { id: id('b'), customer: customer.id, external_ref: body.external_ref ?? null, hold_until: body.hold_until ?? null, time_zone: body.time_zone, notes: body.notes, author: 'user:admin', created_at: iso(Date.now()), version: 1 };
    const hold = body.hold_until ? Date.parse(body.hold_until) : undefined;
    const one = { id: id('l'), booking: booking.id, customer: customer.id, external_ref: booking.external_ref, device: device.id, from, until, prepared: around(device.id, from, until)[0], turnaround: margins(device.id)[1], hold, time_zone: body.time_zone, created_at: booking.created_at, version: 1, ...gate(list.length + 1, item) };
    bookings.unshift(booking);
    list.unshift(one);
    tell('booking.created', booking.id);
    return [201, { ...booking, rentals: [shown(one)] }];
  }

  function change(one, body) {
    const until = body.until ? Date.parse(body.until) : one.until;
    if (body.device) {
      const device = find(body.device);
      if (!device) return problem(422, 'invalid', 'device', { errors: [{ field: 'device', detail: `there is no host ${body.device}` }] });
      const found = inTheWay(device.id, around(device.id, Math.max(one.from, Date.now()), one.until), one);
      if (found) return occupied(device.id, found);
      one.device = device.id;
    } else if (body.until) {
      const found = inTheWay(one.device, [one.until, until + one.turnaround], one);
      if (found) return occupied(one.device, found, { latest_until: iso(found[0] - one.turnaround) });
      one.until = until;
    }
    for (const name of ['name', 'access', 'renters', 'allowance_bytes', 'cut_at_allowance', 'ssh', 'contacts', 'maintenance']) if (name in body) one[name] = body[name];
    one.version += 1;
    tell('rental.changed', one.id);
    return [200, shown(one)];
  }

  function end(one, reason, note) {
    Object.assign(one, { ended: Date.now(), reason, note, version: one.version + 1 });
    tell(reason === 'cancelled' ? 'rental.cancelled' : 'rental.ended', one.id);
    return [200, shown(one)];
  }

  function ofDevice(host, what, method, body) {
    if (what === 'rental-settings') {
      if (method === 'PUT') settings.set(host.id, { ...body, version: settingsOf(host).version + 1 });
      if (method === 'PUT') tell('device.rental_settings_changed', host.id);
      return [200, settingsOf(host)];
    }
    if (method === 'GET') return [200, { items: blocks.filter((one) => one.device === host.id), next: null }];
    const [from, until] = [body.from ? Date.parse(body.from) : Date.now(), body.until ? Date.parse(body.until) : Infinity];
    const covered = list.filter((one) => one.device === host.id && freeAt(one) > from && one.prepared < until).map((one) => one.id);
    if (covered.length > 0 && !body.force) return problem(409, 'rentals_covered', `${host.name} is rented then: ${covered.join(', ')}: choose another time, or cover them with force`, { rentals: covered });
    blocks.unshift({ id: id('x'), device: host.id, device_name: host.name, from: iso(from), until: Number.isFinite(until) ? iso(until) : null, reason: body.reason, author: 'user:admin', created_at: iso(Date.now()), ended_at: null, ended_by: null });
    tell('device.blocked', host.id);
    return [201, blocks[0]];
  }

  function ofCustomer(method, key, body) {
    const one = customers.find((customer) => customer.id === key || customer.external_ref === key);
    if (!one) return problem(404, 'not_found', `there is no customer ${key}`);
    const open = list.filter((rental) => rental.customer === one.id && ['held', 'booked', 'preparing', 'active'].includes(stateOf(rental))).map((rental) => rental.id);
    if (method === 'DELETE' && open.length > 0) return problem(409, 'rentals_open', `this customer has rentals that have not ended: cancel or end its rentals first: ${open.join(', ')}`, { rentals: open });
    if (method === 'DELETE') customers.splice(customers.indexOf(one), 1);
    if (method === 'PATCH') Object.assign(one, body, { version: one.version + 1 });
    if (method !== 'GET') tell(method === 'DELETE' ? 'customer.erased' : 'customer.changed', one.id);
    return method === 'DELETE' ? [204, undefined] : [200, one];
  }

  function selected(query) {
    const [from, to] = ['from', 'to'].map((name) => query.get(name) && Date.parse(query.get(name)));
    const is = (name, value) => !query.get(name) || query.get(name) === value;
    return list.filter((one) => (is('device', one.device) || is('device', find(one.device).name)) && is('customer', one.customer) && is('state', stateOf(one)) && (!from || one.until > from) && (!to || one.from < to));
  }

  /** The device was down for a tenth of the time, at its begin. */
  function report(one) {
    const [from, until] = [one.from, Math.min(one.ended ?? one.until, Date.now())];
    const name = find(one.device).name;
    const times = (a, b) => ({ from: iso(a), until: iso(b) });
    const had = !['held', 'cancelled'].includes(stateOf(one)) && from < until;
    const [known, down] = [(until - from) / 1000, (until - from) / 10_000];
    const shares = { percent: 90, available_s: known - down, known_s: known };
    const availability = { ...shares, unknown_s: 0, outside_maintenance: shares, conditions: [{ condition: 'up', seconds: known - down }, { condition: 'down', seconds: down }] };
    const change = (at, words) => ({ at: iso(at), author: 'user:admin', change: words, changed: [], device: one.device, device_name: name, window: times(one.from, one.until) });
    return {
      rental: one.id, booking: one.booking, customer: one.customer, final: ['closed', 'cancelled', 'failed'].includes(stateOf(one)), made_at: iso(Date.now()), state: stateOf(one), time_zone: one.time_zone,
      booked: times(one.from, one.until), window: times(one.from, one.until), used: had ? times(from, until) : null, end_reason: one.reason ?? null,
      changes: [change(Date.parse(one.created_at), 'booked'), ...(one.ended ? [change(one.ended, one.reason === 'cancelled' ? 'cancelled' : 'ended')] : [])],
      devices: had ? [{ device: one.device, device_name: name, ...times(from, until), availability, services: [{ service: 'ping', availability }] }] : [],
      outages: had ? [{ device: one.device, service: null, state: 'down', ...times(from, from + down * 1000) }] : [], outages_left_out: 0,
      incidents: had ? [{ incident: 'i_000000000000a', device: one.device, scope: 'host', cause: 'host_down', ...times(from, from + down * 1000) }] : [], incidents_left_out: 0,
      traffic: { sent_packets: 1031, sent_bytes: 1_203_400, received_packets: 2920, received_bytes: 3_400_120 }, intervals: [], intervals_left_out: 0,
    };
  }

  const now = Date.now();
  const seed = (host, customer, from, until, of = {}) => {
    const [booking, rental] = [id('b'), id('l')];
    bookings.push({ id: booking, customer: customers[customer].id, external_ref: null, hold_until: of.hold ? iso(of.hold) : null, time_zone: 'Europe/Vienna', notes: 'needs the tripod', author: 'user:admin', created_at: iso(now), version: 1 });
    list.push({ id: rental, booking, customer: customers[customer].id, external_ref: `order-${list.length + 4711}`, device: hosts[host].id, from: now + from, until: now + until, prepared: now + from - HOUR / 2, turnaround: 2 * HOUR, time_zone: 'Europe/Vienna', created_at: iso(now), version: 1, ...gate(list.length + 1), ...of });
  };
  const bobs = people.seed(customers[0].id);
  seed(0, 0, -2 * DAY, 3 * DAY, { name: 'lens', renters: [bobs.id] });
  seed(0, 1, 4 * DAY, 6 * DAY);
  seed(6, 1, -6 * DAY, -5 * DAY);
  seed(1, 2, -9 * DAY, -HOUR);
  seed(1, 3, 2 * DAY, 2.2 * DAY);
  seed(2, 1, HOUR / 4, 2 * DAY);
  seed(3, 0, 5 * DAY, 12 * DAY, { hold: now + DAY });
  seed(4, 2, -5 * DAY, 5 * DAY, { ended: now - DAY, reason: 'failed', note: 'no power' });
  seed(5, 2, 3 * DAY, 4 * DAY, { ended: now - HOUR, reason: 'cancelled' });
  ofDevice(hosts[6], 'blocks', 'POST', { reason: 'a new battery', from: iso(now - DAY) });
  ofDevice(hosts[0], 'blocks', 'POST', { reason: 'a new lens', from: iso(now + 5 * DAY), until: iso(now + 8 * DAY), force: true });

  /** Returns `undefined` for other paths. */
  const own = mine({ people, customer: customers[0] });

  return (on, method, query, body, cookie) => {
    let match;
    const who = own(on, method, query, body, cookie) ?? people.answer(on, method, query, body);
    if (who) return who;
    if (on('/customers') && method === 'POST') return customers.unshift({ id: id('k'), external_ref: null, contacts: [], created_at: iso(Date.now()), version: 1, ...body }), tell('customer.created', customers[0].id), [201, { id: customers[0].id, version: 1 }];
    if (on('/customers')) return [200, page(customers, query)];
    if ((match = on('/customers/([^/]+)'))) return ofCustomer(method, match[1], body);
    if (on('/bookings') && method === 'POST') return book(body);
    const whole = (booking) => ({ ...booking, rentals: list.filter((one) => one.booking === booking.id).map(shown) });
    if (on('/bookings')) return [200, page(bookings.filter((one) => !query.get('customer') || one.customer === query.get('customer')).map(whole), query)];
    if ((match = on('/bookings/([^/]+)'))) {
      const booking = bookings.find((one) => one.id === match[1]);
      if (method === 'PATCH' && body.hold_until === null) list.filter((one) => one.booking === booking.id).forEach((one) => (one.hold = undefined)), (booking.hold_until = null), tell('booking.changed', booking.id);
      return [200, whole(booking)];
    }
    if (on('/rentals/availability')) {
      const [from, to] = [query.get('from') ? Math.max(Date.now(), Date.parse(query.get('from'))) : Date.now(), Date.parse(query.get('to'))];
      const items = rentable(query.getAll('label'), query.get('profile')).map((host) => ({ device: host.id, device_name: host.name, free: free(host.id, from, to) }));
      return [200, { from: iso(from), to: iso(to), devices: items.length, free: items.filter((one) => one.free[0]?.from === iso(from) && one.free[0]?.until === iso(to)).length, ...page(items, query) }];
    }
    if (on('/rentals')) return [200, page(selected(query).map(shown), query)];
    if ((match = on('/rentals/([^/]+)/report'))) {
      const one = list.find((rental) => rental.id === match[1]);
      return one ? [200, report(one)] : problem(404, 'not_found', `no rental is called ${match[1]}`);
    }
    if ((match = on('/rentals/([^/]+)(/cancel|/end|/dispatch|/return)?'))) {
      const one = list.find((rental) => rental.id === match[1]);
      if (match[2] === '/dispatch' || match[2] === '/return') return (one[match[2] === '/return' ? 'returned_at' : 'dispatched_at'] = iso(Date.now())), (one.version += 1), tell('rental.changed', one.id), [200, shown(one)];
      if (match[2]) return match[2] === '/end' ? end(one, body.reason, body.note) : end(one, 'cancelled');
      return method === 'PATCH' ? change(one, body) : [200, shown(one)];
    }
    if ((match = on('/devices/([^/]+)/(rental-settings|blocks)')) && find(match[1])) return ofDevice(find(match[1]), match[2], method, body);
    if ((match = on('/devices/([^/]+)/blocks/([^/]+)'))) {
      Object.assign(blocks.find((one) => one.id === match[2]), { ended_at: iso(Date.now()), ended_by: 'user:admin' });
      tell('device.unblocked', find(match[1]).id);
      return [204, undefined];
    }
    return undefined;
  };
}
