// What is open and where one is: shared by the page's parts, which change it.

import { fromAddress } from "./state.js";

export const get = (id) => document.getElementById(id);

export const state = fromAddress();  // what is chosen
export const now = {
  shelf: { entries: [], chosen: [] },  // what can be opened
  panes: [],
  sceneOf: [],  // place in the table -> number of its scene
  order: [],  // places that are listed
  at: 0,  // place in `order`
  turn: 0,  // counts what is shown: what belongs to another is not wanted any more
  playing: false,
  forward: 1,  // or -1, where one goes back
  toFirst: false,  // to the first of an order that is still being counted
};

export const there = () => now.panes.filter((pane) => pane.artifact);
export const base = () => there()[0] ?? null;
export const other = () => there()[1] ?? null;
export const token = () => base()?.artifact.samples.tokens[now.order[now.at]];
