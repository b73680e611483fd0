// What the programs in this folder share; scripts/harness.py says what they read and print.

import { readFileSync } from "node:fs";

export const task = JSON.parse(process.argv[2]);

const classNames = (error) => {
  const names = [error.name];
  for (let each = Object.getPrototypeOf(error); each; each = Object.getPrototypeOf(each)) {
    names.push(each.constructor.name);
  }
  return names;
};

const outcome = async (check) => {
  try {
    return await check();
  } catch (error) {
    return { raised: classNames(error), message: error.message };
  }
};

const version = (name) =>
  JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;

// Make the calls that the task asks for, among those that the client has, and print what came back.
export const report = async (packages, checks, transport) => {
  const results = {};
  for (const [name, check] of Object.entries(checks)) {
    if (task.checks.includes(name)) results[name] = await outcome(check);
  }
  const versions = Object.fromEntries(packages.map((name) => [name, version(name)]));
  console.log(JSON.stringify({ versions, transport: await transport(), results }));
};
