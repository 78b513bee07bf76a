//! The edition called `green`.

use frontend_guest::export;
use guests::Edition;

export!(Edition("green"));
