//! The edition called `red`.

use frontend_guest::export;
use guests::Edition;

export!(Edition("red"));
