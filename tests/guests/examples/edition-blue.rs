//! The edition called `blue`.

use frontend_guest::export;
use guests::Edition;

export!(Edition("blue"));
