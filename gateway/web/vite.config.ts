import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig, type Plugin } from 'vite';

/** Where `npm run dev` finds an API: a gateway, or `npm run dev:mock`. */
const api = process.env.FLEETGATE_URL ?? 'http://127.0.0.1:8099';

/** Writes `x.gz` beside each text, so that the gateway compresses nothing at run time. */
function packed(): Plugin {
  return {
    name: 'packed',
    apply: 'build',
    closeBundle() {
      for (const name of readdirSync('dist', { recursive: true, encoding: 'utf8' })) {
        if (!/\.(html|js|css|svg)$/.test(name)) continue;
        const file = join('dist', name);
        writeFileSync(`${file}.gz`, gzipSync(readFileSync(file), { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  plugins: [svelte(), packed()],
  build: {
    target: 'es2022',
    // The policy allows no inline script or style and no fonts; files stay files.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  // Behind a proxy the page may be served under a path: the gateway writes it into the page, and scripts go by their own.
  experimental: { renderBuiltUrl: (_, { hostType }) => (hostType === 'html' ? undefined : { relative: true }) },
  // The gateway compares `Origin` with `Host`: the proxy leaves both as the browser sent them.
  server: { proxy: { '/api': { target: api, changeOrigin: false }, '/docs': { target: api, changeOrigin: false } } },
});
