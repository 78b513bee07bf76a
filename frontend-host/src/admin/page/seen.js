// Gateways that were there and are gone. Of these so many are shown, for so long: whoever comes anew each second, under a new
// name, takes the place of none that was there for long.

const GONE_FOR = 600; // seconds
const GONE_MAX = 8;

export class Seen {
  all = new Map(); // by their keys, with when they were seen first and last
  passed = 0; // how many that are gone have no place

  // Takes in who is there at that second; returns who is gone, the one that was there longest first. None where it is not known
  // who is there.
  look({ at, gateways, areKnown }) {
    for (const { key, name, release, report } of gateways) {
      if (report) this.all.set(key, { key, name, release, first: this.all.get(key)?.first ?? at, last: at });
    }
    if (!areKnown) return [];
    const there = new Set(gateways.map(({ key }) => key));
    const stayed = ({ first, last }) => last - first;
    const gone = [...this.all.values()].filter(({ key }) => !there.has(key));
    const isLate = ({ last }) => at - last > GONE_FOR;
    const [late, lately] = [gone.filter(isLate), gone.filter((gateway) => !isLate(gateway))];
    lately.sort((one, other) => stayed(other) - stayed(one));
    const beyond = lately.splice(GONE_MAX);
    for (const { key } of [...late, ...beyond]) this.all.delete(key);
    this.passed += beyond.length;
    return lately.map(({ key, name, release, last }) => ({ key, name, release, seconds: at - last }));
  }
}
