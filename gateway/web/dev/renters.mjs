// The people and renters of the stand-in (dev/mock.mjs). Its key pairs are none.
const iso = (ms) => new Date(ms).toISOString();
const gone = [404, { status: 404, code: 'not_found', title: 'not found', detail: 'there is no such person or renter' }];

/** `page`: pages a list. `tell`: sends an event of the stream. `qr`: an image. */
export function renters({ page, tell, qr }) {
  let count = 0;
  const id = (kind) => `${kind}_${String((count += 1)).padStart(13, '0')}`;
  const people = [];
  const list = [];

  function addPerson(body) {
    people.unshift({ id: id('y'), email: null, ...body, created_at: iso(Date.now()), version: 1 });
    tell('person.created', people[0].id);
    return people[0];
  }

  function addRenter(body, of = {}) {
    const person = people.find((one) => one.id === body.person);
    const n = count + 16;
    const one = { id: id('w'), customer: person.customer, public_key: `${'r'.repeat(43)}=`, keyed_at: iso(Date.now()), addresses: [`10.112.1.${n}`, `fd72::${n}`], allowed_ips: ['10.112.4.0/26', 'fd72::400/122'], established: false, last_handshake: null, mtu: null, created_at: iso(Date.now()), version: 1, ...body, ...of };
    list.unshift(one);
    tell('renter.created', one.id);
    return one;
  }

  function withCredentials(renter, own) {
    const key = own ? "# PrivateKey = (the device's own: it stays there)" : 'PrivateKey = shown+once=';
    const conf = `[Interface]\n${key}\nAddress = ${renter.addresses.join(', ')}\nMTU = 1280\n\n[Peer]\nPublicKey = gateway=\nPresharedKey = shared=\nAllowedIPs = ${renter.allowed_ips.join(', ')}\nEndpoint = gw.example:51820\nPersistentKeepalive = 25\n`;
    const { id, person, customer, public_key, addresses, allowed_ips, version } = renter;
    return { renter: { id, person, customer, public_key, addresses, allowed_ips, version }, credentials: { preshared_key: 'shared=', conf, ...(own ? {} : { private_key: 'shown+once=', qr_svg: qr() }) } };
  }

  function ofOne(all, kind, key, method, body) {
    const one = all.find(({ id }) => id === key);
    if (!one) return gone;
    if (method === 'GET') return [200, one];
    if (method === 'PATCH') Object.assign(one, body, { version: one.version + 1 });
    else all.splice(all.indexOf(one), 1);
    if (method === 'DELETE' && kind === 'person') list.filter((renter) => renter.person === key).forEach((renter) => list.splice(list.indexOf(renter), 1));
    tell(`${kind}.${method === 'PATCH' ? 'changed' : 'removed'}`, key);
    return method === 'PATCH' ? [200, one] : [204, undefined];
  }

  const selected = (all, query) => all.filter((one) => ['customer', 'person'].every((name) => !query.get(name) || one[name] === query.get(name)));

  /** Gives a customer two people with renters. */
  function seed(customer) {
    const [ada, bob] = [addPerson({ customer, name: 'Ada', email: 'ada@example.org' }), addPerson({ customer, name: 'Bob' })];
    addRenter({ person: ada.id, name: 'ada-laptop' }, { established: true, last_handshake: iso(Date.now() - 40_000) });
    addRenter({ person: ada.id, name: 'ada-phone' });
    return addRenter({ person: bob.id, name: 'bob-laptop' }, { last_handshake: iso(Date.now() - 9e6) });
  }

  /** Returns `undefined` for other paths. */
  function answer(on, method, query, body) {
    let match;
    if (on('/people')) return method === 'POST' ? [201, addPerson(body)] : [200, page(selected(people, query), query)];
    if ((match = on('/people/([^/]+)'))) return ofOne(people, 'person', match[1], method, body);
    if (on('/renters') && method === 'POST' && !/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/.test(body.name)) return [422, { status: 422, code: 'invalid', title: 'invalid', detail: 'name', errors: [{ field: 'name', detail: 'at most 63 of a-z, 0-9, - and . are expected' }] }];
    if (on('/renters')) return method === 'POST' ? [201, withCredentials(addRenter(body), body.public_key)] : [200, page(selected(list, query), query)];
    if ((match = on('/renters/([^/]+)/credentials'))) {
      const one = list.find(({ id }) => id === match[1]);
      Object.assign(one, { keyed_at: iso(Date.now()), version: one.version + 1 });
      tell('renter.rekeyed', one.id);
      return [200, withCredentials(one, body.public_key)];
    }
    if ((match = on('/renters/([^/]+)'))) return ofOne(list, 'renter', match[1], method, body);
    return undefined;
  }
  /** The person that came first. */
  const first = () => people.at(-1);
  return { answer, seed, first };
}
