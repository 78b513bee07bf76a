//! The edition called `amber`.

use frontend_guest::export;
use guests::Edition;

export!(Edition("amber"));
