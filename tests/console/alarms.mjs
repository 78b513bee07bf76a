// What the console says of the moments in a table: `node alarms.mjs PAGE TABLE`, where PAGE is a directory of the page's modules.
// Prints the alarms of each case, as JSON.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [page, table] = process.argv.slice(2);
const { alarms } = await import(pathToFileURL(`${page}/alarms.js`));
const { History } = await import(pathToFileURL(`${page}/figures.js`));
const { base, cases } = JSON.parse(readFileSync(table, "utf8"));

const found = cases.map(({ name, moments, policies = {}, gone = [] }) => {
  const history = new History();
  let now;
  for (const more of moments) {
    now = { ...base, ...more };
    history.add(now);
  }
  const minute = history.over(60);
  const all = alarms({ now, minute, all: minute, policies, gone });
  return { name, alarms: all.map(({ severity, name: of, words, what }) => [severity, of, words, what]) };
});
console.log(JSON.stringify(found));
