import './app.css';
import { mount } from 'svelte';
import { base, within } from './lib/base';
import { isMine } from './lib/my-paths';

/** Customers load none of the operators' page, and the other way round. */
const root = isMine(within(base, location.pathname)) ? import('./my/My.svelte') : import('./App.svelte');
void root.then(({ default: Root }) => mount(Root, { target: document.getElementById('app')! }));
