//! The policy that Bazaar runs unless told otherwise.

use frontend_guest::{DefaultPolicy, export};

export!(DefaultPolicy);
