// The page of a customer: a person opens it with a link, sees the rental, and adds a computer and a phone. `tools`: those of run.mjs.

const SSH_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti';

/** Makes a link on the page of the operator; it is shown once. */
async function linkByButton(page, person, { axe, closesWhatIsShownOnce, conf, dialog, press }) {
  await press(page, `Login link for ${person}`);
  await press(dialog(page), 'Make a link');
  await conf(page).waitFor();
  await axe(page);
  const link = (await conf(page).textContent()).trim();
  await closesWhatIsShownOnce(page, link);
  return link;
}

/** Makes a link with the session of the operator whose page this is. */
function linkFor(page, customer, person) {
  return page.evaluate(
    async ({ customer, person }) => {
      const { items } = await (await fetch(`/api/v1/people?customer=${customer}`)).json();
      const body = JSON.stringify({ person: items.find(({ name }) => name === person).id });
      const answer = await fetch(`/api/v1/customers/${customer}/login-link`, { method: 'POST', body, headers: { 'Content-Type': 'application/json', 'X-Fleetgate': 'dashboard' } });
      return (await answer.json()).url;
    },
    { customer, person },
  );
}

/** The private key of a computer is in no request, and in its QR code; a phone gets a pair of the server. */
async function addsPeers(page, { axe, closed, closesWhatIsShownOnce, combo, conf, dialog, must, press, shot }) {
  const sent = [];
  page.on('request', (request) => request.method() === 'POST' && sent.push(request.postData() ?? ''));
  const key = async () => (await conf(page).textContent()).match(/^PrivateKey = (\S+)/m)?.[1];
  const peers = page.locator('section[aria-labelledby=peers]');
  const begin = async (name) => {
    await press(peers, 'Add one');
    await dialog(page).getByLabel('Name', { exact: true }).fill(name);
  };
  await begin('Not A Name!');
  await press(dialog(page), 'Add');
  await dialog(page).getByText(/^Name: /).waitFor();
  must((await dialog(page).getByLabel('Name', { exact: true }).inputValue()) === 'Not A Name!', 'a refused name is lost');
  await dialog(page).getByLabel('Name', { exact: true }).fill('my-laptop');
  await axe(page);
  await press(dialog(page), 'Add');
  await dialog(page).getByText('Contains the private key. Save it now').waitFor();
  const own = await key();
  must(own && (await conf(page).textContent()).includes('PresharedKey'), 'no configuration');
  await dialog(page).getByRole('img', { name: 'QR code of the configuration' }).waitFor();
  must(sent.some((body) => body.includes('"public_key"')) && !sent.some((body) => body.includes(own)), 'the private key was sent');
  await axe(page);
  await shot(page, 'my-once-light');
  await closesWhatIsShownOnce(page, own);
  await peers.getByText('my-laptop').waitFor();

  const keys = dialog(page).getByLabel('Public keys', { exact: true });
  await press(peers, 'SSH keys of my-laptop');
  await keys.fill('nonsense');
  await press(dialog(page), 'Save');
  await dialog(page).getByText(/is expected, as in a \.pub file/).waitFor();
  await axe(page);
  await keys.fill(`${SSH_KEY} me@my-laptop`);
  await press(dialog(page), 'Save');
  await closed(page);
  await press(peers, 'SSH keys of my-laptop');
  must((await keys.inputValue()) === SSH_KEY, 'the key is not kept, or with its comment');
  await press(dialog(page), 'Cancel');
  await closed(page);

  await begin('my-phone');
  await combo(page, 'Key pair').selectOption({ label: 'Made by the server' });
  await press(dialog(page), 'Add');
  await dialog(page).getByRole('img', { name: 'QR code of the configuration' }).waitFor();
  const first = await key();
  await closesWhatIsShownOnce(page, first);
  await press(peers, 'New keys for my-phone');
  await dialog(page).getByText('stops working at once').waitFor();
  await press(dialog(page), 'Replace keys');
  await dialog(page).getByText('Contains the private key. Save it now').waitFor();
  must((await key()) !== first, 'the configuration is the former one');
  await closesWhatIsShownOnce(page, await key());
  await press(peers, 'Remove my-phone');
  await press(dialog(page), 'Remove');
  await closed(page);
  await peers.getByText('my-phone').waitFor({ state: 'detached' });
}

/** `page`: that of an operator. `of`: the id of the customer whose page it shows, the name of a person, and the name of a rental that is to come. */
export async function usesOwnPage(page, of, tools) {
  const { axe, browser, listen, looksWell, must, noSidewaysScroll, press, WIDE } = tools;
  const link = await linkByButton(page, of.person, tools);
  const context = await browser.newContext({ viewport: WIDE, colorScheme: 'light' });
  const mine = listen(await context.newPage());
  const asked = [];
  mine.on('request', (request) => asked.push(new URL(request.url()).pathname));
  await mine.goto(link);
  await mine.getByRole('heading', { level: 1, name: `Hello ${of.person}` }).waitFor();
  must(!mine.url().includes('#'), 'the secret still stands in the address');

  await mine.locator('section[aria-labelledby=next]').getByRole('link', { name: of.rental }).click();
  await mine.getByRole('heading', { level: 1, name: of.rental }).waitFor();
  await mine.getByText(/^Begins in /).waitFor();
  await mine.getByRole('button', { name: /^Copy the address \d+\./ }).waitFor();
  await looksWell(mine, 'my-rental');
  await mine.getByRole('link', { name: 'Your rentals' }).click();
  await addsPeers(mine, tools);
  await looksWell(mine, 'my');

  must((await mine.getByRole('navigation').count()) === 0, 'there is navigation of operators');
  const foreign = asked.filter((path) => path.startsWith('/api/v1/') && !/^\/api\/v1\/my(\/|$)/.test(path));
  must(foreign.length === 0, `the page asked for ${foreign[0]}`);
  const status = (path) => mine.evaluate(async (path) => (await fetch(path)).status, path);
  for (const path of ['/api/v1/hosts', '/api/v1/rentals', `/api/v1/customers/${of.customer}`, '/api/v1/my/rentals/l_0000000000000']) must((await status(path)) === 404, `${path} is not 404 for a customer: ${await status(path)}`);

  const again = listen(await (await browser.newContext({ viewport: WIDE })).newPage());
  await again.goto(link);
  await again.getByRole('heading', { name: 'This link does not work any more' }).waitFor();
  must(!again.url().includes('#'), 'the used secret still stands in the address');
  await axe(again);
  await noSidewaysScroll(again);
  await again.context().close();

  await mine.goto(link);
  await press(mine, 'Show my rentals');
  await mine.getByText(of.rental).first().waitFor();
  await context.clearCookies();
  await mine.reload();
  await mine.getByRole('heading', { name: 'Open a new link' }).waitFor();
  await mine.goto(await linkFor(page, of.customer, of.person));
  await press(mine, 'Sign out');
  await mine.getByRole('heading', { name: 'You are signed out' }).waitFor();
  must((await status('/api/v1/my')) === 401, 'the session goes on after signing out');
  await context.close();
}
