//! Policies that misbehave, one a file under `examples/`.
//!
//! But for one target each, named at the top of the file, they are the default policy: so they
//! pass the check at upload, and serve until a request springs the trap.
//!
//! | guest | springs on | does |
//! |---|---|---|
//! | `traps` | `/stocks/trap…`, outcomes of `/stocks/late-trap…` | panics |
//! | `loops` | `/stocks/loop…` | never returns |
//! | `eats-memory` | `/stocks/eat…` | allocates until it dies |
//! | `nonsense` | `/stocks/nonsense/…`, outcomes of `/stocks/nonsense-outcome…` | decides what no policy may; tries again for ever |
//! | `chatty` | every call | prints, and reaches for all that WASI has |
//! | `marked` | every response | adds `x-policy: marked` |
//! | `echoes` | `/echo`, `/status/…`, every read | says what it sees of a request; has answers kept briefly |
//! | `computes` | `/stocks/compute/…` | computes for so many rounds |
//! | `edition-…` | every response | names itself in a header and in the body, see [`Edition`] |
//! | `flawed` | at upload | fails the self-test in four ways |
//! | `tireless` | at upload | tries what no backend answers again, for ever |
//! | `configured` | `/config` | answers with its configuration |
//! | `leaks` | a name in `x-name` that begins with `secret-` | has what it renders by it kept for all |
//! | `leaks-plainly` | at upload | has what it renders by a header and by an address kept for all |
//! | `adds` | every reply, `/stocks/trap…` | has the headers of its configuration added; panics, and has that refused |
//! | `limited` | lookups with `x-client` | grants three an hour to each; `/stocks/costly` takes what there never is; `/stocks/free` goes on where the catalog is away |
//! | `metered` | lookups | grants thirty to all clients together, and one more a day |
//! | `observes` | every decision | counts, and says so |
//! | `remembers` | `OPTIONS`, after so many requests | answers by how many there were |
//! | `guarded` | requests without its key, `/stocks/trap…` | answers 401; panics, and has that refused |
//! | `forbidden-import` | at upload | imports what no host grants |
//! | `mistyped-import` | `/stocks/mistyped…` | calls an import that is not of WASI's type |

mod edition;

pub use edition::Edition;
